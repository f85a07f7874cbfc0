"""What every stage shares: where outputs lie, and how a mistake is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from builders.errors import UserError
from builders.shards import Shelf

BUILD = Path("build")
USAGE = "usage.json"  # what a stage's language models read and wrote
WEIGHTS = "weights"  # the folder of a dictionary's own files in its output


def folder(kind: str, *ids: str) -> Path:
    """Return the output folder of a stage for *ids*."""
    return BUILD.joinpath(kind, *ids)


def shelf(kind: str, *ids: str) -> Shelf:
    """Open a finished output folder; raise UserError where it is not there."""
    return Shelf(folder(kind, *ids))


def run(main: Callable[..., None]) -> None:
    """Call *main* with the ids of the command line; a person's mistake is one line and exit code 2."""
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
