"""Detection and fuzzing: what is asked, what the lexical judge answers, and failures that stay failures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contexts import windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import scored
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from builders.contexts.contexts import strong
from builders.explainers import cues
from builders.explainers.cues import Cue
from builders.scorers import detection, fuzzing
from builders.scorers.judgements import KEY
from builders.scorers.judging import Task
from builders.scorers.lexical import LexicalJudge
from builders.scorers.trials import Trials, Verdicts, WindowScorer

if TYPE_CHECKING:
    from random import Random

    import numpy.typing as npt

    from builders.contexts.contexts import Examples
    from builders.scorers.trials import Draw, Judge

# What is asked

SIZE, WINDOW = 12, 6
SPECIAL = np.arange(SIZE) == 0


@st.composite
def examples_of(draw: st.DrawFn, special: bool = True) -> Examples:
    """Draw test windows of one latent; it never fires on the special token 0, and in some windows not at all."""
    positive, negative = draw(st.integers(1, 6)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    tokens = rng.integers(0 if special else 1, SIZE, (positive + negative, WINDOW)).astype(np.int32)
    tokens[:positive, 2] = np.maximum(tokens[:positive, 2], 1)
    values = rng.exponential(size=tokens.shape) * (rng.random(tokens.shape) < 0.5)
    values[:, 2] += 0.01
    values[tokens == 0] = 0.0
    values[positive:] = 0.0
    return windows_of(draw(st.integers(0, 99)), tokens, values.astype(np.float32), np.arange(positive + negative) < positive, first=10)


@given(examples_of())
def test_detection_asks_about_every_window_unmarked(examples: Examples) -> None:
    """Every window is asked about, without marks, and the truth is whether the latent fires in it."""
    trials = detection.trials(examples, SPECIAL, 0)
    assert trials.marks is None
    assert trials.status.tolist() == ["ok"] * len(examples.number)
    assert trials.truth.tolist() == examples.activations.any(axis=1).tolist()
    assert (trials.latent, trials.number.tolist()) == (examples.latent, examples.number.tolist())
    assert np.array_equal(trials.tokens, examples.tokens)


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_positives_mark_the_tokens_near_the_largest(examples: Examples, seed: int) -> None:
    """In an activating window exactly the tokens that reach 0.3 of its largest activation are marked."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    for n in np.flatnonzero(examples.activating):
        values = examples.activations[n].tolist()
        assert trials.marks[n].tolist() == [value >= np.float32(0.3) * np.float32(max(values)) for value in values]
        assert trials.status[n] == "ok"


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_negatives_borrow_the_marks_of_a_positive(examples: Examples, seed: int) -> None:
    """A silent window has exactly the marks of some activating window, none on a special token, or none and a reason."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    patterns = {tuple(marks) for marks in trials.marks[examples.activating].tolist()}
    for n in np.flatnonzero(~examples.activating):
        special = SPECIAL[examples.tokens[n]].tolist()
        fits = {marks for marks in patterns if not any(mark and bad for mark, bad in zip(marks, special, strict=True))}
        if fits:
            assert (tuple(trials.marks[n].tolist()) in fits, trials.status[n]) == (True, "ok")
        else:
            assert not trials.marks[n].any()
            assert trials.status[n] != "ok"


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=100)
def test_no_special_token_is_ever_marked(examples: Examples, seed: int) -> None:
    """Neither positives nor negatives mark a special token."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    assert not (trials.marks & SPECIAL[examples.tokens]).any()


@given(examples_of(), st.integers(0, 2**62), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_a_neighbour_s_window_marks_the_neighbour_s_tokens(examples: Examples, seed: int, random: Random) -> None:
    """Where a neighbour fires, its tokens that reach 0.3 of its largest activation are marked; elsewhere marks are borrowed."""
    silent = np.flatnonzero(~examples.activating)
    there = np.array([place for place in silent if random.random() < 0.5], dtype=np.int64)
    neighbour = np.zeros(examples.tokens.shape, dtype=np.float32)
    neighbour[there, 1], neighbour[there, 3], neighbour[there, 4] = 10.0, 3.0, 2.9
    examples = replace(examples, neighbour=neighbour)
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    own = {tuple(marks) for marks in trials.marks[examples.activating].tolist()}
    for place in silent:
        marks = tuple(trials.marks[place].tolist())
        assert marks == (False, True, False, True, False, False) if place in there else marks in {*own, (False,) * WINDOW}
    assert set(trials.status[there].tolist()) <= {"ok"}
    assert trials.truth.tolist() == examples.activating.tolist()


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_scattered_marks_are_as_many_as_firings(examples: Examples, seed: int) -> None:
    """Random marks of a silent window: as many as firings in an activating one on average, rounded up, or all tokens but special ones."""
    trials, own = fuzzing.scattered(examples, SPECIAL, seed), fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    assert own.marks is not None
    truth = examples.activating
    n = math.ceil((examples.activations[truth] > 0).sum() / truth.sum())
    open_ = ~SPECIAL[examples.tokens]
    assert np.array_equal(trials.marks[truth], own.marks[truth])
    assert not (trials.marks & ~open_).any()
    assert trials.marks[~truth].sum(axis=1).tolist() == np.minimum(n, open_[~truth].sum(axis=1)).tolist()
    assert trials.status.tolist() == np.where(trials.marks.any(axis=1), "ok", "no marks fit").tolist()


def test_scattered_marks_are_drawn_evenly_window_by_window() -> None:
    """Each token of a silent window is marked about equally often, no two windows alike, the same by the same seed only."""
    values = np.zeros((420, 8), dtype=np.float32)
    values[:20, :2] = 1.0
    examples = windows_of(1, np.ones((420, 8), dtype=np.int32), values)
    marks = [fuzzing.scattered(examples, SPECIAL, seed).marks for seed in (5, 5, 6)]
    assert marks[0] is not None
    counts = marks[0][20:].sum(axis=0)

    assert np.abs(counts - 100).max() < 5 * math.sqrt(400 * 0.25 * 0.75)
    assert len({row.tobytes() for row in marks[0][20:]}) == 28  # all pairs of eight tokens
    assert np.array_equal(marks[0], marks[1])
    assert not np.array_equal(marks[0], marks[2])


def test_scattered_marks_leave_a_neighbour_s_tokens() -> None:
    """Where a neighbour fires, its tokens are marked, whatever other negatives mark."""
    values, neighbour = np.zeros((3, 4), dtype=np.float32), np.zeros((3, 4), dtype=np.float32)
    values[0, :3], neighbour[1, 3] = 2.0, 1.0
    examples = windows_of(1, np.ones((3, 4), dtype=np.int32), values, neighbour=neighbour)
    marks = fuzzing.scattered(examples, SPECIAL, 0).marks

    assert marks is not None
    assert marks[:2].tolist() == [[True, True, True, False], [False, False, False, True]]
    assert marks[2].sum() == 3


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_repeated_marks_are_on_tokens_that_positives_mark(examples: Examples, seed: int) -> None:
    """A silent window's marks are on tokens that some positive marks, as many as a positive has, or all there are; none are special."""
    trials, own = fuzzing.repeated(examples, SPECIAL, seed), fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    assert own.marks is not None
    truth = examples.activating
    known = set(examples.tokens[own.marks & truth[:, None]].tolist()) - {0}
    sizes = set(own.marks[truth].sum(axis=1).tolist())
    assert np.array_equal(trials.marks[truth], own.marks[truth])
    for place in np.flatnonzero(~truth):
        there = np.isin(examples.tokens[place], list(known))
        assert not (trials.marks[place] & ~there).any()
        assert trials.marks[place].sum() in {min(size, int(there.sum())) for size in sizes}
        assert trials.status[place] == ("ok" if there.any() else "no marks fit")


def test_repeated_marks_are_drawn_by_seed_and_positives_lend_their_number_in_turn() -> None:
    """Of several tokens that repeat, marks fall on other ones with another seed; two positives of one and four marks lend both numbers."""
    values = np.zeros((6, WINDOW), dtype=np.float32)
    values[0, 0], values[1, :4] = 1.0, 1.0
    examples = windows_of(1, np.ones((6, WINDOW), dtype=np.int32), values, silent="decoy")
    marks = [fuzzing.repeated(examples, SPECIAL, seed).marks for seed in (5, 5, 6)]

    assert marks[0] is not None
    assert sorted(marks[0][2:].sum(axis=1).tolist()) == [1, 1, 4, 4]
    assert np.array_equal(marks[0], marks[1])
    assert not np.array_equal(marks[0], marks[2])


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_misplaced_marks_are_where_the_latent_is_silent(examples: Examples, seed: int) -> None:
    """Each activating window comes twice: with its own marks, and with another's marks, on tokens that are silent and not special."""
    trials = fuzzing.misplaced(examples, SPECIAL, seed)
    own = examples.take(np.flatnonzero(examples.activating))
    n = len(own.number)
    assert trials.marks is not None
    right, wrong = trials.marks[:n], trials.marks[n:]
    assert np.array_equal(right, strong(own.activations))
    assert not (wrong & ((own.activations > 0) | SPECIAL[own.tokens])).any()
    patterns = {tuple(marks) for marks in right.tolist()}
    for place in range(n):
        closed = ((own.activations[place] > 0) | SPECIAL[own.tokens[place]]).tolist()
        fits = {marks for marks in patterns if not any(mark and bad for mark, bad in zip(marks, closed, strict=True))}
        expected = (tuple(wrong[place].tolist()) in fits, "ok") if fits else (not wrong[place].any(), "no marks fit")
        assert expected == (True, trials.status[n + place])
    assert trials.truth.tolist() == [True] * n + [False] * n
    assert len(set(trials.number.tolist())) == 2 * n
    assert trials.number[:n].tolist() == own.number.tolist()
    assert np.array_equal(trials.tokens, np.concatenate([own.tokens, own.tokens]))


def test_misplaced_marks_are_as_many() -> None:
    """Where all windows have equally many marks, they have as many misplaced marks."""
    rng = np.random.default_rng(0)
    values = np.zeros((40, 20), dtype=np.float32)
    for row in values:
        row[rng.choice(20, 3, replace=False)] = 1.0
    trials = fuzzing.misplaced(windows_of(1, np.ones((40, 20), dtype=np.int32), values), SPECIAL, 5)
    assert trials.marks is not None
    assert trials.marks.sum(axis=1).tolist() == [3] * 80


@given(examples_of(special=False), st.integers(0, 2**62))
@settings(max_examples=50)
def test_negatives_borrow_from_all_positives_in_turn(examples: Examples, seed: int) -> None:
    """Where nothing stands in the way, no positive lends its marks twice before each has lent them once."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    lenders = sorted(map(tuple, trials.marks[examples.activating].tolist()))
    borrowed = sorted(map(tuple, trials.marks[~examples.activating].tolist()))
    for pattern in set(lenders):
        rounds, rest = divmod(len(borrowed), len(lenders))
        assert rounds * lenders.count(pattern) <= borrowed.count(pattern) <= (rounds + bool(rest)) * lenders.count(pattern)


def test_marks_are_lent_by_seed() -> None:
    """The same seed lends the same marks; over seeds a negative gets different ones."""
    tokens = np.ones((9, WINDOW), dtype=np.int32)
    values = np.vstack([np.eye(WINDOW), np.zeros((3, WINDOW))]).astype(np.float32)
    examples = windows_of(1, tokens, values)
    lent = [marks[6:].tobytes() for seed in (1, 1, 2, 3, 4) if (marks := fuzzing.trials(examples, SPECIAL, seed).marks) is not None]
    assert len(lent) == 5
    assert lent[0] == lent[1]
    assert len(set(lent)) > 1


def test_an_example_without_marks_is_no_answer() -> None:
    """A negative on which no positive's marks fit is counted as failed, neither right nor wrong."""
    tokens = np.array([[1, 2], [3, 0]], dtype=np.int32)
    values = np.array([[0.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    judge = LexicalJudge([f"w{token}" for token in range(SIZE)])
    scorer = WindowScorer(fuzzing.trials, judge, "random", SPECIAL, 0)
    rows, record = scored(scorer, Task(windows_of(0, tokens, values), "lexical", cues.write([Cue("w2", None, 1.0, 0.9)])))
    assert (record["n"], record["n_failed"], record["score"], record["status"]) == (1, 1, None, "one class only")
    assert [(row["answer"], row["probability"]) for row in rows.to_pylist()] == [(True, pytest.approx(0.9)), (None, None)]
    assert rows["status"].to_pylist() == ["ok", "no marks fit"]


def test_only_one_kind_of_silent_windows_is_asked_about() -> None:
    """Of all test windows a scorer takes the activating ones and the negatives that it names."""
    tokens = np.arange(24, dtype=np.int32).reshape(4, 6)
    values = (tokens == 1).astype(np.float32)
    examples = replace(windows_of(0, tokens, values), kind=np.array(["activating", "random", "similar", "random"]))
    asked = {
        kind: WindowScorer(detection.trials, LexicalJudge([]), kind, SPECIAL, 0).trials(Task(examples)) for kind in ("random", "similar")
    }
    assert {kind: trials.number.tolist() for kind, trials in asked.items()} == {"random": [0, 1, 3], "similar": [0, 2]}


# What is answered


def trials_of(tokens: list[list[int]], truth: list[bool], marks: list[list[bool]] | None = None) -> Trials:
    """Return trials of these windows."""
    shown = None if marks is None else np.array(marks)
    status = np.full(len(tokens), "ok")
    return Trials(3, np.arange(len(tokens)), np.array(truth), np.array(tokens, dtype=np.int32), shown, status)


def scorer_of(judge: Judge, trials: Trials) -> WindowScorer:
    """Return a scorer that asks *judge* about these trials, whatever the windows."""
    return WindowScorer(lambda *_: trials, judge, "random", SPECIAL, 0)


def task_of(explanation: str) -> Task:
    """Return a task without windows."""
    return Task(windows_of(3, np.zeros((0, 1), dtype=np.int32), np.zeros((0, 1), dtype=np.float32)), "lexical", explanation)


def probability_of(judge: LexicalJudge, explanation: str, trials: Trials) -> list[float]:
    """Return the probabilities of yes; each answer is yes where they are at least a half."""
    verdicts = judge.verdicts(explanation, trials, ())
    assert verdicts.answer.tolist() == [float(p >= 0.5) for p in verdicts.probability.tolist()]
    found: list[float] = verdicts.probability.tolist()
    return found


def test_the_lexical_judge_asks_nobody() -> None:
    """It reads the explanation itself, so there is no request."""
    assert LexicalJudge(["a"]).requests("words", trials_of([[0]], [True])) == ()


def test_the_lexical_judge_is_a_noisy_or_over_tokens() -> None:
    """A window that has a cue of reliability 0.6 twice fits with probability 1 − 0.4², one that has none with 0."""
    explanation = cues.write([Cue("a", None, 0.7, 0.6), Cue("b", "c", 0.3, 0.5)])
    trials = trials_of([[0, 1, 0], [1, 1, 1], [2, 1, 2]], [True, False, True])
    assert probability_of(LexicalJudge(["a", "b", "c"]), explanation, trials) == pytest.approx([1 - 0.4**2, 0.0, 0.5])


def test_in_a_marked_window_only_the_marked_tokens_speak() -> None:
    """A cue outside the marks counts for nothing."""
    trials = trials_of([[0, 1, 0], [0, 1, 1]], [True, False], [[True, False, False], [False, True, True]])
    explanation = cues.write([Cue("a", None, 1.0, 0.8)])
    assert probability_of(LexicalJudge(["a", "b"]), explanation, trials) == pytest.approx([0.8, 0.0])


def test_pieces_that_several_ids_share_are_one_cue() -> None:
    """Two ids with the same text are both what the explanation names."""
    trials = trials_of([[0, 1], [1, 2]], [True, True])
    explanation = cues.write([Cue("a", None, 1.0, 0.8)])
    assert probability_of(LexicalJudge(["a", "b", "a"]), explanation, trials) == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize("explanation", ["", "Fires on verbs of motion.", 'Fires on "a".'])
def test_an_explanation_that_names_nothing_is_never_half(explanation: str) -> None:
    """An explanation that the judge cannot read gives null answers, all counted as failed, and no score: not 0, not 0.5."""
    trials = trials_of([[0, 1], [1, 1], [1, 0]], [True, False, True])
    rows, record = scored(scorer_of(LexicalJudge(["a", "b"]), trials), task_of(explanation))
    assert rows["answer"].to_pylist() == rows["probability"].to_pylist() == [None] * 3
    assert rows["truth"].to_pylist() == [True, False, True]
    assert "ok" not in rows["status"].to_pylist()
    assert (record["n"], record["n_failed"], record["status"]) == (0, 3, "no answers")
    assert [record[name] for name in ("score", "score_se", "auroc", "auroc_se", "accuracy", "precision", "recall", "f1")] == [None] * 8


@dataclass(frozen=True)
class Said:
    """A judge that has made up its mind."""

    probability: npt.NDArray[np.float64]
    prompt_sha256: None = None

    def requests(self, *_: object) -> tuple[()]:
        """Return nothing."""
        return ()

    def verdicts(self, *_: object) -> Verdicts:
        """Return yes where the probability is at least a half, and `mute` where there is none."""
        mute = np.isnan(self.probability)
        return Verdicts(np.where(mute, math.nan, self.probability >= 0.5), self.probability, np.where(mute, "mute", "ok"))


@given(st.lists(st.tuples(st.booleans(), st.one_of(st.none(), st.floats(0, 1))), min_size=1, max_size=20))
@settings(max_examples=100)
def test_a_score_rests_on_the_answered_examples_alone(answers: list[tuple[bool, float | None]]) -> None:
    """Unanswered examples are null rows, counted in n_failed; the score is that of the others, if both classes are among them."""
    judge = Said(np.array([math.nan if p is None else p for _, p in answers]))
    rows, record = scored(scorer_of(judge, trials_of([[0]] * len(answers), [truth for truth, _ in answers])), task_of("words"))
    assert rows["answer"].to_pylist() == [None if p is None else p >= 0.5 for _, p in answers]
    assert rows["status"].to_pylist() == ["mute" if p is None else "ok" for _, p in answers]
    fine = [(is_true, p) for is_true, p in answers if p is not None]
    assert (record["n"], record["n_failed"]) == (len(fine), len(answers) - len(fine))
    assert record["n_positive"] == sum(is_true for is_true, _ in fine)
    assert record["chance"] == 0.5
    if len({is_true for is_true, _ in fine}) == 2:
        kept, values = [is_true for is_true, _ in fine], [p for _, p in fine]
        assert record["status"] == "ok"
        assert record["score"] == pytest.approx(balanced_accuracy_score(kept, np.array(values) >= 0.5))
        assert record["auroc"] == pytest.approx(roc_auc_score(kept, values))
    else:
        assert record["score"] is None
        assert record["status"] == ("one class only" if fine else "no answers")


def test_judgements_and_score_say_whose_they_are() -> None:
    """Every row carries the SAE, latent, explainer, scorer, negatives and judge; examples keep their numbers."""
    trials = trials_of([[0, 1], [1, 1]], [True, False])
    task = task_of(cues.write([Cue("a", None, 1.0, 0.9)]))
    rows, record = scored(scorer_of(LexicalJudge(["a", "b"]), trials), task)
    for found in (*rows.to_pylist(), record):
        assert [found[name] for name in KEY] == ["toy", 3, "lexical", "some-scorer", "random", "some-judge"]
    assert rows["example"].to_pylist() == [0, 1]
    assert (record["score"], record["auroc"], record["f1"], record["status"]) == (1.0, 1.0, 1.0, "ok")
    assert [record[name] for name in ("unit", "model", "prompt_sha256", "prompt_tokens")] == ["balanced accuracy", None, None, None]


@pytest.mark.parametrize(("draw", "negatives"), [(detection.trials, "random"), (fuzzing.trials, "random"), (fuzzing.misplaced, "active")])
def test_the_right_explanation_scores_and_a_wrong_one_does_not(draw: Draw, negatives: str) -> None:
    """On a latent that fires on one token, naming it scores above 0.9 and naming another about chance, by each scorer."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(3, SIZE, (100, WINDOW)).astype(np.int32)
    place = rng.integers(0, WINDOW, 50)
    tokens[np.arange(50), place] = 2
    examples = windows_of(0, tokens, (tokens == 2).astype(np.float32))
    scorer = WindowScorer(draw, LexicalJudge([f"w{token}" for token in range(SIZE)]), negatives, SPECIAL, 0)
    tasks = {name: Task(examples, "lexical", cues.write([Cue(name, None, 1.0, 0.9)])) for name in ("w2", "w7")}
    scores = {name: scored(scorer, task)[1]["score"] for name, task in tasks.items()}
    assert scores["w2"] > 0.9
    assert abs(scores["w7"] - 0.5) < 0.2
