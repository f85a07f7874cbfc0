"""What lenses read at which depth: the figures that the card and the page of results show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from builders.lenses.published import reference_rows
from cards.summary import none_if_nan

Record = dict[str, Any]
LENSES = ("logit", "tuned", "jacobian", "jacobian-later", "jacobian-state")  # in the order in which tables and charts show them
QUANTITIES = ("ce", "kl")
NOTHING: dict[str, list[Any]] = {  # the facts of a release without lenses
    name: [] for name in ("curves", "published", "compared", "behind", "rising", "decisions", "decided")
}


def lens_facts(read: Mapping[str, pa.Table]) -> Record:
    """Return the figures of lenses from the rows of `lenses`, `lens_training` and `lens_decisions`, for metrics.json and the template.

    *curves* holds cross-entropies and divergences by depth, *published* those of others' models, *behind* the layers at which the tuned
    lens is no better than the logit lens, *compared* how many layers that was asked of, *rising* the layers at which the divergence is
    larger than one layer before, *decisions* the depth from which on the answer is there, and *decided* those of one lens, earliest first.
    """
    frame = read["lenses"].to_pandas()
    curves = curve_records(frame)
    return {
        "curves": curves,
        "published": published_records() if curves else [],
        "compared": compared_layers(frame),
        "behind": behind_logit(frame, read["lens_training"].to_pandas()),
        "rising": rising_layers(frame),
        "decisions": (decisions := decision_records(read["lens_decisions"].to_pandas())),
        "decided": by_decision(decisions),
    }


def shown_layers(last: int) -> list[int]:
    """Return the layers that tables show of a model of *last* blocks: at depths 0, ¼, ½ and ¾, rounded down, and the last but one."""
    return [*(quarter * last // 4 for quarter in range(4)), last - 1]


def curve_records(frame: pd.DataFrame) -> list[Record]:
    """Return one record per subject and lens of LENSES rows, in bits per byte with standard errors, at the layers that tables show.

    *model* is the cross-entropy of the subject itself; *chance* holds what the best constant distribution has.
    """
    records = []
    for subject, lens, rows in by_lens(frame):
        one, bits = rows.iloc[0], float(rows["bits_per_nat"].iloc[0])
        last = int(rows["layer"].max())
        shown = rows.set_index("layer").loc[shown_layers(last)].to_dict("records")
        record = {
            "subject": subject,
            "lens": lens,
            "layers": last,
            "n": int(one["n"]),
            "rows": int(one["rows"]),
            "ahead": int(one["ahead"]),
        }
        for name in QUANTITIES:
            record[name] = [_bits(row, name) for row in shown]
        record["model"] = float(one["baseline_ce_bits"])
        record["chance"] = {name: float(one[f"{name}_chance"]) * bits for name in QUANTITIES}
        records.append(record)
    return records


def by_lens(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Return each subject and lens with their rows: subjects by name, lenses in the order of LENSES."""
    groups = [(str(subject), str(lens), rows) for (subject, lens), rows in frame.groupby(["subject", "lens"], observed=True)]
    return sorted(groups, key=lambda group: (group[0], rank_of(group[1]), group[1]))


def rank_of(lens: str) -> int:
    """Return the place of a lens in the order of LENSES; others come last."""
    return LENSES.index(lens) if lens in LENSES else len(LENSES)


def _bits(row: Mapping[Any, Any], name: str) -> Record:
    return {"value": float(row[f"{name}_bits"]), "se": none_if_nan(float(row[f"{name}_se"]) * float(row["bits_per_nat"]))}


def published_records() -> list[Record]:
    """Return one record per lens of the published model with fewest blocks of each family, as :func:`curve_records` has them.

    A value is None where the layer was not recorded, or its divergence was not.
    """
    frame = reference_rows().to_pandas()
    smallest = frame.sort_values(["layers", "baseline_ce_bits"], ascending=[True, False], kind="stable").groupby("family", observed=True)
    records = []
    for subject, lens, rows in by_lens(frame[frame["model"].isin(smallest["model"].first())].rename(columns={"model": "subject"})):
        last = int(rows["layers"].iloc[0])
        known = rows.set_index("layer").reindex(shown_layers(last))
        values = {name: [{"value": none_if_nan(float(value)), "se": None} for value in known[f"{name}_bits"]] for name in QUANTITIES}
        records.append({"subject": subject, "lens": lens, "layers": last, **values, "model": float(rows["baseline_ce_bits"].iloc[0])})
    return records


def _both(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of both the logit and the tuned lens, joined, without the last layer, where both are the model."""
    early = frame[frame["depth"] < 1]
    tuned, logit = (early[early["lens"] == name].assign(subject=lambda rows: rows["subject"].astype(str)) for name in ("tuned", "logit"))
    joined: pd.DataFrame = tuned.merge(logit, on=["subject", "layer"], suffixes=("_tuned", "_logit"))
    return joined


def compared_layers(frame: pd.DataFrame) -> list[Record]:
    """Return one record per subject: at how many of its *layers* before the last one the tuned lens is *better* in cross-entropy."""
    both = _both(frame)
    return [
        {"subject": str(subject), "layers": len(rows), "better": int((rows["ce_tuned"] < rows["ce_logit"]).sum())}
        for subject, rows in both.groupby("subject")
    ]


def behind_logit(frame: pd.DataFrame, training: pd.DataFrame) -> list[Record]:
    """Return the layers at which the tuned lens has no lower cross-entropy than the logit lens, in bits per byte.

    *error* is that of a difference of independent means, which is too large: both are of the same rows. *slope* tells whether training had
    converged there, in nats per token and million tokens.
    """
    both = _both(frame)
    slopes = end_slopes(training)
    return [
        {
            "subject": row["subject"],
            "layer": int(row["layer"]),
            "tuned": row["ce_bits_tuned"],
            "logit": row["ce_bits_logit"],
            "error": none_if_nan(math.hypot(row["ce_se_tuned"], row["ce_se_logit"]) * row["bits_per_nat_tuned"]),
            "slope": slopes.get((row["subject"], int(row["layer"]))),
        }
        for row in both[both["ce_tuned"] >= both["ce_logit"]].to_dict("records")
    ]


def end_slopes(training: pd.DataFrame) -> dict[tuple[str, int], float]:
    """Return the slope with which the tuned lens's training ended, by subject and layer; LENS_TRAINING has it in the last row of each."""
    own = training[training["lens"] == "tuned"].dropna(subset="slope")
    return {(str(row["subject"]), int(row["layer"])): float(row["slope"]) for row in own.to_dict("records")}


def rising_layers(frame: pd.DataFrame) -> list[Record]:
    """Return the layers of each subject and lens at which the divergence from the model is larger than one layer before."""
    records = []
    for subject, lens, rows in by_lens(frame):
        rises = rows.set_index("layer")["kl_bits"].sort_index().diff()
        layers = [int(layer) for layer in rises[rises > 0].index]
        if layers:
            records.append({"subject": subject, "lens": lens, "layers": layers, "most": float(rises.max())})
    return records


def decision_records(frame: pd.DataFrame) -> list[Record]:
    """Return one record per subject and lens of LENS_DECISIONS rows; *by* holds depth, error and chance by frequency of the answer."""
    records = []
    for (subject, lens), rows in frame.groupby(["subject", "lens"], observed=True):
        by = {
            str(row["frequency"]): {
                "depth": float(row["depth"]),
                "se": none_if_nan(row["depth_se"]),
                "chance": none_if_nan(row["chance"]),
                "n": int(row["n"]),
            }
            for row in rows.to_dict("records")
        }
        records.append({"subject": str(subject), "lens": str(lens), "by": by})
    return sorted(records, key=lambda row: (row["subject"], rank_of(row["lens"])))


def by_decision(records: Sequence[Record]) -> list[Record]:
    """Return the records of the tuned lens, or of the logit lens where no subject has a tuned one, from the earliest decision on."""
    lenses = {row["lens"] for row in records}
    chosen = next((name for name in ("tuned", "logit") if name in lenses), None)
    return sorted((row for row in records if row["lens"] == chosen), key=lambda row: row["by"]["all"]["depth"])
