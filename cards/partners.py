"""The partners of a latent in other dictionaries, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table as Grid

SHOWN = ("decoder", "pearson")  # the measures whose values are shown; partners are those of the last one that a dictionary has
CUT = 60  # characters of an explanation


def partners(matches: Sequence[Mapping[str, Any]], explanations: Mapping[tuple[str, int], str]) -> Grid:
    """Return a table of the nearest latent in each other dictionary, from the MATCHES rows of one latent.

    *explanations* are by dictionary and latent. `=` marks a mutual partner.
    """
    grid = Grid("other", "partner", *SHOWN, "explanation", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for other in sorted({row["other"] for row in matches}):
        by = {row["measure"]: row for row in matches if row["other"] == other}
        known = [measure for measure in SHOWN if measure in by] or sorted(by)
        nearest = by[known[-1]]
        values = [f"{by[name]['value']:.2f}" if name in by and by[name]["partner"] == nearest["partner"] else "–" for name in SHOWN]
        words = explanations.get((other, nearest["partner"]), "")
        cut = words if len(words) <= CUT else f"{words[: CUT - 1]}…"
        grid.add_row(other, f"{nearest['partner']}{' =' if nearest['mutual'] else ''}", *values, cut)
    return grid
