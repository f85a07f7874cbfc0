"""Pins the arithmetic of every stage: the same kernels and the same number of threads on every x86 machine with AVX2.

Libraries choose kernels by the processor that they find, and each kernel sums in another order or approximates exp in another way. The
variables below take that choice away: results are then equal on all processors of one maker, and with INTERPLAKE_KERNELS=portable on those
of Intel and AMD alike. A library reads its variables when it is loaded, so they must be set before numpy and torch are imported.
docs/reproducibility.md says what this gains and costs, and benchmarks/instruction_sets.py measures both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass

SWITCH = "INTERPLAKE_KERNELS"
NATIVE = "native"  # the value of SWITCH that leaves every choice to the libraries
PORTABLE = "portable"  # the value that makes Intel and AMD compute alike, at twice the time of a matrix product
THREADS = "2"


@dataclass(frozen=True)
class Pin:
    """The value that an environment variable gets unless the user has set it, and the reason."""

    value: str
    why: str


PINS = {
    "ATEN_CPU_CAPABILITY": Pin("avx2", "torch's own loops: sums, softmax, normal draws and attention differ between AVX2 and AVX-512"),
    "MKL_CBWR": Pin("AVX2", "torch's matrix products: equal on all processors of one maker, at full speed"),
    "ONEDNN_MAX_CPU_ISA": Pin("AVX2", "torch's convolutions"),
    "OPENBLAS_CORETYPE": Pin("Haswell", "matrix products and decompositions of numpy and scipy"),
    "NPY_DISABLE_CPU_FEATURES": Pin(
        "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR", "numpy's exp, log and power"
    ),
    "ARROW_USER_SIMD_LEVEL": Pin("AVX2", "Arrow's sums"),
    "OMP_NUM_THREADS": Pin(THREADS, "a sum is split into as many parts as there are threads"),
    "MKL_NUM_THREADS": Pin(THREADS, "the sums of matrix products are split in the same way"),
    "MKL_DYNAMIC": Pin("FALSE", "otherwise MKL takes fewer threads where it finds fewer cores"),
    "OPENBLAS_NUM_THREADS": Pin("1", "OpenBLAS takes no more threads than there are cores, so only one thread is possible everywhere"),
}
COMPATIBLE = Pin("COMPATIBLE", "the only code path of MKL that computes alike on Intel and AMD; it uses the oldest instructions")


def pin(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set every variable of PINS that the user has not set; return whether this was done.

    It is not done where the user asks for native kernels. Nor is it done once numpy or torch is loaded: pins that reach only some of the
    libraries guarantee nothing.
    """
    if environment.get(SWITCH) == NATIVE or {"numpy", "torch"} & sys.modules.keys():
        return False
    threads = environment.get("OMP_NUM_THREADS", THREADS)  # the user's number of threads holds for MKL too
    portable = {"MKL_CBWR": COMPATIBLE} if environment.get(SWITCH) == PORTABLE else {}
    for name, chosen in (PINS | portable).items():
        environment.setdefault(name, threads if name == "MKL_NUM_THREADS" else chosen.value)
    return True
