"""Large libraries are imported without the packages that nothing here uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from project import environment

MODEL = """
from pathlib import Path
from builders.subjects.checkpoints import config_of, load, tokenizer_of
from builders.subjects.places import Source
source, folder = Source(path="checkpoints/lab-transformer"), Path("checkpoints/lab-transformer")
config_of(source, folder), tokenizer_of(source, folder), load(source, folder, "float32", "cpu")
"""
ARRAY = """
from builders.library import spare_pandas
spare_pandas()
import pyarrow as pa
assert pa.array([1, 2]).to_pylist() == pa.table({"a": [1, 2]}).sort_by("a")["a"].to_pylist() == [1, 2]
"""
FRAME = """
import pandas as pd
from builders.library import spare_pandas
spare_pandas()
import pyarrow as pa
assert pa.table({"a": [1]}).to_pandas().equals(pd.DataFrame({"a": [1]}))
"""
LOADED = "import sys; print(*sorted({'pandas', 'scipy', 'sklearn'} & {name for name, module in sys.modules.items() if module}))"


def loaded(code: str) -> str:
    """Run *code* in its own process and return which of the packages it loaded; all of them stay importable afterwards."""
    code = f"{code}\n{LOADED}\nimport pandas, scipy, sklearn.metrics"
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize(("code", "expected"), [(MODEL, ""), (ARRAY, ""), (FRAME, "pandas")], ids=["model", "array", "frame"])
def test_what_nothing_uses_is_not_loaded(code: str, expected: str) -> None:
    """Models load and arrays are made without pandas, scipy and scikit-learn; pandas is used if it is imported already."""
    assert loaded(code) == expected
