"""A project with a small release, a stand-in of the Hub, and the real command between them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
from click.testing import CliRunner, Result
from dataset_hub import TOKEN, DatasetHub
from dataset_routes import serving
from hub import ask
from published import REPO, Publish, make_lake
from shared import Once

from pipelines.cli import main
from pipelines.publishing.patience import ATTEMPTS


@pytest.fixture
def lake(once: Once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with the release 1.0.0, free to be changed, as the working folder."""
    folder = Path(shutil.copytree(once("lake", make_lake), tmp_path / "lake"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    """Serve an empty Hub that this process and those that it starts ask, with a token that may write there; waits take no time."""
    with serving(tmp_path / "hub") as served, stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        ask(served.endpoint, tmp_path / "home", monkeypatch)
        for name, value in {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def publish(hub: DatasetHub, lake: Path) -> Publish:
    """Return `interplake publish` for the project and the Hub; without --read-back unless it is asked for."""

    def published(*options: str, repo: str = REPO) -> Result:
        command = ["publish", "--repo", repo, "--endpoint", hub.endpoint, "--viewer", hub.endpoint, "--yes"]
        reading = [] if {"--read-back", "--no-read-back"} & set(options) else ["--no-read-back"]
        return CliRunner().invoke(main, [*command, *reading, *options], catch_exceptions=False)

    return published
