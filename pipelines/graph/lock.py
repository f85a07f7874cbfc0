"""dvc.lock, which records what each stage read and wrote when it last ran."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.graph.stage import SOURCES

LOCK = Path("dvc.lock")
Entry = Mapping[str, Any]


def stages_of(lock: str) -> dict[str, Entry]:
    """Return the stages in the text of a lock file."""
    found: dict[str, Entry] = (yaml.load(lock, yaml.CSafeLoader) or {}).get("stages", {})  # a safe loader
    return found


def ran_with_this_code() -> bool:
    """Return whether the running stage last ran with the code that it has now; without a record, or outside DVC, it did not."""
    recorded = stages_of(LOCK.read_text()).get(os.environ.get("DVC_STAGE", ""), {}) if LOCK.exists() else {}
    of_code = [dep for dep in recorded.get("deps", ()) if SOURCES in Path(dep["path"]).parents]
    return bool(of_code) and all(md5_of(Path(dep["path"])) == dep["md5"] for dep in of_code)


def md5_of(path: Path) -> str:
    """Return the hash by which DVC knows a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
