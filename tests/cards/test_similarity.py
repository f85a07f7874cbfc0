"""How alike dictionaries are, and how stable latents are, on the card: figures, tables and charts of hand-made rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from rows import rows_of

from builders.scorers.judgements import SCORES
from builders.similarity.partners import MATCHES, MEASURES
from builders.similarity.similarity import RELATIONS, SIMILARITY
from builders.similarity.stability import STABILITY, STABILITY_SCORES
from cards.card import blocks
from cards.render import render
from cards.similarity import WORDS, by_distance, similarity_summary, similarity_tables, stability_summary
from cards.similarity_charts import draw_similarity, heat_map, matched_values, shared_shares, stability_scores, value_histogram

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

Row = dict[str, Any]
KINDS = {"far": "trained", "one": "trained", "two": "trained", "theirs": "pretrained", "blank": "random", "rules": "planted"}


def row(sae_a: str, sae_b: str, relation: str, layers: int | None, value: float, **more: Any) -> Row:
    """Return a SIMILARITY row of statistic `matched` by decoder rows: its interval is 0.1 to both sides, and chance 0.01 and 0.2."""
    names = {"sae_a": sae_a, "sae_b": sae_b, "relation": relation, "layers": layers, "measure": "decoder", "statistic": "matched"}
    chance = {"permuted": 0.01, "untrained": 0.2}
    return {**names, "status": "ok", "n": 10, "value": value, "low": value - 0.1, "high": value + 0.1, **chance, **more}


ROWS = [
    row("one", "two", "seed", 0, 0.8),
    row("one", "two", "seed", 0, 0.4, measure="pearson", untrained=0.1),
    row("one", "two", "seed", 0, 0.75, statistic="shared-0.7", untrained=0.0),
    row("one", "two", "seed", 0, 0.25, statistic="shared-0.9", untrained=0.0),
    row("one", "two", "seed", 0, 0.6, measure="pearson", statistic="rsa", low=None, high=None),
    row("far", "one", "layer", 2, 0.4),
    row("far", "two", "layer", 2, 0.6, n=30, untrained=None),
    row("one", "theirs", "recipe", 0, -0.05),
    row("blank", "one", "recipe", 0, 0.3),
    row("one", "rules", "hookpoint", None, 0.0, statistic="none", status="no decoder rows in rules", n=0, low=None, high=None),
]


def summary(*rows: Row) -> list[Row]:
    """Return the summary of SIMILARITY rows."""
    return similarity_summary(rows_of(SIMILARITY, *rows), KINDS)


# Figures and tables


def test_pairs_of_trained_dictionaries_are_summed_up() -> None:
    """A record holds means over pairs and the ends of all their intervals; baselines, rules and pairs without a value do not count."""
    found = {(r["relation"], r["layers"], r["measure"], r["statistic"]): r for r in summary(*ROWS)}
    layers = found["layer", 2, "decoder", "matched"]

    assert set(found) == {
        ("seed", 0, "decoder", "matched"),
        ("seed", 0, "decoder", "shared-0.7"),
        ("seed", 0, "decoder", "shared-0.9"),
        ("seed", 0, "pearson", "matched"),
        ("seed", 0, "pearson", "rsa"),
        ("layer", 2, "decoder", "matched"),
        ("recipe", 0, "decoder", "matched"),
    }
    assert (layers["pairs"], layers["n"]) == (2, 40)
    assert [layers[name] for name in ("value", "low", "high")] == pytest.approx([0.5, 0.3, 0.7])
    assert [layers[name] for name in ("permuted", "untrained")] == pytest.approx([0.01, 0.2])
    assert (found["seed", 0, "pearson", "rsa"]["low"], found["seed", 0, "pearson", "rsa"]["high"]) == (None, None)


def test_records_go_from_near_to_far() -> None:
    """Records are in order of relation, as the table of the dataset names them, of distance, of measure and of statistic."""
    far, near = row("far", "one", "layer", 3, 0.1), row("one", "two", "layer", 1, 0.1)
    keys = [(r["relation"], r["layers"], r["measure"]) for r in summary(far, near, *ROWS)]

    order = [(list(RELATIONS).index(relation), layers, list(MEASURES).index(measure)) for relation, layers, measure in keys]
    assert order == sorted(order)
    assert [layers for relation, layers, _ in keys if relation == "layer"] == [1, 2, 3]


def test_without_pairs_there_is_nothing_to_say() -> None:
    """Without rows there are no records, no tables and no text."""
    assert summary() == []
    assert similarity_tables([]) == []
    assert blocks({"scores": [], "anatomy": [], **nothing()})["similarity"].strip() == ""


def nothing() -> Row:
    """Return what else the blocks of a card are filled with, empty."""
    names = ("differences", "margins", "best", "calibration", "judges", "dictionaries", "steering")
    return {name: [] for name in names}


def test_every_relation_has_words() -> None:
    """What the dataset calls a relation has words on the card, and one layer is no plural."""
    records = summary(*(row("one", "two", relation, 1, 0.5) for relation in RELATIONS))
    (table,) = similarity_tables(records)

    assert set(WORDS) == set(RELATIONS)
    assert [line["words"] for line in table["lines"]] == [WORDS["seed"], "1 layer away", *(WORDS[name] for name in list(RELATIONS)[2:])]


def test_a_table_has_a_line_per_relation_and_a_column_per_measure() -> None:
    """Of the thresholds, the largest but one is shown; a measure without a value in a line is a dash there."""
    found = {table["statistic"]: table for table in similarity_tables(summary(*ROWS))}
    page = render("similarity.md.j2", {"similarity_tables": list(found.values()), "stability": [], "published": []})

    assert list(found) == ["matched", "shared-0.7", "rsa"]
    assert found["matched"]["measures"] == ["decoder", "pearson"]
    assert (
        "**Mean value of one-to-one partners**\n\n| pairs of trained dictionaries | pairs | decoder | pearson |\n|---|---|---|---|\n"
        in page
    )
    assert [line for line in page.splitlines() if line.startswith("| ") and "away" in line] == [
        "| 2 layers away | 2 | 0.50 (0.30–0.70), chance 0.01, 0.20 | – |"
    ]
    assert "| another seed | 1 | 0.80 (0.70–0.90), chance 0.01, 0.20 | 0.40 (0.30–0.50), chance 0.01, 0.10 |" in page
    assert "| another recipe, same hookpoint | 1 | -0.05 (-0.15 to 0.05), chance 0.01, 0.20 | – |" in page
    assert "value of at least 0.7**" in page
    assert "| another seed | 1 | 0.60, chance 0.01, 0.20 |" in page  # without an interval
    assert "undefined" not in page


def test_a_single_threshold_is_shown() -> None:
    """Where params name one threshold, its table is there."""
    records = summary(row("one", "two", "seed", 0, 0.75, statistic="shared-0.5"))

    assert [table["statistic"] for table in similarity_tables(records)] == ["shared-0.5"]


def test_published_figures_stand_below_ours() -> None:
    """Figures of others are listed with where they are from, and only beside figures of our own."""
    page = blocks({"scores": [], "anatomy": [], **nothing(), "similarity": summary(*ROWS)})["similarity"]

    assert "| Pythia-160m, MLP, 32k latents, k = 32, 35 pairs of seeds | decoder and encoder assign the same partner" in page
    assert "(arXiv 2505.20254) | about 0.80 |" in page


def test_distances_begin_at_sisters() -> None:
    """The README tells sisters first and then layers by distance; without sisters there is nothing to compare layers with."""
    near = row("one", "two", "layer", 1, 0.7)
    found = by_distance(summary(*ROWS, near))

    assert [(r["relation"], r["layers"], r["value"]) for r in found] == [("seed", 0, 0.8), ("layer", 1, 0.7), ("layer", 2, 0.5)]
    assert by_distance(summary(near)) == []


# Stability

STABLE = [
    {"sae": "one", "latent": latent, "measure": measure, "sisters": 2, "found": found, "value": value}
    for measure, values in (("decoder", ((1.0, 0.9), (0.5, 0.5), (0.0, 0.1))), ("pearson", ((1.0, 0.75), (1.0, 0.25))))
    for latent, (found, value) in enumerate(values)
]


def related(scorer: str, spearman: float | None, partial: float | None, measure: str = "decoder") -> Row:
    """Return a STABILITY_SCORES row, whose intervals are 0.1 to both sides."""
    both = {"spearman": spearman, "partial": partial}
    ends = {
        f"{name}{end}": None if value is None else value + by
        for name, value in both.items()
        for end, by in (("_low", -0.1), ("_high", 0.1))
    }
    return {"sae": "one", "measure": measure, "scorer": scorer, "explainer": "lexical", "n": 50, **both, **ends}


def test_stability_is_summed_up_by_measure() -> None:
    """An SAE has for each measure the latents, their mean share and value, and the correlations that could be computed."""
    scores = [related("detection", 0.5, 0.3), related("fuzzing", None, None), related("detection", -0.05, 0.0, "pearson")]
    found = stability_summary(rows_of(STABILITY, *STABLE), rows_of(STABILITY_SCORES, *scores))
    known = {row["measure"]: row for row in found}

    assert list(known) == ["decoder", "pearson"]
    assert (known["decoder"]["sae"], known["decoder"]["n"], known["decoder"]["sisters"], known["decoder"]["found"]) == ("one", 3, 2, 0.5)
    assert (known["decoder"]["value"], known["pearson"]["value"]) == (pytest.approx(0.5), 0.5)
    assert [[row["scorer"] for row in known[measure]["scores"]] for measure in known] == [["detection"], ["detection"]]


def test_stability_and_scores_are_a_line() -> None:
    """The line of an SAE tells how many latents came back, and with which scores that goes; without sisters there is no table."""
    scores = [related("detection", 0.5, 0.3), related("fuzzing", -0.05, None)]
    told = stability_summary(rows_of(STABILITY, *STABLE), rows_of(STABILITY_SCORES, *scores))
    page = render("similarity.md.j2", {"similarity_tables": [], "stability": told, "published": []})

    line = "| one | decoder | 2 | 3 | 0.50 | 0.50 | detection 0.50 (0.40–0.60); 0.30 (0.20–0.40), fuzzing -0.05 (-0.15 to 0.05); – |"
    assert line in page.splitlines()
    assert "| one | pearson | 2 | 2 | 1.00 | 0.50 |  |" in page.splitlines()
    assert "*Sisters* are SAEs" in page
    assert stability_summary(STABILITY.empty(), STABILITY_SCORES.empty()) == []
    assert "Sisters" not in render("similarity.md.j2", {"similarity_tables": [], "stability": [], "published": []})


# Charts


def match(sae: str, other: str, latent: int, value: float | None, measure: str = "decoder") -> Row:
    """Return a MATCHES row whose one-to-one partner has this value."""
    return {"sae": sae, "other": other, "latent": latent, "measure": measure, "partner": latent, "mutual": True, "assigned_value": value}


PARTNERS = [
    *(match("one", "two", latent, 0.8) for latent in range(4)),
    match("one", "two", 4, None),
    match("two", "one", 0, 0.8),  # the same pair, told from its other side
    match("one", "two", 0, 0.1, "pearson"),
    match("blank", "one", 0, 0.2),
    match("blank", "one", 1, 1.0),
    match("one", "rules", 0, 0.5),
]


def many(*, scorers: tuple[str, ...] = ("detection",)) -> dict[str, pa.Table]:
    """Return tables of a release: 200 latents whose scores rise with their stability, and the rows above."""
    stable = [{"sae": "one", "latent": n, "measure": "decoder", "found": 1.0, "value": n / 400} for n in range(200)]
    own = [("lexical", 0.5), ("lexical-permuted", 0.0)]
    scores = [
        {"sae": "one", "latent": n, "scorer": scorer, "explainer": explainer, "score": start + n / 400}
        for scorer in scorers
        for explainer, start in own
        for n in range(200)
    ]
    return {"similarity": rows_of(SIMILARITY, *ROWS), "stability": rows_of(STABILITY, *stable), "scores": rows_of(SCORES, *scores)}


def records(chart: Any) -> list[Row]:
    """Return the values that a chart, or each of its panels, is drawn from."""

    def values(part: dict[str, Any]) -> list[Row]:
        inner = [value for panel in (*part.get("vconcat", ()), *part.get("hconcat", ())) for value in values(panel)]
        return [*part.get("data", {}).get("values", ()), *inner]

    return values(chart.to_dict())


def test_charts_are_kept_as_pictures_and_as_specifications(tmp_path: Path) -> None:
    """Each chart is a PNG and a Vega-Lite specification that is JSON, and says which version of Vega-Lite reads it."""
    draw_similarity(many(), rows_of(MATCHES, *PARTNERS), KINDS, tmp_path)
    names = {"similarity", "similarity-shared", "similarity-partners", "stability"}

    assert {path.name for path in tmp_path.iterdir()} == {f"{name}{end}" for name in names for end in (".png", ".vl.json")}
    for name in names:
        told = json.loads((tmp_path / f"{name}.vl.json").read_text(), parse_constant=pytest.fail)
        assert "vega-lite" in told["$schema"]
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_drawn_without_rows(tmp_path: Path) -> None:
    """Empty tables, and pairs that cannot be compared, leave no files; the other charts do without trained pairs and long groups."""
    empty = {"similarity": SIMILARITY.empty(), "stability": STABILITY.empty(), "scores": SCORES.empty()}
    draw_similarity(empty, MATCHES.empty(), KINDS, tmp_path)
    draw_similarity({**empty, "similarity": rows_of(SIMILARITY, ROWS[-1])}, MATCHES.empty(), KINDS, tmp_path)
    assert list(tmp_path.iterdir()) == []

    draw_similarity(
        {**empty, "similarity": rows_of(SIMILARITY, ROWS[-2]), "stability": rows_of(STABILITY, *STABLE)}, MATCHES.empty(), KINDS, tmp_path
    )
    assert {path.name for path in tmp_path.iterdir()} == {"similarity.png", "similarity.vl.json"}


def test_the_heat_map_is_symmetric_and_shows_chance() -> None:
    """Each pair has a cell on both sides of the diagonal, with its value and, beside, with what an untrained dictionary gives."""
    frame = pd.DataFrame([row for row in ROWS if row["statistic"] == "matched"])
    found = {(cell["a"], cell["b"], cell["measure"], cell["level"]): cell["value"] for cell in records(heat_map(frame))}

    assert found["one", "two", "decoder", "partners"] == found["two", "one", "decoder", "partners"] == 0.8
    assert found["one", "two", "pearson", "an untrained dictionary instead"] == 0.1
    assert ("far", "two", "decoder", "an untrained dictionary instead") not in found  # it has no untrained twin
    assert len(found) == 2 * (2 * 6 - 1)


def test_every_panel_of_the_heat_map_says_what_it_shows() -> None:
    """Panels stand by measure and level, each with its own cells under its title; a measure without chance has one panel."""
    frame = pd.DataFrame([row for row in ROWS if row["statistic"] == "matched"])
    frame.loc[frame["measure"] == "pearson", "untrained"] = None
    panels = [(line | panel) for line in heat_map(frame).to_dict()["vconcat"] for panel in line["hconcat"]]
    told = [(panel["layer"][0]["title"], {(cell["measure"], cell["level"]) for cell in panel["data"]["values"]}) for panel in panels]

    assert [title for title, _ in told] == ["decoder: partners", "decoder: an untrained dictionary instead", "pearson: partners"]
    assert all(title == ": ".join(next(iter(cells))) and len(cells) == 1 for title, cells in told)


def test_shares_are_means_over_pairs() -> None:
    """A point is the mean share at one threshold over the pairs of one relation, beside chance; without shares there is no chart."""
    frame = pd.DataFrame([*ROWS, row("far", "two", "seed", 0, 0.25, statistic="shared-0.7", untrained=0.1)])
    found = {(p["measure"], p["relation"], p["threshold"], p["line"]): p["share"] for p in records(shared_shares(frame))}

    assert found["decoder", "another seed", 0.7, "partners"] == 0.5
    assert found["decoder", "another seed", 0.7, "an untrained dictionary instead"] == 0.05
    assert found["decoder", "another seed", 0.9, "partners"] == 0.25
    assert len(found) == 4
    assert shared_shares(frame[frame["statistic"] == "matched"]) is None


def test_partners_are_counted_once_and_against_the_untrained() -> None:
    """Values of decoder partners count from one side only; pairs with one untrained dictionary are a group, and rules are in none."""
    relations = pd.DataFrame(ROWS).drop_duplicates(["sae_a", "sae_b"])[["sae_a", "sae_b", "relation", "layers"]]
    values = matched_values(rows_of(MATCHES, *PARTNERS).to_pandas(), relations, KINDS)
    shares = pd.DataFrame(records(value_histogram(values)))

    assert values.groupby("pair")["assigned_value"].agg(list).to_dict() == {
        "an untrained dictionary": pytest.approx([0.2, 1.0]),
        "another seed": pytest.approx([0.8] * 4),
    }
    assert shares.groupby("pair")["share"].sum().to_dict() == pytest.approx({"an untrained dictionary": 100, "another seed": 100})
    assert shares.loc[shares["share"] == 100, "value"].tolist() == [pytest.approx(0.8, abs=0.0126)]
    assert value_histogram(values[:0]) is None


def test_scores_are_told_in_tenths_of_stability() -> None:
    """Ten points from the least to the most stable tenth, each with its mean score ± two errors; permuted explanations do not count."""
    read = {name: table.to_pandas() for name, table in many().items()}
    found = records(stability_scores(read["stability"], read["scores"]))

    assert [point["value"] for point in found] == pytest.approx([(9.5 + 20 * tenth) / 400 for tenth in range(10)])
    assert [point["score"] for point in found] == pytest.approx([0.5 + (9.5 + 20 * tenth) / 400 for tenth in range(10)])
    error = pd.Series(range(20)).std() / 400 / 20**0.5
    assert [point["high"] - point["low"] for point in found] == pytest.approx([4 * error] * 10)
    assert stability_scores(read["stability"][:99], read["scores"]) is None
