"""Effects of steering and their error bars, from log-probabilities that are made up."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from builders.steering.effects import (
    STEERING,
    STEERING_ANSWERS,
    STEERING_VECTORS,
    Setting,
    answer_frame,
    answer_rows,
    effect_rows,
    metrics,
    skipped_rows,
    vector_rows,
)
from builders.steering.vectors import Directions
from builders.steering.ways import Push

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

SETTING = Setting("lab", "bold", 40, 1, "Q: {question} A: (", "letters")
DOWN, UP = Push("difference", "residual", 0, -1.0), Push("difference", "residual", 0, 1.0)
NAN = float("nan")
PAIRS = st.integers(2, 5).flatmap(lambda size: arrays(np.float64, (4, 3, size), elements=st.floats(-40, 40)))  # questions, pushes, tokens


def said(matching: Any, both: float = 0.8) -> Floats:
    """Return log-probabilities [..., 2] of letters that have *both* together, of which *matching* is the share of the first."""
    share = np.asarray(matching, dtype=np.float64)
    return np.log(both * np.stack([share, 1 - share], axis=-1))


def frame_of(columns: dict[Push | None, Any], validation: set[int], setting: Setting = SETTING) -> pd.DataFrame:
    """Return answers with the matching of each question by push."""
    shares = np.stack(list(columns.values()), axis=1)
    return answer_frame(setting, list(columns), range(len(shares)), said(shares), validation)


def rows_of(setting: Setting, answers: pd.DataFrame, seed: int) -> pa.Table:
    """Return STEERING rows of which no layer is chosen."""
    return effect_rows(setting, answers, seed, {})


def by_way(rows: pa.Table) -> dict[tuple[str, str, int, float, str], dict[str, Any]]:
    """Return STEERING rows by method, site, layer, multiplier and half."""
    return {tuple(row[name] for name in ("method", "site", "layer", "multiplier", "half")): row for row in rows.to_pylist()}  # type: ignore[misc]


def by_push(rows: pa.Table, push: Push | None, half: str = "test") -> dict[str, Any]:
    """Return the row of a push and a half."""
    key = ("none", "none", -1, 0.0) if push is None else (push.method, push.site, push.layer, push.multiplier)
    return by_way(rows)[(*key, half)]


class TestMetrics:
    """Two numbers of an answer."""

    def test_by_hand(self) -> None:
        """Letters of 0.6 and 0.2: three quarters match and 0.2 is nonsense."""
        matching, nonsense = metrics(np.log([[0.6, 0.2], [0.5, 0.5], [0.001, 0.003]]))
        np.testing.assert_allclose(matching, [0.75, 0.5, 0.25], rtol=1e-12)
        np.testing.assert_allclose(nonsense, [0.2, 0.0, 0.996], atol=1e-12)

    def test_letters_too_small_to_be_seen(self) -> None:
        """Letters at -1000 nats, whose probabilities are zeros, match by the difference of their logarithms."""
        matching, nonsense = metrics(np.array([[-1000.0, -1000.0], [-1000.0, -1002.0], [-1002.0, -1000.0], [-1.0, -1000.0]]))
        np.testing.assert_allclose(matching, [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 1.0], rtol=1e-12)
        np.testing.assert_allclose(nonsense, [1.0, 1.0, 1.0, 1 - np.exp(-1)], rtol=1e-12)

    def test_what_is_no_number_stays_none(self) -> None:
        """Where either letter has no number there is no matching, and where both are infinitely far there is none either."""
        with np.errstate(invalid="ignore"):
            matching, nonsense = metrics(np.array([[NAN, -1.0], [-1.0, NAN], [NAN, NAN], [-np.inf, -np.inf], [-np.inf, -1.0]]))
        assert np.isnan(matching).tolist() == [True, True, True, True, False]
        assert np.isnan(nonsense).tolist() == [True, True, True, False, False]
        assert matching[-1] == 0

    @given(PAIRS)
    def test_they_are_shares(self, logits: Floats) -> None:
        """Of any distribution over tokens, both numbers are between 0 and 1, and letters exchanged match the other way round."""
        logprobs = (logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))[..., :2]
        matching, nonsense = metrics(logprobs)
        assert ((matching >= 0) & (matching <= 1)).all()
        assert ((nonsense >= -1e-12) & (nonsense <= 1)).all()
        np.testing.assert_allclose(matching + metrics(logprobs[..., ::-1])[0], 1, rtol=1e-12)


class TestAnswers:
    """Answers, question by question."""

    def test_by_hand(self) -> None:
        """Two questions, no push and one: every value, and which half each is of."""
        frame = answer_frame(SETTING, [None, UP], [3, 7], said([[0.5, 0.75], [0.25, 0.125]], both=0.5), {7})
        expected = [
            ("none", "none", "none", -1, 0.0, 3, "test", 0.5, 0.0),
            ("none", "none", "none", -1, 0.0, 7, "validation", 0.25, 0.0),
            ("difference", "residual", "none", 0, 1.0, 3, "test", 0.75, 0.25),
            ("difference", "residual", "none", 0, 1.0, 7, "validation", 0.125, -0.125),
        ]
        names = ["method", "site", "phase", "layer", "multiplier", "question", "half", "matching", "effect"]
        pd.testing.assert_frame_equal(frame[names], pd.DataFrame(expected, columns=names), check_dtype=False, rtol=1e-12)
        assert (frame[["subject", "behaviour", "status"]] == ["lab", "bold", "ok"]).all(axis=None)
        np.testing.assert_allclose(frame["nonsense"], 0.5)

    def test_each_value_is_of_its_question_and_push(self) -> None:
        """With as many questions as pushes, neither is taken for the other."""
        pushes = [None, *(Push("difference", "state", layer, 2.0) for layer in range(3))]
        shares = np.random.default_rng(0).random((4, 4))
        frame = answer_frame(SETTING, pushes, range(4), said(shares), set())
        found = {(row.question, row.layer): (row.matching, row.effect) for row in frame.itertuples()}
        for question, layer in product(range(4), range(-1, 3)):
            matching = shares[question, layer + 1]
            np.testing.assert_allclose(found[question, layer], (matching, matching - shares[question, 0]), atol=1e-12)

    def test_orders_of_a_question(self) -> None:
        """A place that is there again is the same question with its options in another order, and in the same half."""
        frame = answer_frame(SETTING, [None, UP], [5, 2, 5], said(np.full((3, 2), 0.5)), {5})
        assert frame[["question", "order", "half"]].to_numpy().tolist() == [[5, 0, "validation"], [2, 0, "test"], [5, 1, "validation"]] * 2

    def test_a_failed_answer_has_no_numbers(self) -> None:
        """An answer without a number fails alone; without the unsteered one there is no effect, so all of its question do."""
        logprobs = said(np.full((3, 3), 0.5))
        logprobs[0, 1, 0] = NAN
        logprobs[1, 0, 1] = NAN
        rows = answer_rows(answer_frame(SETTING, [None, DOWN, UP], range(3), logprobs, {0})).to_pandas()
        failed = {(row.question, row.multiplier) for row in rows.itertuples() if row.status == "probabilities are no numbers"}
        assert failed == {(0, -1.0), (1, -1.0), (1, 0.0), (1, 1.0)}
        assert {(row.question, row.multiplier) for row in rows.itertuples() if np.isnan(row.effect)} == failed
        assert (rows[["matching", "nonsense", "effect"]].isna().nunique(axis=1) == 1).all()
        assert set(rows["status"]) == {"ok", "probabilities are no numbers"}

    def test_questions_that_were_not_asked(self) -> None:
        """Questions too long to be read have the reason that they are given in every row, and are counted as failed in their half."""
        logprobs = said(np.full((4, 2), 0.5))
        logprobs[[1, 3]] = NAN
        answers = answer_frame(SETTING, [None, UP], range(4), logprobs, {2, 3})
        answers["status"] = answers["status"].mask(answers["question"].isin([1, 3]), "too long")
        rows = answer_rows(answers)
        STEERING_ANSWERS.validate(rows)
        found = [(row["question"], row["status"], row["half"], row["matching"]) for row in rows.to_pylist()]
        one_way = [(0, "ok", "test", 0.5), (1, "too long", "test", None), (2, "ok", "validation", 0.5), (3, "too long", "validation", None)]
        assert found == one_way * 2
        assert {(row["n"], row["n_failed"]) for row in rows_of(SETTING, answers, 0).to_pylist()} == {(1, 1)}

    def test_rows_are_valid_and_in_order(self) -> None:
        """The rows are those that the table promises, by key, with null where there is no number."""
        logprobs = said(np.random.default_rng(0).random((5, 3)))
        logprobs[2] = NAN
        rows = answer_rows(answer_frame(SETTING, [None, UP, DOWN], [4, 0, 2, 1, 3], logprobs, {1, 2}))
        STEERING_ANSWERS.validate(rows)
        keys = list(zip(rows["method"].to_pylist(), rows["multiplier"].to_pylist(), rows["question"].to_pylist(), strict=True))
        ways = [("difference", -1.0), ("difference", 1.0), ("none", 0.0)]
        assert keys == [(*way, question) for way in ways for question in range(5)]
        assert rows["effect"].null_count == 3

    @given(PAIRS)
    @settings(max_examples=15)
    def test_no_push_has_no_effect(self, logits: Floats) -> None:
        """Whatever is said, the effect of no push is exactly 0, and all rows are valid."""
        logprobs = (logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))[..., :2]
        answers = answer_frame(SETTING, [None, DOWN, UP], range(4), logprobs, {0, 1})
        assert set(answers.loc[answers["method"] == "none", "effect"]) == {0.0}
        STEERING_ANSWERS.validate(answer_rows(answers))
        rows = rows_of(SETTING, answers, 0)
        STEERING.validate(rows)
        for half in ("validation", "test"):
            row = by_push(rows, None, half)
            assert (row["effect"], row["effect_se"], row["n"]) == (0.0, 0.0, 2)


class TestEffects:
    """What a way to steer does, over questions."""

    def test_by_hand(self) -> None:
        """Means over the questions of either half, and what is the same for all rows."""
        rows = rows_of(SETTING, frame_of({None: [0.5, 0.25, 0.75, 0.5], UP: [0.75, 0.5, 0.75, 0.75]}, {0, 2}), 0)
        STEERING.validate(rows)
        assert rows.num_rows == 4
        means = {(row["method"], row["half"]): (row["matching"], row["effect"]) for row in rows.to_pylist()}
        expected = {
            ("none", "validation"): (0.625, 0.0),
            ("none", "test"): (0.375, 0.0),
            ("difference", "validation"): (0.75, 0.125),
            ("difference", "test"): (0.625, 0.25),
        }
        assert means.keys() == expected.keys()
        for key, pair in expected.items():
            np.testing.assert_allclose(means[key], pair, rtol=1e-12)
        for row in rows.to_pylist():
            assert row["nonsense"] == pytest.approx(0.2)
            shared = ("subject", "behaviour", "pairs", "last", "template", "answers", "status", "n", "n_failed")
            assert [row[name] for name in shared] == ["lab", "bold", 40, 1, "Q: {question} A: (", "letters", "ok", 2, 0]

    def test_only_ways_that_were_tried(self) -> None:
        """There is a row for each push and half and no other, though methods, sites, layers and multipliers do not go together freely."""
        pushes = [None, Push("difference", "state", 2, -1.5), Push("difference", "both", 0, 3.0), Push("lda", "residual", 1, 1.0)]
        answers = answer_frame(SETTING, pushes, range(6), said(np.random.default_rng(0).random((6, 4))), {0, 1, 2})
        expected = {("none", "none", -1, 0.0), *((push.method, push.site, push.layer, push.multiplier) for push in pushes if push)}
        found = by_way(rows_of(SETTING, answers, 0))
        assert found.keys() == {(*way, half) for way in expected for half in ("validation", "test")}
        assert {row["status"] for row in found.values()} == {"ok"}

    def test_letters_count_alike(self) -> None:
        """A push towards (A) has no effect where three of four questions match with (A), and the halves hold both letters."""
        letters = [("A", "B")] * 6 + [("B", "A")] * 2
        plain, steered = np.full(8, 0.5), np.where([some == ("A", "B") for some in letters], 0.75, 0.25)
        answers = answer_frame(SETTING, [None, UP], range(8), said(np.stack([plain, steered], axis=1)), {0, 1, 2, 6}, letters)
        assert answers[["letter", "other"]].to_numpy()[:8].tolist() == [list(some) for some in letters]
        row = by_push(rows_of(SETTING, answers, 0), UP)
        assert (row["effect"], row["effect_se"]) == (pytest.approx(0), pytest.approx(0))
        assert (row["matching"], row["n"]) == (pytest.approx(0.5), 4)

    def test_a_letter_is_no_behaviour(self) -> None:
        """What pushes towards one letter cancels over both orders of options, which are one question; one failed order fails it."""
        plain, letter = np.full((6, 2), 0.5), np.tile([0.25, -0.25], 6)[:, None]
        logprobs = said(plain.repeat(2, axis=0) + letter * [0, 1])
        logprobs[10, 1] = NAN
        row = by_push(rows_of(SETTING, answer_frame(SETTING, [None, UP], np.arange(6).repeat(2).tolist(), logprobs, {0, 1}), 0), UP)
        assert (row["n"], row["n_failed"]) == (3, 1)
        assert (row["effect"], row["effect_se"]) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))

    def test_the_effect_is_paired(self) -> None:
        """A shift by the same for all has no error, however much questions differ; matching itself has a large one."""
        plain = np.random.default_rng(0).uniform(0.0, 0.8, 200)
        rows = rows_of(SETTING, frame_of({None: plain, UP: plain + 0.125}, set(range(100))), 0)
        row = by_push(rows, UP)
        assert row["effect"] == pytest.approx(0.125)
        assert row["effect_se"] < 1e-12
        assert row["matching_se"] > 0.015

    def test_errors_are_those_of_means(self) -> None:
        """For many questions they are the standard deviation over the root of their number."""
        plain, steered = np.random.default_rng(0).uniform(0, 1, (2, 1200))
        row = by_push(rows_of(SETTING, frame_of({None: plain, UP: steered}, set(range(600))), 0), UP)
        for name, values in (("matching", steered[600:]), ("effect", (steered - plain)[600:])):
            assert row[name] == pytest.approx(values.mean())
            assert row[f"{name}_se"] == pytest.approx(values.std(ddof=1) / 600**0.5, rel=0.1)

    def test_failures_are_counted_and_left_out(self) -> None:
        """Means and errors are those of the questions that are there; each way counts its own failures."""
        shares = np.random.default_rng(0).random((60, 3))
        logprobs = said(shares)
        logprobs[40:50, 1] = NAN
        logprobs[30, 0] = NAN
        rows = rows_of(SETTING, answer_frame(SETTING, [None, DOWN, UP], range(60), logprobs, set(range(20))), 0)
        STEERING.validate(rows)
        counts = {push: (by_push(rows, push)["n"], by_push(rows, push)["n_failed"]) for push in (None, DOWN, UP)}
        assert counts == {None: (39, 1), DOWN: (29, 11), UP: (39, 1)}
        there = np.setdiff1d(np.arange(20, 60), [30, *range(40, 50)])
        values = (shares[:, 1] - shares[:, 0])[there]
        assert by_push(rows, DOWN)["effect"] == pytest.approx(values.mean())
        assert by_push(rows, DOWN)["effect_se"] == pytest.approx(values.std(ddof=1) / 29**0.5, rel=0.15)
        assert {by_push(rows, push, "validation")["n_failed"] for push in (None, DOWN, UP)} == {0}

    def test_no_answers(self) -> None:
        """A way without any answer has a row without numbers that says so, and no warning is shown."""
        logprobs = said(np.full((6, 3), 0.5))
        logprobs[:, 1] = NAN
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = rows_of(SETTING, answer_frame(SETTING, [None, DOWN, UP], range(6), logprobs, {0, 1, 2}), 0)
        STEERING.validate(rows)
        empty = {name for name, value in by_push(rows, DOWN).items() if value is None}
        assert empty == {f"{name}{end}" for name in ("matching", "nonsense", "effect") for end in ("", "_se")}
        assert {(row["status"], row["n"], row["n_failed"]) for row in rows.to_pylist() if row["multiplier"] == -1} == {("no answers", 0, 3)}
        assert by_push(rows, UP)["status"] == "ok"

    def test_one_answer_has_no_error(self) -> None:
        """A single question tells a mean but nothing of its error."""
        row = by_push(rows_of(SETTING, frame_of({None: [0.5, 0.5], UP: [0.75, 0.75]}, {0}), 0), UP)
        assert (row["effect"], row["n"]) == (pytest.approx(0.25), 1)
        assert (row["effect_se"], row["matching_se"], row["nonsense_se"]) == (None, None, None)

    def test_the_seed_decides(self) -> None:
        """The same seed draws the same errors, in whatever order the answers come; another seed, subject or behaviour draws others."""
        answers = frame_of(dict(zip([None, DOWN, UP], np.random.default_rng(0).random((3, 40)), strict=True)), set(range(20)))

        def errors(setting: Setting, seed: int) -> list[float]:
            return rows_of(setting, answers.assign(**setting.identity), seed)["matching_se"].to_pylist()

        rows = rows_of(SETTING, answers, 1)
        assert rows.equals(rows_of(SETTING, answers.sample(frac=1, random_state=0), 1))
        others = [errors(SETTING, 2), errors(replace(SETTING, subject="x"), 1), errors(replace(SETTING, behaviour="x"), 1)]
        assert rows["matching_se"].to_pylist() not in others
        assert len({tuple(some) for some in others}) == 3

    def test_all_ways_draw_the_same_questions(self) -> None:
        """Ways that do the same have the same error to the last bit."""
        plain, steered = np.random.default_rng(0).random((2, 40))
        rows = rows_of(SETTING, frame_of({None: plain, DOWN: steered, UP: steered}, set(range(20))), 0)
        assert by_push(rows, DOWN)["effect_se"] == by_push(rows, UP)["effect_se"] > 0


class TestChosen:
    """Which layer is chosen."""

    def test_rows_of_the_chosen_layer_say_so(self) -> None:
        """Both halves and all multipliers of the layer that was chosen for a method, site and phase are chosen, and no others."""
        shares = {None: [0.5] * 4} | {Push("difference", site, layer, 1.0): [0.6] * 4 for site in ("residual", "state") for layer in (0, 1)}
        chosen = {("difference", "residual", "none"): 0, ("difference", "state", "late"): 1}
        rows = by_way(effect_rows(SETTING, frame_of(shares, {0, 1}), 0, chosen))
        found = {key for key, row in rows.items() if row["chosen"]}
        assert found == {("difference", *place, 1.0, half) for place in (("residual", 0), ("state", 1)) for half in ("validation", "test")}


class TestSkipped:
    """Ways that a subject does not allow."""

    def test_rows_say_why(self) -> None:
        """A row for each half with the reason, no numbers and no questions, beside those that were tried."""
        pushes = [Push("difference", "state", layer, multiplier) for layer in (1, 0) for multiplier in (1.0, -1.0)]
        rows = skipped_rows(SETTING, pushes, "the subject has no recurrent state")
        STEERING.validate(rows)
        assert rows.num_rows == 8
        for row in rows.to_pylist():
            assert (row["status"], row["n"], row["n_failed"], row["chosen"]) == ("the subject has no recurrent state", 0, 0, False)
            assert [row[name] for name in ("matching", "matching_se", "nonsense", "nonsense_se", "effect", "effect_se")] == [None] * 6
        tried = rows_of(SETTING, frame_of({None: [0.5, 0.5], UP: [0.75, 0.75]}, {0}), 0)
        STEERING.validate(STEERING.sort(pa.concat_tables([tried, rows])))


class TestVectors:
    """The vectors themselves."""

    def test_by_hand(self) -> None:
        """A row for each layer and part with shape, values in order and length; a method or layer without state has the stream's alone."""
        state = [{"ssm": torch.tensor([[1.0, 2.0], [2.0, 0.0]])}, {}]
        directions = {
            "lda": Directions(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), [{}, {}]),
            "difference": Directions(torch.tensor([[3.0, 4.0], [5.0, 12.0]]), state),
        }
        rows = vector_rows(SETTING, directions, ["blocks.0", "blocks.1"])
        STEERING_VECTORS.validate(rows)
        names = ("method", "layer", "part", "hookpoint", "shape", "values", "norm")
        assert [tuple(row[name] for name in names) for row in rows.to_pylist()] == [
            ("difference", 0, "residual", "blocks.0", [2], [3.0, 4.0], 5.0),
            ("difference", 0, "ssm", "blocks.0", [2, 2], [1.0, 2.0, 2.0, 0.0], 3.0),
            ("difference", 1, "residual", "blocks.1", [2], [5.0, 12.0], 13.0),
            ("lda", 0, "residual", "blocks.0", [2], [0.0, 1.0], 1.0),
            ("lda", 1, "residual", "blocks.1", [2], [2.0, 0.0], 2.0),
        ]
        assert {(row["subject"], row["behaviour"], row["pairs"]) for row in rows.to_pylist()} == {("lab", "bold", 40)}
