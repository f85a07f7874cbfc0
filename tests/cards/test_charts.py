"""Charts of scores and of how often latents fire; those of steering are specified in test_steering.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from cards.charts import density_chart, score_chart


def record(scorer: str, unit: str, explainer: str = "lexical") -> dict[str, Any]:
    """Return the record of a scorer, over all trained dictionaries."""
    names = {"sae": "all", "scorer": scorer, "unit": unit, "explainer": explainer, "kind": "trained", "chance": 0.5}
    return {**names, "score": {"n": 9, "q1": 0.6, "median": 0.7, "q3": 0.8}, "permuted": {"median": 0.5}}


def words(path: Path) -> list[str]:
    """Return the words that a drawn chart shows."""
    return re.findall(r">([^<>]+)</text>", path.read_text())


def test_scores_in_nats_have_an_axis_of_their_own(tmp_path: Path) -> None:
    """Scorers whose scores end at 1 share an axis; nats would squeeze them."""
    score_chart([record("detection", "balanced accuracy"), record("intervention", "nats")], tmp_path / "both.svg")
    score_chart([record("detection", "balanced accuracy"), record("simulation", "correlation")], tmp_path / "one.svg")

    assert {"detection", "intervention", "score", "score in nats"} <= set(words(tmp_path / "both.svg"))
    assert "score in nats" not in words(tmp_path / "one.svg")


def test_a_bar_stands_for_some_latents(tmp_path: Path) -> None:
    """Scores of a few latents have no bar beside those of many; where all are few, all are drawn."""
    many, few = record("detection", "balanced accuracy"), record("fuzzing", "balanced accuracy")
    score_chart([many | {"score": many["score"] | {"n": 10}}, few], tmp_path / "many.svg")
    score_chart([many, few], tmp_path / "few.svg")

    assert {"detection", "fuzzing"} & set(words(tmp_path / "many.svg")) == {"detection"}
    assert {"detection", "fuzzing"} <= set(words(tmp_path / "few.svg"))


def test_several_explainers_can_be_told_apart(tmp_path: Path) -> None:
    """Two explainers have a legend; one has none, even beside scorers that need no explanation."""
    two = [record("detection", "balanced accuracy", explainer) for explainer in ("lexical", "llama")]
    score_chart(two, tmp_path / "two.svg")
    score_chart([two[0], record("intruder", "accuracy", "none")], tmp_path / "one.svg")

    assert {"explainer", "lexical", "llama"} <= set(words(tmp_path / "two.svg"))
    assert "explainer" not in words(tmp_path / "one.svg")


def test_dictionaries_of_any_size_can_be_compared(tmp_path: Path) -> None:
    """A line is in percent of a dictionary's latents that fire, and the axis begins at the power of ten below the rarest."""
    firing = [("a", 0), ("a", 5), ("a", 5), ("a", 5), ("a", 200), ("b", 5)]
    rows = [{"sae": sae, "count": count, "density": count / 1000} for sae, count in firing]
    density_chart(pa.Table.from_pylist(rows), tmp_path / "d.svg")

    assert {"1e-3", "1e-2", "1e-1", "1e+0", "100"} <= set(words(tmp_path / "d.svg"))
    assert "1e-4" not in words(tmp_path / "d.svg")
