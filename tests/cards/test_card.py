"""The page of results and the card, in the parts that tell of scores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lens_rows import LOGIT, TUNED
from rows import rows_of

from builders.lenses.lenses import LENSES
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import SCORES
from cards.card import READ, headline, results, results_page
from pipelines.graph.closure import ROOT
from pipelines.registry import CONFIGS


def page(inclusion: float, *scores: dict[str, Any], lenses: list[dict[str, Any]] | None = None) -> str:
    """Return the page of results of a release that holds a dictionary of one latent, *scores* of it, and rows of *lenses*."""
    latent = {"sae": "sae", "latent": 0, "status": "alive", "inclusion": inclusion}
    known = {
        "saes": rows_of(SAES, {"sae": "sae", "kind": "trained", "loss_added_se": 0.1}),
        "latents": rows_of(LATENTS, latent),
        "scores": rows_of(SCORES, *({"sae": "sae", "latent": 0, "scorer": "intervention", "unit": "nats", **row} for row in scores)),
        "lenses": rows_of(LENSES, *(lenses or [])),
    }
    empty = {config.table.name: config.table.empty() for config in CONFIGS}
    return results_page(results({name: known.get(name, empty[name]) for name in READ}, 0))


def test_a_sample_is_told_where_there_is_one() -> None:
    """The page names the dictionaries whose figures are of a sample, and says nothing of samples where there is none."""
    row = {"explainer": "asked", "score": 0.7}

    assert "Of sae a sample of the latents was drawn: each weighs 1 / `latents.inclusion`" in page(0.5, row)
    assert "sample" not in page(1.0, row)


def test_the_null_has_rows_of_its_own() -> None:
    """Scores over the null are told below the scores, real and permuted; without them there is no word of a null."""
    scores: list[dict[str, Any]] = [{"explainer": f"asked{kind}", "score": score} for kind, score in (("", 2.0), ("-permuted", 1.0))]
    told = page(1.0, *({**row, "over_null": row["score"] / 2} for row in scores))
    start = "| intervention (nats) | x | asked"

    assert [line for line in told.splitlines() if line.startswith(start)] == [
        f"{start} | 0.50 | **2.00**, n 1 |",
        f"{start}, permuted | 0.50 | 1.00 |",
        f"{start}, over null | 0.50 | 1.00 |",
        f"{start}, permuted, over null | 0.50 | 0.50 |",
    ]
    assert "null" not in page(1.0, *scores)


@pytest.mark.parametrize("heading", ["Scores by kind of dictionary", "Dictionaries"])
def test_the_page_has_its_parts_without_scores(heading: str) -> None:
    """Where nothing could be scored the page still tells of the dictionaries."""
    assert f"## {heading}\n" in page(1.0)
    assert "| sae | trained, x |" in page(1.0)


def test_the_main_scorer_comes_first_where_there_are_many() -> None:
    """A long table of medians is folded below that of the main scorer; a short one stands alone."""
    found = json.loads((ROOT / "docs/results.json").read_bytes())

    told = headline(found, "fuzzing")
    assert {line.split(" (")[0] for line in told.splitlines()[2:]} == {"| fuzzing"}
    assert headline(found, None).splitlines()[2].startswith("| detection (")
    assert headline({**found, "scores": [row for row in found["scores"] if row["scorer"] == "fuzzing"]}, "fuzzing") == ""
    assert headline({**found, "scores": []}, None) == ""


def test_lenses_have_a_section_where_there_are_some() -> None:
    """The page tells of lenses and shows their figure; without lenses there is no word of them, nor where old figures know of none."""
    told, silent = page(1.0, lenses=[*LOGIT, *TUNED]), page(1.0)

    assert "## Lenses\n\n**Cross-entropy of the next token, bits per byte**\n" in told
    assert "![What lenses read, by depth](lenses.png)" in told
    assert "lens" not in silent
    assert "lens" not in page_of_old_figures()


def page_of_old_figures() -> str:
    """Return the page of results of figures from before there were lenses."""
    empty = {config.table.name: config.table.empty() for config in CONFIGS}
    found = results({name: empty[name] for name in READ}, 0)
    return results_page({name: part for name, part in found.items() if name != "lenses"})
