"""The scores of each dictionary, in a table for each scorer. A column in which no dictionary has anything to say is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cards.render import decimal, measured, ranged, upto

Record = Mapping[str, Any]  # of cards.summary.score_summary
NOTHING = {"–", "0"}  # a column of these alone is left out
ONE = ("scorer", "negatives", "judge", "unit", "chance")  # what the records of one table share


@dataclass(frozen=True)
class Shown:
    """A column: its header, the cell of a record, and the note that a reader needs where the column is there."""

    header: str
    cell: Callable[[Record], str]
    note: str = ""


def _bounds(row: Record) -> str:
    """Return the medians of both bounds of the scores; a dash where they are told as the median itself is."""
    low, median, high = row["score_low"], row["score"]["median"], row["score_high"]
    if low is None or decimal(low) == decimal(median) == decimal(high):
        return "–"
    return upto(low, high)


def _auroc(row: Record) -> str:
    """Return the median AUROC; a dash where it is the score itself."""
    return "–" if row["unit"] == "AUROC" else _beside("auroc")(row)


def _beside(name: str) -> Callable[[Record], str]:
    """Return the cell of a median whose n is told where it is not that of the score."""
    return lambda row: ranged(row[name], beside=row["score"]["n"])


EXPLAINER = Shown("explainer", lambda row: row["explainer"])
COLUMNS = (
    Shown("dictionary", lambda row: row["sae"]),
    Shown("latents", lambda row: f"{row['score']['n']:,}"),
    Shown("without a score", lambda row: f"{row['without']:,}"),
    Shown("median (95 % CI)", _beside("score"), "Intervals (95 %) are of the median, from order statistics."),
    Shown(
        "bounds",
        _bounds,
        "*Bounds*: the median if all examples without an answer (*failed*) had been answered wrongly, and if all rightly.",
    ),
    Shown("quartiles", lambda row: upto(row["score"]["q1"], row["score"]["q3"]) if row["score"]["n"] else "–"),
    Shown(
        "mean by firings",
        lambda row: measured(row["weighted"], row["weighted_se"]),
        "*Mean by firings*: over latents, each weighted by how often it fires, ± its standard error.",
    ),
    Shown("permuted (95 % CI)", _beside("permuted"), "*Permuted*: over the latents that have both scores."),
    Shown(
        "over null (95 % CI)",
        _beside("over_null"),
        "*Over null*: the score less that of a random direction pushed to the same KL divergence; its chance is 0.",
    ),
    Shown("permuted, over null", _beside("permuted_over_null")),
    Shown(
        "AUROC (95 % CI)",
        _auroc,
        "*AUROC*: the median over latents, where it is not the score itself; each is over the examples whose answer has a probability.",
    ),
    Shown("without a probability", lambda row: f"{row['auroc_missing']:,}"),
    Shown("examples", lambda row: f"{row['judged']:,}"),
    Shown("failed", lambda row: f"{row['failed']:,}"),
)


def of_dictionaries(records: Iterable[Record]) -> dict[str, Any]:
    """Return the *tables* of the records that are of one dictionary each, and the *notes* to all columns that they have."""
    own = (row for row in records if row["sae"] != "all")
    tables = [_table(dict(zip(ONE, key, strict=True)), [*rows]) for key, rows in groupby(own, lambda row: tuple(row[name] for name in ONE))]
    shown = {column.header for table in tables for column in table["columns"]}
    return {"tables": tables, "notes": [column.note for column in COLUMNS if column.header in shown and column.note]}


def _table(one: Record, rows: list[Record]) -> dict[str, Any]:
    """Return a table: what its rows share, its *explainers*, *columns* and the text of its *rows*; one explainer alone has no column."""
    explainers = list(dict.fromkeys(row["explainer"] for row in rows))
    told = [column for column in COLUMNS if {column.cell(row) for row in rows} - NOTHING]
    columns = [EXPLAINER, *told] if len(explainers) > 1 else told
    return {**one, "explainers": explainers, "columns": columns, "rows": [[column.cell(row) for column in columns] for row in rows]}
