"""How the training of a lens went: the `lens_training` config, and the slope that it ended with."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from builders.arrays import Floats
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table

LAST, POINTS = 3, 3  # the slope is that of the last third of a layer's rows, but of no fewer than three
FEWEST = 5  # rows below which no slope is given: it would be that of the beginning

LENS_TRAINING = Table(
    name="lens_training",
    row="how good a lens was at one layer after some steps of its training, on rows that it did not learn from",
    key=("subject", "lens", "step", "layer"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("lens", "string", "the lens: tuned", categorical=True),
        Column("step", "int32", "steps taken; at 0 it is the logit lens", unit="steps", low=0),
        Column("layer", "int32", "the layer: the residual stream after that many blocks", low=0),
        Column("tokens", "int64", "tokens learnt from so far, those of later passes over the same rows included", unit="tokens", low=0),
        Column(
            "train_kl",
            "float64",
            "mean divergence from the model's own prediction while it learnt, since the row before; null at step 0 and where it overflowed",
            unit="nats per token",
            nullable=True,
            low=0,
        ),
        Column(
            "held_out_kl",
            "float64",
            "the same on rows of documents that it did not learn from; null where it overflowed",
            unit="nats per token",
            nullable=True,
            low=0,
        ),
        Column(
            "held_out_se",
            "float64",
            "standard error of held_out_kl, over rows; all steps read the same rows, so differences between steps are surer",
            unit="nats per token",
            nullable=True,
            low=0,
        ),
        Column("held_out_tokens", "int64", "tokens that held_out_kl is a mean of", unit="tokens", low=1),
        Column("lr", "float64", "learning rate of the next step", low=0),
        Column("kept", "bool", "whether this layer's translator of this step is the one that is published: its best"),
        Column(
            "slope",
            "float64",
            f"least-squares slope of held_out_kl over the last third of this layer's rows, at least {POINTS}; null but in its last row, and"
            f" where it has fewer than {FEWEST} rows",
            unit="nats per token per million tokens learnt from",
            nullable=True,
        ),
    ),
    references=(OF_SUBJECT,),
)


def training_rows(subject: str, lens: str, checks: list[dict[str, Any]], held_out_tokens: int) -> pa.Table:
    """Return the LENS_TRAINING rows of a run: *checks* hold a row's columns from `step` to `lr`, without `held_out_tokens`."""
    layers: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for check in sorted(checks, key=lambda check: check["step"]):
        layers[check["layer"]].append(check)
    records = []
    for rows in layers.values():
        best = min(rows, key=lambda row: np.inf if row["held_out_kl"] is None else row["held_out_kl"])
        for row in rows:
            slope = end_slope(rows) if row is rows[-1] else None
            named = {"subject": subject, "lens": lens, "held_out_tokens": held_out_tokens}
            records.append(row | named | {"kept": row is best, "slope": slope})
    return LENS_TRAINING.rows(records)


def end_slope(rows: list[dict[str, Any]]) -> float | None:
    """Return the slope of `held_out_kl` by millions of `tokens` over the last third of *rows*, at least POINTS; None if it has none."""
    last = rows[-max(POINTS, -(-len(rows) // LAST)) :]
    kl = [row["held_out_kl"] for row in last]
    if len(rows) < FEWEST or None in kl:
        return None
    millions: Floats = np.array([row["tokens"] for row in last]) / 1e6
    return float(np.polynomial.polynomial.polyfit(millions, np.array(kl), 1)[1])
