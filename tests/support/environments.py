"""Environments of packages that tests compare with: `python tests/support/environments.py reference` prints the path of one's Python.

Each lies outside the checkout under a hash of all that it is made from, so another checkout on the machine finds it. It is
whole or absent: what lies there without its last file, `ready`, is built anew. The standard library is enough for this.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
RECIPE = 1  # raised whenever `build` makes something else of the same requirements
LOCK = ROOT / "requirements.lock"
STAGES = ("vllm_cpu",)  # these run whole stages, so they need what the project needs
BARE = "without_dependencies.txt"  # packages that are installed alone, beside what the rest asks for


def asked(name: str) -> dict[str, str]:
    """Return the texts that decide environment *name*: the Python it is made with, and all required packages."""
    folder = ROOT / "tests" / name
    if not (folder / "requirements.txt").exists():
        raise SystemExit(f"error: tests/{name}/requirements.txt is not there, so nothing says what this environment holds")
    files = {path.name: path.read_text() for path in (LOCK, *sorted(folder.glob("*.txt")))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = project["dependencies"] if name in STAGES else []
    # Not the executable: it may be that of this checkout's own environment, and other checkouts shall find what is built.
    return files | {"recipe": str(RECIPE), "python": f"{sys.base_prefix} {sys.version}", "ours": "\n".join(ours)}


def place(name: str) -> Path:
    """Return where environment *name* lies on this machine, whether or not it is built."""
    key = hashlib.sha256(repr(sorted(asked(name).items())).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "interplake" / f"{name}-{key}"


def build(name: str, folder: Path) -> None:
    """Build environment *name* in *folder*, which is whole once `ready` is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    install = (folder / "bin/python", "-m", "pip", "install", "--quiet")
    files = ROOT / "tests" / name
    ours = asked(name)["ours"].splitlines()
    run(*install, "--constraint", LOCK, "--requirement", files / "requirements.txt", *ours)
    if (files / BARE).exists():
        run(*install, "--no-deps", "--requirement", files / BARE)
    (folder / "ready").touch()


def run(*command: str | Path) -> None:
    """Run a command with its output on stderr; if it fails, this process exits with its code."""
    ended = subprocess.run(command, stdout=sys.stderr, check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock, so that other processes that want *folder* wait while inside."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(*names: str) -> None:
    """Print the path of the Python of each environment; build those that do not exist."""
    for name in names:
        folder = place(name)
        with alone(folder):
            if not (folder / "ready").exists():
                print(f"building the environment of tests/{name} in {folder}", file=sys.stderr)
                build(name, folder)
        print(folder / "bin/python")


if __name__ == "__main__":
    main(*sys.argv[1:])
