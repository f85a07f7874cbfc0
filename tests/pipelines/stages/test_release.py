"""What stage `release` refuses before it writes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import small_params

from builders.errors import UserError
from builders.lake.table import Column, Table
from pipelines.params import Params
from pipelines.registry import Config
from pipelines.stages import release


def test_a_name_that_does_not_load_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table whose name `load_dataset` refuses stops the release in one line, and nothing is written."""
    table = Table("layer/3", "a row", ("n",), (Column("n", "int32", "a number"),))
    monkeypatch.setattr(release, "CONFIGS", (Config(table, ("saes",)),))

    with pytest.raises(UserError, match=r"^config 'layer/3': load_dataset refuses the config name 'layer/3'; use letters"):
        release.assemble(Params.model_validate(small_params()), tmp_path / "release")

    assert not (tmp_path / "release").exists()
