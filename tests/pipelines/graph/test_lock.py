"""What dvc.lock says of the code of the stage that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.graph.lock import md5_of, ran_with_this_code

CODE = Path("build/sources/saes.txt")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder where stage `saes` runs, and has run with the code of now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "saes")
    CODE.parent.mkdir(parents=True)
    CODE.write_text("the hashes of its modules\n")
    deps = [{"path": str(CODE), "md5": md5_of(CODE)}, {"path": "build/tokens", "md5": "0.dir"}]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"saes": {"deps": deps}}}))


def test_a_record_of_the_same_code_counts() -> None:
    """Whatever other dependencies have become, the code is that of the record."""
    assert ran_with_this_code()


def test_other_code_another_stage_and_no_record_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edited code, a stage without a record, a run without DVC, and a project without dvc.lock have no such record."""
    found = []
    CODE.write_text("other hashes\n")
    found.append(ran_with_this_code())
    CODE.write_text("the hashes of its modules\n")
    monkeypatch.setenv("DVC_STAGE", "tokens")
    found.append(ran_with_this_code())
    monkeypatch.delenv("DVC_STAGE")
    found.append(ran_with_this_code())
    monkeypatch.setenv("DVC_STAGE", "saes")
    Path("dvc.lock").unlink()
    found.append(ran_with_this_code())

    assert found == [False] * 4
