"""What every stage shares: where outputs lie, and how a mistake is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import UserError
from builders.shards import Shelf

if TYPE_CHECKING:
    from pipelines.params import Params

BUILD = Path("build")
USAGE = "usage.json"  # what a stage's language models read and wrote
USED = "answers.txt"  # the addresses of the answers that a stage's rows use
WEIGHTS = "weights"  # the folder of a dictionary's own files in its output


def folder(kind: str, *ids: str) -> Path:
    """Return the output folder of a stage for *ids*."""
    return BUILD.joinpath(kind, *ids)


def shelf(kind: str, *ids: str) -> Shelf:
    """Open a finished output folder; raise UserError where it is not there."""
    return Shelf(folder(kind, *ids))


def folders(params: Params, stage: str) -> list[Path]:
    """Return the output folders of *stage* for all that params name, in order of id; never what merely lies there."""
    ids: dict[str, list[tuple[str, ...]]] = {"agreement": [()], "calibration": [()]}
    saes: list[tuple[str, ...]] = [(name,) for name in sorted(params.saes)]
    ids |= {each: [(name,) for name in sorted(params.subjects)] for each in ("subjects", "tokens", "steering")}
    ids["explanations"] = [(*sae, explainer) for sae in saes for explainer in sorted(params.explainers)]
    ids["scores"] = [(*pair, scorer) for pair in ids["explanations"] for scorer in sorted(params.scorers)]
    ids["direct"] = [(*sae, scorer) for sae in saes for scorer in sorted(params.direct_scorers)]
    return [folder(stage, *some) for some in ids.get(stage, saes)]


def run(main: Callable[..., None]) -> None:
    """Call *main* with the ids of the command line; a person's mistake is one line and exit code 2."""
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
