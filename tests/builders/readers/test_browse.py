"""The flat row of each latent, made of small rows of the other configs with known answers."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from releases import released
from rows import rows_of

from builders.contexts.contexts import CONTEXTS
from builders.explainers.explanations import EXPLANATIONS
from builders.readers.browse import BROWSE, SHORT, browse_rows, passage
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import SCORES
from builders.similarity.partners import MATCHES
from builders.similarity.stability import STABILITY

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from builders.lake.table import Table
    from builders.releases.release import Release

PIECES = [b"a", b" b", b"\n", b" \xe2\x82", b"\xac", b"<<"]
SAE = {"sae": "one", "subject": "lab", "hookpoint": "layers.1", "kind": "trained"}
FEW: dict[Table, list[dict[str, Any]]] = {
    LATENTS: [{"latent": n, "status": "alive", "density": 0.25, "top_tokens": [" b", '"', "|"]} for n in range(3)],
    EXPLANATIONS: [
        {"latent": 0, "explainer": "first", "status": "ok", "text": "words"},
        {"latent": 0, "explainer": "second", "status": "ok", "text": "better words"},
        {"latent": 0, "explainer": "second-permuted", "status": "ok", "text": "other words"},
        {"latent": 1, "explainer": "first", "status": "failed", "text": None},
    ],
    SCORES: [
        {"latent": 0, "explainer": explainer, "scorer": "detection", "judge": "judge", "unit": "accuracy", "chance": 0.5, **numbers}
        for explainer, numbers in (
            ("first", {"score": 0.6, "score_se": 0.01}),
            ("second", {"score": 0.9, "score_se": 0.03}),
            ("second-permuted", {"score": 0.7, "score_se": 0.04}),
        )
    ],
}


def small(root: Path, *others: tuple[Table, list[dict[str, Any]]]) -> Release:
    """Write a release of the rows FEW and *others* of dictionary `one`, and of a dictionary `two` that has the same latents."""
    records = {SAES: [SAE, {**SAE, "sae": "two"}]}
    for table, rows in (*FEW.items(), *others):
        records[table] = [{"sae": name, **row} for name, row in product(("one", "two"), rows)]
    return released(root, {table: rows_of(table, *rows) for table, rows in records.items()})


def browsed(release: Release, scorer: str | None = "detection") -> list[dict[str, Any]]:
    """Return the valid rows of `browse` of dictionary `one`."""
    rows: pa.Table = browse_rows(release, SAE, scorer, PIECES)
    BROWSE.validate(rows)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def test_the_best_explanation_stands_beside_its_twin(tmp_path: Path) -> None:
    """Of several explanations the one with the largest score is shown, with everything that tells what the score is worth."""
    told, *rest = browsed(small(tmp_path))

    assert told == {
        **{name: SAE[name] for name in ("sae", "subject", "hookpoint", "kind")},
        "latent": 0,
        "status": "alive",
        "density": 0.25,
        "top_tokens": '" b", "\\"", "|"',
        "contexts": [],
        "explanation": "better words",
        "explainer": "second",
        "scorer": "detection",
        "judge": "judge",
        "unit": "accuracy",
        "score": 0.9,
        "score_se": 0.03,
        "chance": 0.5,
        "permuted_score": 0.7,
        "beats_permuted": True,
        **dict.fromkeys(("stability", "partner_sae", "partner_latent", "partner_cosine")),
    }
    assert [row["latent"] for row in rest] == [1, 2]


def test_a_latent_without_an_explanation_has_a_row(tmp_path: Path) -> None:
    """A latent that nobody explained, or whose explanation failed, has a row with nulls."""
    own = ("explanation", "explainer", "score", "score_se", "scorer", "judge", "chance", "permuted_score", "beats_permuted")
    _, failed, silent = browsed(small(tmp_path))

    assert {row[name] for row in (failed, silent) for name in own} == {None}
    assert (failed["status"], failed["density"]) == ("alive", 0.25)


@pytest.mark.parametrize(
    ("score", "permuted", "beats"),
    [
        ((0.9, 0.03), (0.7, 0.04), True),
        ((0.81, 0.03), (0.7, 0.04), True),
        ((0.79, 0.03), (0.7, 0.04), False),  # 0.09 is less than twice 0.05
        ((0.6, 0.03), (0.7, 0.04), False),
        ((0.9, None), (0.7, 0.04), None),
        ((0.9, 0.03), (None, None), None),
    ],
)
def test_a_twin_is_beaten_by_two_errors(score: tuple[Any, Any], permuted: tuple[Any, Any], beats: bool | None, tmp_path: Path) -> None:
    """An explanation beats its twin by more than two standard errors of their difference; without four numbers nobody knows."""
    told = [dict(row) for row in FEW[SCORES]]
    for row, numbers in ((told[1], score), (told[2], permuted)):
        row["score"], row["score_se"] = numbers
    told[0]["score"] = 0.1

    assert browsed(small(tmp_path, (SCORES, told)))[0]["beats_permuted"] is beats


def test_only_the_main_scorer_counts(tmp_path: Path) -> None:
    """Scores of other scorers change nothing; without any score the first explainer by name explains."""
    other = [{**row, "scorer": "fuzzing", "score": 1 - row["score"]} for row in FEW[SCORES]]
    release = small(tmp_path, (SCORES, [*FEW[SCORES], *other]))

    found = {scorer: browsed(release, scorer)[0] for scorer in ("detection", "fuzzing", "nobody", None)}

    assert [row["explanation"] for row in found.values()] == ["better words", "words", "words", "words"]
    assert [row["score"] for row in found.values()] == [0.9, 0.4, None, None]
    assert [row["scorer"] for row in found.values()] == ["detection", "fuzzing", None, None]


def test_equal_scores_give_the_first_by_name(tmp_path: Path) -> None:
    """Of explanations with one score that of the first explainer by name is shown."""
    told = [{**row, "score": 0.8} for row in reversed(FEW[SCORES])]

    assert browsed(small(tmp_path, (SCORES, told)))[0]["explainer"] == "first"


def test_links_lead_to_the_nearest(tmp_path: Path) -> None:
    """The partner is the nearest by decoder rows over all dictionaries, the first by name of equally near ones; so is stability told."""
    links = [("three", "decoder", 7, 0.5), ("four", "decoder", 8, 0.5), ("two", "decoder", 9, 0.25), ("two", "encoder", 9, 0.75)]
    matches = [
        {"latent": 0, "other": other, "measure": measure, "partner": partner, "value": value} for other, measure, partner, value in links
    ]
    stable = [{"latent": 0, "measure": measure, "value": value} for measure, value in (("decoder", 0.25), ("pearson", 0.75))]

    told, other, _ = browsed(small(tmp_path, (MATCHES, matches), (STABILITY, stable)))

    assert (told["partner_sae"], told["partner_latent"], told["partner_cosine"], told["stability"]) == ("four", 8, 0.5, 0.25)
    assert (other["partner_sae"], other["partner_latent"], other["stability"]) == (None, None, None)


def test_windows_that_no_explainer_saw_are_shown(tmp_path: Path) -> None:
    """The first three activating test windows stand as text; what an explainer saw, silent windows and later ones do not."""
    shown = {"split": "test", "kind": "activating", "tokens": [0, 1], "activations": [0.0, 1.0]}
    windows = [{**shown, "latent": 0, "example": number, "tokens": [number % 2, 1]} for number in range(5)]
    others = [{**shown, "latent": 1, "example": 0, "split": "train"}, {**shown, "latent": 2, "example": 0, "kind": "random"}]

    found = browsed(small(tmp_path, (CONTEXTS, [*windows, *others])))

    assert [row["contexts"] for row in found] == [["a<< b>>", " b<< b>>", "a<< b>>"], [], []]


@pytest.mark.parametrize(
    ("tokens", "values", "text"),
    [
        ([0, 1, 2, 1], [1, 1, 0, 0.5], "<<a b>>\n<< b>>"),
        ([0, 3, 4], [0, 0, 1], "a <<€>>"),  # a mark never cuts a character
        ([5, 1], [0, 1], "<<⟦ b⟧"),
    ],
)
def test_firing_tokens_are_marked(tokens: list[int], values: list[float], text: str) -> None:
    """Each run of firing tokens stands between marks, and other marks are taken where the text holds them."""
    assert passage(np.array(tokens, dtype=np.int32), np.array(values, dtype=np.float32), PIECES) == text


@pytest.mark.parametrize(("peak", "before"), [(0, 0), (60, 24), (99, 31)])
def test_a_long_window_is_cut_around_its_peak(peak: int, before: int) -> None:
    """Of a window longer than SHORT tokens those around the strongest are shown, more of the text before it than after."""
    values = np.zeros(100, dtype=np.float32)
    values[peak] = 1

    shown = passage(np.zeros(100, dtype=np.int32), values, PIECES)

    assert shown == "a" * before + "<<a>>" + "a" * (SHORT - 1 - before)
