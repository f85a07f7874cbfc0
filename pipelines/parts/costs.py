"""What the answers of language models cost, as the card tells it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from builders.explainers.explanations import EXPLANATIONS, PERMUTED
from builders.lake.shards import Shelf
from builders.lake.table import Table
from builders.scorers.judgements import SCORES
from builders.scorers.judges import JUDGES
from builders.similarity.similarity import SIMILARITY, TRANSFERS
from builders.steering.ratings import STEERING_TEXTS
from pipelines.graph.stage import BUILD, USAGE, folders
from pipelines.params import Params

# The stages that ask language models, and the table whose rows they answer for.
PAYING = {
    "explanations": EXPLANATIONS,
    "scores": SCORES,
    "direct": SCORES,
    "similarity": SIMILARITY,
    "calibration": JUDGES,
    "steering": STEERING_TEXTS,
}
OF_ALL = {"similarity": "transfers", "calibration": "all judges"}  # stages whose costs are one sum


def costs(params: Params) -> list[dict[str, object]]:
    """Return what the answers of language models cost, by explainer and scorer, summed over all dictionaries.

    The number of latents counts rows, so that a latent with several explanations counts once for each.
    """
    found: list[dict[str, object]] = []
    for stage, table in PAYING.items():
        spent: dict[str, Counter[str]] = {}
        for path in folders(params, stage):
            if (path / USAGE).exists():
                name = OF_ALL.get(stage) or path.relative_to(BUILD / stage).parts[0]
                whole = spent.setdefault(name, Counter())
                whole.update({**json.loads((path / USAGE).read_bytes()), "latents": rows_paid(path, table)})
        found += [{"stage": stage, "name": name, **numbers} for name, numbers in sorted(spent.items()) if numbers["latents"]]
    return found


def rows_paid(path: Path, table: Table) -> int:
    """Return how many rows of a finished folder language models answered for; permuted explanations cost nothing.

    Of the calibration of judges, and of transferred explanations, it is the number of explanations that they read.
    """
    shelf = Shelf(path)
    if table is SIMILARITY:
        rows = shelf.read(table, columns=["statistic", "n"]).to_pylist()
        return sum(row["n"] for row in rows if row["statistic"] in TRANSFERS)
    if table is JUDGES:
        return sum(row["rules"] for row in shelf.read(table, columns=["rules", "model"]).to_pylist() if row["model"] is not None)
    if table is not EXPLANATIONS:
        return shelf.rows(table)
    return sum(not explainer.endswith(PERMUTED) for explainer in shelf.read(table, columns=["explainer"])["explainer"].to_pylist())
