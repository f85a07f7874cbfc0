"""Kernels are pinned before a library chooses them, unless the user has set a variable."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.kernels import COMPATIBLE, NATIVE, PINS, PORTABLE, SWITCH, pin

ROOT = Path(__file__).parents[2]
x86 = pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="other processors have other kernels")
LOADED = """
import json, os, pipelines.graph.stage, numpy, torch
numpy.ones((2, 2)) @ numpy.ones((2, 2))
from threadpoolctl import threadpool_info
blas = [library for library in threadpool_info() if library["internal_api"] == "openblas"]
print(json.dumps({
    "aten": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
    "blas": sorted({(library["architecture"], library["num_threads"]) for library in blas}),
    "environment": {name: os.environ.get(name) for name in %r},
}))
"""


def fresh(**given: str) -> dict[str, Any]:
    """Return kernels, threads and variables of a new process that has imported a stage; of PINS only *given* is set before."""
    environment = {name: value for name, value in os.environ.items() if name not in {*PINS, SWITCH}} | given
    ran = subprocess.run([sys.executable, "-c", LOADED % list(PINS)], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@x86
def test_a_stage_runs_on_pinned_kernels() -> None:
    """Importing a stage's room is enough: every variable is set, and torch and OpenBLAS run as it says."""
    found = fresh()
    assert found["environment"] == {name: one.value for name, one in PINS.items()}
    assert (found["aten"], found["threads"], found["blas"]) == ("AVX2", 2, [["Haswell", 1]])


@x86
def test_a_variable_that_the_user_sets_stays() -> None:
    """A variable that has a value keeps it, and MKL takes as many threads as the user gives OpenMP."""
    found = fresh(ATEN_CPU_CAPABILITY="default", OMP_NUM_THREADS="3", MKL_CBWR="SSE4_2")
    others = {name: one.value for name, one in PINS.items()}
    chosen = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "MKL_CBWR": "SSE4_2"}
    assert found["environment"] == {**others, **chosen}
    assert (found["aten"], found["threads"]) == ("DEFAULT", 3)


@x86
def test_portable_kernels_differ_in_one_branch_of_mkl() -> None:
    """The switch changes the branch of MKL, and nothing else."""
    others = {name: one.value for name, one in PINS.items()}
    assert fresh(**{SWITCH: PORTABLE})["environment"] == {**others, "MKL_CBWR": COMPATIBLE.value}


def test_native_kernels_leave_every_variable_alone() -> None:
    """The switch leaves every variable as it was."""
    assert fresh(**{SWITCH: NATIVE})["environment"] == dict.fromkeys(PINS)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_after_a_library_is_loaded_nothing_is_pinned(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one library is already loaded, no variable is set for the others either."""
    for name in ("numpy", "torch"):
        monkeypatch.delitem(sys.modules, name)
    before: dict[str, str] = {}
    assert pin(before)
    assert before.keys() == PINS.keys()
    monkeypatch.setitem(sys.modules, library, sys)
    after: dict[str, str] = {}
    assert not pin(after)
    assert after == {}
