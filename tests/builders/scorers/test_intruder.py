"""The intruder scorer: which windows a lineup holds, what finders are shown of it, and what follows from their answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contexts import windows_of
from forms import windows_in
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import scored

from builders.contexts.contexts import strong
from builders.engines.requests import Answer, Chat, Failure, Outcome, Request
from builders.engines.scripted import ScriptedEngine
from builders.scorers import fuzzing
from builders.scorers.intruder import FORMS, Finder, IntruderScorer, LexicalFinder, ModelFinder, Picks
from builders.scorers.judging import Task
from builders.scorers.lineups import Lineups

if TYPE_CHECKING:
    from collections.abc import Callable

    from builders.contexts.contexts import Examples

SIZE, WINDOW = 400, 6
SPECIAL = np.arange(SIZE) == 0
BYTES = [f" w{token}".encode() for token in range(SIZE)]
FREE = ModelFinder(BYTES, form="free")


def latent_of(active: int, silent: int, quantiles: int = 3, seed: int = 0) -> Examples:
    """Return windows whose first token is their place; active ones fire on 1 + their quantile at one place, silent ones nowhere."""
    draw = np.random.default_rng(seed)
    n = active + silent
    tokens = draw.integers(200, SIZE, (n, WINDOW)).astype(np.int32)
    tokens[:, 0] = 100 + np.arange(n)
    quantile = np.sort(np.arange(active) % quantiles)
    activations = np.zeros(tokens.shape, dtype=np.float32)
    where = draw.integers(1, WINDOW, active)
    activations[np.arange(active), where] = 1.0
    tokens[np.arange(active), where] = 1 + quantile
    return windows_of(5, tokens, activations, np.arange(n) < active, quantile=np.concatenate([quantile, np.zeros(silent, dtype=np.int64)]))


def scorer_of(finder: Finder | None = None, trials: int = 20, shown: int = 5, negatives: str = "random", seed: int = 3) -> IntruderScorer:
    """Return an intruder scorer."""
    return IntruderScorer(finder or LexicalFinder(1), trials, shown, negatives, SPECIAL, seed)


def places(lineups: Lineups) -> list[list[int]]:
    """Return the places of each trial's windows, by their first token."""
    found: list[list[int]] = (lineups.tokens[:, :, 0] - 100).tolist()
    return found


shapes = {"active": st.integers(5, 12), "silent": st.integers(1, 6), "quantiles": st.integers(1, 4), "seed": st.integers(0, 99)}


class TestLineups:
    """Who stands in a trial."""

    @given(**shapes, shown=st.integers(3, 5))
    @settings(max_examples=80)
    def test_one_window_is_silent_and_stands_in_its_slot(self, active: int, silent: int, quantiles: int, seed: int, shown: int) -> None:
        """Each trial shows that many different windows, of which exactly the one in the slot is silent."""
        lineups = scorer_of(shown=shown, seed=seed).lineups(Task(latent_of(active, silent, quantiles)))
        assert lineups.status.tolist() == ["ok"] * 20
        for row, slot in zip(places(lineups), lineups.slot.tolist(), strict=True):
            assert len(set(row)) == shown
            assert [place >= active for place in row] == [number == slot for number in range(1, shown + 1)]

    @given(**shapes)
    @settings(max_examples=80)
    def test_the_others_are_of_one_quantile_or_the_nearest(self, active: int, silent: int, quantiles: int, seed: int) -> None:
        """A lineup holds the windows nearest to some quantile, and every quantile has its turns."""
        examples = latent_of(active, silent, quantiles)
        lineups = scorer_of(seed=seed).lineups(Task(examples))
        possible = np.unique(examples.quantile[:active])
        whole = []
        for row in places(lineups):
            group = examples.quantile[[place for place in row if place < active]]
            left = examples.quantile[[place for place in range(active) if place not in row]]
            fits = [q for q in possible if np.abs(group - q).max() <= np.abs(left - q).min(initial=99)]
            assert fits
            whole += fits if len(set(group.tolist())) == 1 else []
        if active >= 4 * quantiles:
            counts = np.bincount(whole, minlength=quantiles)
            assert counts.sum() == 20
            assert counts.max() - counts.min() <= 1

    @given(active=st.integers(6, 12), quantiles=st.integers(2, 4), seed=st.integers(0, 99), silent=st.integers(0, 2))
    @settings(max_examples=80)
    def test_an_internal_intruder_is_of_a_quantile_of_its_own(self, active: int, quantiles: int, seed: int, silent: int) -> None:
        """All windows are activating; the intruder's quantile is none of the others', and its marks are its own."""
        examples = latent_of(active, silent, quantiles)
        lineups = scorer_of(shown=3, negatives="internal", seed=seed).lineups(Task(examples))
        for row, slot, marks in zip(places(lineups), lineups.slot.tolist(), lineups.marks, strict=True):
            assert max(row) < active
            others = {int(examples.quantile[place]) for place in row if place != row[slot - 1]}
            assert int(examples.quantile[row[slot - 1]]) not in others
            assert np.array_equal(marks, strong(examples.activations[row]))

    def test_marks_are_those_of_fuzzing(self) -> None:
        """Activating windows mark where the latent fires, a neighbour's window where that does, others what they borrowed."""
        examples = latent_of(12, 4)
        neighbour = np.zeros(examples.tokens.shape, dtype=np.float32)
        neighbour[12:14, 2:4] = 1.0
        task = Task(replace(examples, neighbour=neighbour))
        scorer = scorer_of()
        expected = fuzzing.trials(task.examples, SPECIAL, scorer.seed).marks
        lineups = scorer.lineups(task)
        assert expected is not None
        assert np.array_equal(lineups.marks, expected[np.array(places(lineups))])
        assert set(np.array(places(lineups)).ravel().tolist()) >= {12, 13, 14, 15}
        assert lineups.marks.any(axis=2).all()

    def test_a_window_on_which_no_marks_fit_is_no_intruder(self) -> None:
        """A silent window that can have no marks is left out."""
        examples = latent_of(8, 3)
        examples.tokens[9, 1:] = 0  # special but for the first, on which no other window fires
        lineups = scorer_of().lineups(Task(examples))
        assert 9 not in np.array(places(lineups))
        assert lineups.status.tolist() == ["ok"] * 20

    @pytest.mark.parametrize(
        ("active", "silent", "quantiles", "negatives"),
        [
            (0, 9, 1, "random"),
            (3, 9, 1, "random"),
            (9, 0, 3, "random"),
            (9, 9, 1, "internal"),
            (4, 9, 2, "internal"),
            (9, 9, 3, "similar"),
            (0, 0, 1, "random"),
        ],
    )
    def test_too_few_windows_have_a_status(self, active: int, silent: int, quantiles: int, negatives: str) -> None:
        """Where there are too few windows nothing is asked, and the score has a status and no number."""
        task = Task(latent_of(active, silent, quantiles))
        finders: list[Finder] = [ModelFinder(BYTES), FREE, LexicalFinder(0)]
        for finder in finders:
            scorer = scorer_of(finder, negatives=negatives)
            rows, record = scored(scorer, task)
            assert list(scorer.requests(task)) == []
            assert rows["status"].to_pylist() == ["too few windows"] * 20
            assert rows["value"].to_pylist() == rows["answer"].to_pylist() == [None] * 20
            assert (record["status"], record["n"], record["n_failed"], record["score"]) == ("no answers", 0, 20, None)

    def test_slots_are_drawn_evenly(self) -> None:
        """Over 2000 trials each of five slots has the intruder about 400 times."""
        lineups = scorer_of(trials=2000).lineups(Task(latent_of(8, 3)))
        counts = np.bincount(lineups.slot, minlength=6)
        assert counts[0] == 0
        assert np.abs(counts[1:] - 400).max() < 75  # four standard deviations

    def test_trials_are_drawn_by_address(self) -> None:
        """The same seed and latent have the same trials whatever the order of the windows; another seed or latent has others."""
        examples = latent_of(9, 4)
        own = scorer_of().lineups(Task(examples))
        assert places(own) == places(scorer_of().lineups(Task(examples)))
        assert places(own) != places(scorer_of(seed=4).lineups(Task(examples)))
        assert places(own) != places(scorer_of().lineups(Task(replace(examples, latent=6))))
        turned = scorer_of().lineups(Task(examples.take(np.arange(13)[::-1])))
        assert (places(turned), turned.slot.tolist()) == (places(own), own.slot.tolist())

    def test_more_trials_hold_fewer(self) -> None:
        """The first trials of many are those of few."""
        few, many = (scorer_of(trials=trials).lineups(Task(latent_of(9, 4))) for trials in (5, 20))
        assert places(many)[:5] == places(few)
        assert many.slot[:5].tolist() == few.slot.tolist()


def lineups_of(ids: list[list[list[int]]]) -> Lineups:
    """Return trials in which these are the marked tokens, all of a window's after one that is not marked."""
    tokens = np.array([[[399, *window] for window in trial] for trial in ids], dtype=np.int32)
    marks = np.ones(tokens.shape, dtype=bool)
    marks[:, :, 0] = False
    n = len(tokens)
    return Lineups(5, tokens, marks, np.ones(n, dtype=np.int64), np.full(n, "ok"))


class TestLexical:
    """The finder that counts."""

    def test_the_window_least_like_the_others_is_named(self) -> None:
        """What shares no marked token with the others, or fewer than they do, is the intruder; unmarked tokens do not count."""
        picks = LexicalFinder(0).picks(
            lineups_of(
                [
                    [[1, 1], [1, 1], [2, 2], [1, 1]],
                    [[9, 8], [1, 2], [2, 3], [1, 3]],
                    [[1, 2], [1, 2], [1, 2], [1, 3]],
                    [[1, 2], [3, 1], [2, 3], [4, 1]],
                ]
            ),
            (),
        )
        assert picks.slot.tolist() == [3, 1, 4, 4]
        assert picks.status.tolist() == ["ok"] * 4

    @pytest.mark.parametrize("ids", [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5]])
    def test_ties_are_drawn(self, ids: list[int]) -> None:
        """Where all windows are equally alike each slot is named about as often, so that chance stays a fifth."""
        picks = LexicalFinder(7).picks(lineups_of([[[one] for one in ids]] * 2000), ())
        counts = np.bincount(picks.slot, minlength=6)
        assert counts[0] == 0
        assert np.abs(counts[1:] - 400).max() < 75

    def test_ties_do_not_know_the_slot(self) -> None:
        """On a latent whose windows have nothing in common the finder is right about as often as by chance."""
        examples = latent_of(12, 12)
        rng = np.random.default_rng(1)
        noise = replace(examples, tokens=rng.permutation(np.arange(1, 1 + 24 * WINDOW)).reshape(24, WINDOW).astype(np.int32))
        _, record = scored(scorer_of(trials=2000), Task(noise))
        assert record["chance"] == 0.2
        assert record["score"] == pytest.approx(0.2, abs=0.04)

    def test_a_clear_latent_is_found_out(self) -> None:
        """On a latent that fires on one token per quantile every intruder is found."""
        rows, record = scored(scorer_of(), Task(latent_of(12, 4)))
        assert (record["score"], record["n"], record["n_failed"], record["unit"], record["chance"]) == (1.0, 20, 0, "accuracy", 0.2)
        assert (record["accuracy"], record["n_positive"], record["prompt_sha256"], record["auroc"]) == (1.0, 20, None, None)
        assert rows["answer"].to_pylist() == [True] * 20


def sees(request: Request) -> Answer:
    """Find the intruder from the prompt's text alone: the window whose marked word stands in no other."""
    marked = [re.findall(r"<<(.*?)>>", text) for text in shown_in(request)]
    (odd,) = [number for number, words in enumerate(marked, 1) if sum(words == other for other in marked) == 1]
    return Answer(names(request, odd), prompt_tokens=10, cached_tokens=3, output_tokens=4)


def shown_in(request: Request) -> list[str]:
    """Return the windows that a request shows last."""
    assert isinstance(request, Chat)
    return windows_in(request.messages[-1].content, quoted=request.form is not None)


def names(request: Request, slot: int) -> str:
    """Return an answer that names a slot, in the form that the request asks for."""
    assert isinstance(request, Chat)
    return f"The others are alike.\n[RESPONSE]: {slot}" if request.form is None else json.dumps({"intruder": slot})


@dataclass
class Sometimes:
    """Answers each request in its turn: right, wrong, or not at all."""

    turns: list[Outcome | None]
    asked: int = 0

    def __call__(self, request: Request) -> Outcome:
        """Return the next of the turns; None stands for the right answer."""
        self.asked += 1
        return self.turns[(self.asked - 1) % len(self.turns)] or sees(request)


def named(lineups: Lineups, script: Callable[[Request], Outcome], finder: ModelFinder = FREE) -> Picks:
    """Return what a model finder names where *script* is the language model."""
    outcomes = [outcome for _, outcome in ScriptedEngine(script, "s").run(finder.requests(lineups))]
    return finder.picks(lineups, outcomes)


class TestModel:
    """The finder that asks."""

    @pytest.mark.parametrize("negatives", ["random", "internal"])
    @pytest.mark.parametrize("form", FORMS)
    def test_an_oracle_finds_every_intruder(self, negatives: str, form: str) -> None:
        """One that reads the prompt alone is always right; the rows tell the slot, the score what it cost."""
        task = Task(latent_of(12, 4))
        scorer = scorer_of(ModelFinder(BYTES, form=form), negatives=negatives)
        rows, record = scored(scorer, task, ScriptedEngine(sees, "an oracle"))
        assert rows["example"].to_pylist() == list(range(20))
        assert rows["truth"].to_pylist() == rows["answer"].to_pylist() == [True] * 20
        assert rows["value"].to_pylist() == scorer.lineups(task).slot.tolist()
        assert rows["probability"].to_pylist() == [None] * 20
        assert (record["score"], record["negatives"], record["model"], record["n"]) == (1.0, negatives, "an oracle", 20)
        assert [record[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens")] == [200, 60, 80]
        assert record["prompt_sha256"] == ModelFinder(BYTES, form=form).prompt_sha256

    @pytest.mark.parametrize("form", FORMS)
    def test_every_window_is_shown_with_its_marks(self, form: str) -> None:
        """The last turn has the trial's windows in order, each as its tokens with the marked ones between marks, and no more."""
        lineups = scorer_of().lineups(Task(latent_of(12, 4)))
        for trial, request in enumerate(ModelFinder(BYTES, form=form).requests(lineups)):
            texts = [text.strip() for text in shown_in(request)]
            bare = ["".join(f" w{token}" for token in window).strip() for window in lineups.tokens[trial].tolist()]
            assert [text.replace("<<", "").replace(">>", "").strip() for text in texts] == bare
            marked = [
                [f" w{token}" for token in tokens[marks]] for tokens, marks in zip(lineups.tokens[trial], lineups.marks[trial], strict=True)
            ]
            assert [re.findall(r"<<(.*?)>>", text) for text in texts] == marked

    def test_failures_are_never_wrong_answers(self) -> None:
        """Trials whose answer fails or cannot be read have a status each; the score is that of the others."""
        broken: list[Outcome | None] = [
            Failure("HTTP 500", "out of memory"),
            Answer("I cannot tell."),
            Answer("[RESPONSE]: 9"),
            Answer("[RESP", "length"),
        ]
        task = Task(latent_of(12, 4))
        rows, record = scored(scorer_of(FREE), task, ScriptedEngine(Sometimes([None, *broken]), "s"))
        assert rows["status"].to_pylist() == ["ok", "HTTP 500", "no response", "out of range", "cut off"] * 4
        assert rows["answer"].to_pylist() == [True, None, None, None, None] * 4
        assert [value is None for value in rows["value"].to_pylist()] == [False, True, True, True, True] * 4
        assert (record["score"], record["n"], record["n_failed"], record["status"]) == (1.0, 4, 16, "ok")
        assert (record["score_low"], record["score_high"]) == (4 / 20, 1.0)

    @pytest.mark.parametrize(
        ("text", "status"), [("I cannot tell.", "no response"), ('{"intruder": 9}', "out of range"), ("[RESPONSE]: 1", "no response")]
    )
    def test_an_answer_of_another_form_is_a_failure(self, text: str, status: str) -> None:
        """Where a server does not keep to the schema the trial has a status."""
        picks = named(scorer_of().lineups(Task(latent_of(12, 4))), lambda _: Answer(text), ModelFinder(BYTES))
        assert picks.status.tolist() == [status] * 20
        assert picks.slot.tolist() == [0] * 20

    def test_marks_are_those_that_no_window_holds(self) -> None:
        """Where a window of a lineup holds >>, all prompts about the latent have other marks; in the free form they keep theirs."""
        lineups = scorer_of().lineups(Task(latent_of(12, 4)))
        pieces = [*BYTES[:100], b" >>", *BYTES[101:]]  # the first token of the first window
        other, same = (ModelFinder(pieces, form=form).requests(lineups) for form in ("list", "free"))
        assert all("between ⟦ and ⟧" in request.messages[0].content for request in other)
        assert all(text.count("⟦") == text.count("⟧") == 1 for request in other for text in shown_in(request))
        assert all("<<" in message.content for request in same for message in request.messages if message.role != "assistant")

    def test_wrong_answers_count_as_such(self) -> None:
        """One who always names the first is right where the intruder stands first; what was named is told."""
        task, scorer = Task(latent_of(12, 4)), scorer_of(ModelFinder(BYTES))
        rows, record = scored(scorer, task, ScriptedEngine(lambda request: Answer(names(request, 1)), "s"))
        first = scorer.lineups(task).slot == 1
        assert rows["answer"].to_pylist() == first.tolist()
        assert rows["value"].to_pylist() == [1.0] * 20
        assert record["score"] == first.mean()

    def test_only_trials_that_can_be_judged_are_asked_about(self) -> None:
        """A trial with too few windows keeps its status, and the answers of the others stay theirs."""
        lineups = scorer_of().lineups(Task(latent_of(12, 4)))
        some = np.arange(20) % 3 == 0
        partly = replace(lineups, status=np.where(some, "too few windows", "ok"))
        picks = named(partly, sees)
        assert picks.status.tolist() == np.where(some, "too few windows", "ok").tolist()
        assert picks.slot.tolist() == np.where(some, 0, lineups.slot).tolist()

    def test_the_first_reason_is_told(self) -> None:
        """The reason is that of the first failure, in words."""
        picks = named(scorer_of().lineups(Task(latent_of(12, 4))), Sometimes([None, Answer("[RESPONSE]: 9"), Answer("no")]))
        assert picks.reason == "the answer is 9, but the examples are 1 to 5"
