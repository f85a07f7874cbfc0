"""Folders that all workers of a test run share: a costly folder is made once, by the worker that first asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

Fill = Callable[[Path], object]
Once = Callable[[str, Fill], Path]


def once(base: Path) -> Once:
    """Return a function that returns a folder of *base* by name, and fills it the first time; nobody may change it afterwards."""
    base.mkdir(exist_ok=True)

    def filled(name: str, fill: Fill) -> Path:
        folder, made = base / name, base / f"{name}.made"
        with FileLock(base / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what is left where filling it failed
                folder.mkdir()
                fill(folder)
                made.touch()
        return folder

    return filled
