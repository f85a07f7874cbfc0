"""`interplake start`: a project of one's own, which is a copy of the code that DVC watches, beside the params of one run.

Also `interplake expand`, which writes out entries for many layers in the params of a project.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from builders.errors import UserError
from builders.lake.shards import write_atomic
from pipelines.graph.closure import PACKAGES, ROOT
from pipelines.graph.declared import require_sections
from pipelines.params import FILE, load, path_of, text_of

COPIED = (*PACKAGES, ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml")


def start(folder: Path, params: Path) -> Path:
    """Make a project in *folder*, which must be new, with *params* as its params.yaml; return where these lie.

    Raises UserError where the folder is there already, or the params are not valid.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name a new folder, or remove it")
    load(params)
    require_sections(params)
    copy_code(folder)
    write_atomic(folder / FILE, text_of(params).encode())
    return folder / FILE


def expand() -> str:
    """Write every entry of params.yaml that stands for many layers as one entry a layer, and return what was done.

    Raises UserError, and writes nothing, where the params would not be valid.
    """
    path = path_of()
    text, dictionaries = text_of(path), len(load(path).saes)
    if text == path.read_text():
        return f"{path}: nothing to write out; each of its {dictionaries} dictionaries has an entry of its own"
    write_atomic(path, text.encode())
    return f"wrote {path}: each of its {dictionaries} dictionaries has an entry of its own"


def copy_code(folder: Path) -> None:
    """Copy the code and the graph into *folder*, and make it a git repository, since DVC works in one."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # noqa: S607
