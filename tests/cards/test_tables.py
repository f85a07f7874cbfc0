"""The scores of each dictionary as tables."""

from __future__ import annotations

from typing import Any

from cards.render import render
from cards.tables import of_dictionaries

NONE = {"n": 0, "median": None, "low": None, "high": None, "q1": None, "q3": None}


def spread(median: float, n: int = 50) -> dict[str, Any]:
    """Return a spread of *n* values."""
    return {"n": n, "median": median, "low": median - 0.1, "high": median + 0.1, "q1": median - 0.2, "q3": median + 0.2}


def record(**known: Any) -> dict[str, Any]:
    """Return a record of one dictionary's detection scores, all of whose examples were answered, with what is *known* otherwise."""
    names = {"sae": "a", "scorer": "detection", "negatives": "random", "judge": "llama", "unit": "balanced accuracy", "explainer": "asked"}
    spreads = {"score": spread(0.7), "permuted": spread(0.5), "auroc": NONE, "over_null": NONE, "permuted_over_null": NONE}
    counts = {"failed": 0, "judged": 5000, "without": 0, "auroc_missing": 0}
    bounds = {"score_low": 0.7, "score_high": 0.7}
    return {**names, **spreads, **counts, **bounds, "chance": 0.5, "weighted": 0.6, "weighted_se": 0.01, **known}


def headers(*records: dict[str, Any]) -> list[str]:
    """Return the headers of the only table of some records."""
    (table,) = of_dictionaries(records)["tables"]
    return [column.header for column in table["columns"]]


USUAL = ["dictionary", "latents", "median (95 % CI)", "quartiles", "mean by firings", "permuted (95 % CI)", "examples"]


def test_what_nothing_is_said_of_has_no_column() -> None:
    """Bounds that are the median, failures that are none, and an AUROC that is the score or is missing leave no column and no note."""
    told = of_dictionaries([record()])

    assert headers(record()) == USUAL
    assert headers(record(unit="AUROC", auroc=spread(0.7))) == USUAL
    assert not any("Bounds" in note or "AUROC" in note or "Over null" in note for note in told["notes"])


def test_bounds_and_failures_are_told_where_they_matter() -> None:
    """Where one dictionary has failures all rows of its table have the columns, and the bounds that change nothing are a dash."""
    told = of_dictionaries([record(failed=500, score_low=0.64, score_high=0.75), record(sae="b")])
    (table,) = told["tables"]
    cells = [dict(zip([column.header for column in table["columns"]], row, strict=True)) for row in table["rows"]]

    assert [(row["bounds"], row["failed"]) for row in cells] == [("0.64–0.75", "500"), ("–", "0")]
    assert any(note.startswith("*Bounds*") for note in told["notes"])


def test_an_auroc_says_what_it_is_of() -> None:
    """The AUROC of fewer latents has its n, and examples whose answer has no probability are counted."""
    (table,) = of_dictionaries([record(auroc=spread(0.8, 40), auroc_missing=12)])["tables"]

    assert table["rows"][0][-3:] == ["0.80 (0.70–0.90), n 40", "12", "5,000"]


def test_a_score_over_the_null_stands_beside_it() -> None:
    """The columns of the null are there where a release has such scores, for real and for permuted explanations."""
    found = headers(record(unit="nats", over_null=spread(0.4), permuted_over_null=spread(0.1)))

    assert found[-3:-1] == ["over null (95 % CI)", "permuted, over null"]


def test_each_scorer_has_a_table() -> None:
    """A table is of one scorer; records over all dictionaries are in none; explainers have a column where they are several."""
    told = of_dictionaries([record(sae="all"), record(), record(explainer="other"), record(scorer="fuzzing")])
    (detection, fuzzing) = told["tables"]
    page = render("scores.md.j2", told)

    assert [row[0] for row in detection["rows"]] == ["asked", "other"]
    assert [column.header for column in fuzzing["columns"]] == USUAL
    assert "**detection** (balanced accuracy; chance 0.50; negatives: random; judge: llama)\n\n| explainer | dictionary |" in page
    assert "**fuzzing** (balanced accuracy; chance 0.50; negatives: random; judge: llama; explainer: asked)\n\n| dictionary |" in page
