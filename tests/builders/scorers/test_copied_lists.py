"""Answers of judges that are the list of a worked example: what is asked once more, what stands, and what is a failure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from asking import WORD, failing, judge_of, oracle, questions, schema, trials_of
from forms import written

from builders.engines.requests import Answer, Chat, Failure, Outcome, Request, Token
from builders.scorers.answers import read
from builders.scorers.judging import PROMPTS

if TYPE_CHECKING:
    from builders.scorers.chat import ModelJudge
    from builders.scorers.trials import Trials, Verdicts

Script = Callable[[Request], Outcome]
SHOTS = PROMPTS.shots("judge.yaml")


def lists_of(*, marked: bool) -> list[list[int]]:
    """Return the answers of the worked examples: of the three, the first and the last hold zeros and ones, the second zeros only."""
    return [[int(example["right" if marked else "fires"]) for example in shot["examples"]] for shot in SHOTS]


def shown(request: Request) -> list[list[bool]]:
    """Return the lists of the worked examples that a request shows."""
    assert isinstance(request, Chat)
    turns = [message.content for message in request.messages if message.role == "assistant"]
    told = [read(text, n) for text in turns for n in (4, 5)]
    return [answers for answers in told if not isinstance(answers, Failure)]


def says(request: Request, answers: Sequence[int]) -> Answer:
    """Answer with a list, in the form that is asked for."""
    return Answer(written(schema(request), list(answers)))


def parrot(request: Request) -> Outcome:
    """Repeat the first worked example of as many windows, and judge rightly where there is none."""
    n = len(questions(request)[1])
    fitting = [answers for answers in shown(request) if len(answers) == n]
    return says(request, [int(yes) for yes in fitting[0]]) if fitting else oracle(request)


def once(request: Request) -> Outcome:
    """Repeat the first worked example where all are shown, and else judge rightly."""
    return parrot(request) if len(shown(request)) == len(SHOTS) else oracle(request)


def rounds_of(judge: ModelJudge, trials: Trials, script: Script) -> tuple[list[list[Request]], Verdicts]:
    """Return what is asked, round by round until nothing is asked again, and the verdicts."""
    rounds: list[list[Request]] = []
    outcomes: list[Outcome] = []
    requests = judge.requests(WORD, trials)
    while requests:
        rounds.append(list(requests))
        outcomes += [script(request) for request in requests]
        requests = judge.again(WORD, trials, outcomes)
    return rounds, judge.verdicts(WORD, trials, outcomes)


def sizes(rounds: list[list[Request]]) -> list[list[int]]:
    """Return how many windows each request shows."""
    return [[len(questions(request)[1]) for request in some] for some in rounds]


def like(pattern: Sequence[int], *, marked: bool) -> Trials:
    """Return as many trials as *pattern* is long, in the order in which they are shown their truth is that of *pattern*."""
    drawn, n = trials_of(100, marked=marked), len(pattern)
    (shown,) = judge_of(n).batches(trials_of(n, marked=marked))
    truth = dict(zip(shown.tolist(), pattern, strict=True))
    places = np.array([np.flatnonzero(drawn.truth == truth[place])[place] for place in range(n)])
    marks = None if drawn.marks is None else drawn.marks[places]
    whole = replace(drawn, truth=drawn.truth[places], tokens=drawn.tokens[places], marks=marks, status=drawn.status[places])
    return replace(whole, number=trials_of(n, marked=marked).number)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("form", ["free", "list"])
class TestLists:
    """Both forms with lists, for detection and fuzzing."""

    def test_a_copied_list_is_asked_for_once_more_without_its_example(self, form: str, marked: bool) -> None:
        """The second request lacks that example's turns and is else the first; what comes then stands, and no window is lost."""
        trials, judge = trials_of(7, marked=marked), judge_of(form=form)
        (first, second), found = rounds_of(judge, trials, once)
        asked = first[0]
        assert isinstance(asked, Chat)

        assert sizes([first, second]) == [[5, 2], [5]]
        assert second == [replace(asked, messages=(asked.messages[0], *asked.messages[3:]))]
        assert (found.status.tolist(), found.answer.tolist()) == (["ok"] * 7, trials.truth.tolist())

    def test_a_second_copy_is_a_failure(self, form: str, marked: bool) -> None:
        """Who then repeats another example's list is asked no more, not in parts either: the windows have a status and no answer."""
        trials, judge = trials_of(7, marked=marked), judge_of(form=form)
        rounds, found = rounds_of(judge, trials, parrot)
        lost = judge.batches(trials)[0]
        lists = lists_of(marked=marked)

        assert sizes(rounds) == [[5, 2], [5]]
        assert found.status[lost].tolist() == ["copied"] * 5
        assert np.isnan(found.answer[lost]).all()
        assert [status for place, status in enumerate(found.status) if place not in lost] == ["ok"] * 2
        assert found.reason == (
            f"two answers in turn repeat the lists of worked examples, {lists[0]} and then {lists[2]}; "
            "choose a larger model, or set the judge's `form` to `single`"
        )

    @pytest.mark.parametrize("place", [0, 2])
    def test_a_true_list_stands(self, form: str, marked: bool, place: int) -> None:
        """Where the truth is the list of a worked example, a judge that is right says it twice, and it counts."""
        trials = like(lists_of(marked=marked)[place], marked=marked)
        rounds, found = rounds_of(judge_of(form=form), trials, oracle)

        assert sizes(rounds) == [[5], [5]]
        assert (found.status.tolist(), found.answer.tolist()) == (["ok"] * 5, trials.truth.tolist())

    def test_other_lists_are_asked_for_once(self, form: str, marked: bool) -> None:
        """A list that no worked example has is not asked for again, nor is one of another length."""
        lists = lists_of(marked=marked)
        others = ([1, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], lists[0][:4], [*lists[0], 0])
        for answers in (some for some in others if some not in lists):
            n = len(answers)
            rounds, _ = rounds_of(judge_of(n, form=form), trials_of(n, marked=marked), repeating(answers))
            assert sizes(rounds) == [[n]]

    def test_what_cannot_be_read_the_second_time_is_asked_in_parts(self, form: str, marked: bool) -> None:
        """A second answer without a list is like a first: three and two windows follow, with all worked examples."""
        trials, judge = trials_of(7, marked=marked), judge_of(form=form)

        def mumbles(request: Request) -> Outcome:
            return Answer("Hm.") if len(shown(request)) < len(SHOTS) else once(request)

        rounds, found = rounds_of(judge, trials, mumbles)
        assert sizes(rounds) == [[5, 2], [5], [3, 2]]
        assert {len(shown(request)) for request in rounds[2]} == {len(SHOTS)}
        assert (found.status.tolist(), found.answer.tolist()) == (["ok"] * 7, trials.truth.tolist())

    def test_a_second_request_that_fails_leaves_no_answer(self, form: str, marked: bool) -> None:
        """The first answer may be a copy, so it does not count where the second question was not answered."""
        trials, judge = trials_of(7, marked=marked), judge_of(form=form)
        gone = Failure("HTTP 500", "out of memory")
        rounds, found = rounds_of(judge, trials, lambda request: gone if len(shown(request)) < len(SHOTS) else once(request))
        lost = judge.batches(trials)[0]

        assert sizes(rounds) == [[5, 2], [5]]
        assert (set(found.status[lost].tolist()), found.reason) == ({"HTTP 500"}, "out of memory")
        assert np.isnan(found.answer[lost]).all()

    def test_zeros_are_no_copy(self, form: str, marked: bool) -> None:
        """A worked example has four zeros, but zeros are often the truth: they are not asked for once more."""
        trials = trials_of(9, marked=marked)

        def zeros(request: Request) -> Outcome:
            return says(request, [0] * len(questions(request)[1]))

        assert sizes(rounds_of(judge_of(5, form=form), trials, zeros)[0]) == [[5, 4]]
        assert sizes(rounds_of(judge_of(4, form=form), trials, zeros)[0]) == [[4, 4, 1]]

    def test_copies_among_halves_are_seen(self, form: str, marked: bool) -> None:
        """Where ten windows are asked about again as five and five, each half is one that may be copied."""
        trials = trials_of(10, marked=marked)

        def few(request: Request) -> Outcome:
            return once(request) if len(questions(request)[1]) <= 5 else Answer("Hm.")

        rounds, found = rounds_of(judge_of(10, form=form), trials, few)

        assert sizes(rounds) == [[10], [5, 5], [5, 5]]
        assert found.answer.tolist() == trials.truth.tolist()


def repeating(answers: Sequence[int]) -> Script:
    """Return a script that says the same list whatever is asked."""
    return lambda request: says(request, answers)


def test_one_window_is_never_copied() -> None:
    """One digit tells nothing: in the form of single windows none is asked about twice."""
    rounds, _ = rounds_of(judge_of(form="single"), trials_of(7, marked=True), repeating([1]))
    assert sizes(rounds) == [[1] * 7]


def test_the_probabilities_are_those_of_the_answer_that_stands() -> None:
    """After a second answer its log-probabilities count, not those of the first."""

    def sure(request: Request) -> Outcome:
        told, p = (lists_of(marked=False)[0], 0.9) if len(shown(request)) == len(SHOTS) else ([0, 1, 0, 1, 0], 0.25)
        text, top = written(schema(request), told), (("1", math.log(p)), ("0", math.log(1 - p)))
        return Answer(text, tokens=tuple(Token(letter, -0.1, top if letter in "01" else ()) for letter in text))

    trials, judge = trials_of(5, marked=False), judge_of(logprobs=True, form="list")
    rounds, found = rounds_of(judge, trials, sure)
    assert sizes(rounds) == [[5], [5]]
    assert found.answer[judge.batches(trials)[0]].tolist() == [0, 1, 0, 1, 0]
    assert found.probability.tolist() == pytest.approx([0.25] * 5)


@pytest.mark.parametrize("marked", [False, True])
def test_what_a_right_judge_costs_more(marked: bool) -> None:
    """Two of the 32 lists of five are those of worked examples: about one prompt in sixteen is asked once more where half fire."""
    trials = trials_of(4000, marked=marked)
    rounds, found = rounds_of(judge_of(form="list"), trials, oracle)
    first, second = sizes(rounds)
    assert len(second) / len(first) == pytest.approx(2 / 32, abs=4 * (2 / 32 / len(first)) ** 0.5)
    assert found.answer.tolist() == trials.truth.tolist()


def test_a_failure_elsewhere_is_not_asked_once_more() -> None:
    """A batch that fails next to one that is copied keeps its own status."""
    trials, judge = trials_of(10, marked=False), judge_of(form="list")
    bad = questions(judge.requests(WORD, trials)[1])[1][0]
    fails = failing({bad}, Failure("time-out", "no answer in time"))
    rounds, found = rounds_of(judge, trials, lambda request: fails(request) if bad in questions(request)[1] else once(request))
    assert sizes(rounds) == [[5, 5], [5]]
    assert sorted(found.status.tolist()) == ["ok"] * 5 + ["time-out"] * 5
