"""The git repository in the working folder."""

from __future__ import annotations

import subprocess


def git(*arguments: str) -> str | None:
    """Return what git says to a command, and None where it fails or is not installed."""
    try:
        ended = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607  # the git of this machine
    except OSError:
        return None
    return ended.stdout if ended.returncode == 0 else None
