"""Which arithmetic a stage runs on: the same kernels and the same number of threads on every x86 machine with AVX2 of one maker, or of any.

Libraries choose kernels by the processor they find, and each choice adds up in another order or approximates exp in another way. These
variables take the choice away. They are read when a library is loaded, so they must stand in the environment before numpy and torch are
imported. docs/reproducibility.md says what that buys and costs, and benchmarks/instruction_sets.py measures both.
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
    """A value that an environment variable gets unless it has one, and why."""

    value: str
    why: str


PINS = {
    "ATEN_CPU_CAPABILITY": Pin("avx2", "torch's own loops: sums, softmax, normal draws and attention differ between AVX2 and AVX-512"),
    "MKL_CBWR": Pin("AVX2", "torch's matrix products: the same on all processors of a maker, and as fast as they come"),
    "ONEDNN_MAX_CPU_ISA": Pin("AVX2", "torch's convolutions"),
    "OPENBLAS_CORETYPE": Pin("Haswell", "matrix products and decompositions of numpy and scipy"),
    "NPY_DISABLE_CPU_FEATURES": Pin(
        "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR", "numpy's exp, log and power"
    ),
    "ARROW_USER_SIMD_LEVEL": Pin("AVX2", "Arrow's sums"),
    "OMP_NUM_THREADS": Pin(THREADS, "a sum is cut into as many parts as there are threads"),
    "MKL_NUM_THREADS": Pin(THREADS, "the same in matrix products"),
    "MKL_DYNAMIC": Pin("FALSE", "or MKL takes fewer threads where it finds fewer cores"),
    "OPENBLAS_NUM_THREADS": Pin("1", "OpenBLAS never takes more threads than there are cores, so that only one is the same everywhere"),
}
COMPATIBLE = Pin("COMPATIBLE", "the only branch of MKL that is the same on AMD as on Intel, of the oldest instructions")


def pin(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Give every variable of PINS its value where the user gave none; return whether it was done.

    Nothing is done where the user asks for native kernels, nor where a library is loaded already: half of the pins would be no promise.
    """
    if environment.get(SWITCH) == NATIVE or {"numpy", "torch"} & sys.modules.keys():
        return False
    threads = environment.get("OMP_NUM_THREADS", THREADS)  # who asks for more threads asks for MKL's too
    portable = {"MKL_CBWR": COMPATIBLE} if environment.get(SWITCH) == PORTABLE else {}
    for name, chosen in (PINS | portable).items():
        environment.setdefault(name, threads if name == "MKL_NUM_THREADS" else chosen.value)
    return True
