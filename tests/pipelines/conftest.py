"""Projects that tests of stages share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def here(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the module's project *built*, and make it the working folder."""
    folder = tmp_path / "project"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    return folder
