"""Forms of judging: what the engine is told about answers, windows that hold what prompts are made of, and what is asked again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from asking import BYTES, PIECES, WORD, failing, judge_of, lineup, oracle, questions, schema, trials_of
from clients import engine_of
from forms import schema_of, windows_in, written
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_server import Body, Reply, chat, serving

from builders.engines import prompts
from builders.engines.requests import Answer, Failure, Outcome, Request
from builders.scorers.forms import FORMS
from builders.scorers.intruder import ModelFinder
from builders.scorers.trials import Trials, Verdicts
from builders.text.vocabulary import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builders.scorers.chat import ModelJudge


def rounds_of(judge: ModelJudge, trials: Trials, script: Callable[[Request], Outcome]) -> tuple[list[list[int]], Verdicts]:
    """Return how many windows each request shows, round by round until nothing is asked again, and the verdicts."""
    outcomes: list[Outcome] = []
    sizes = []
    requests: Sequence[Request] = judge.requests(WORD, trials)
    while requests:
        sizes.append([len(questions(request)[1]) for request in requests])
        outcomes += [script(request) for request in requests]
        requests = judge.again(WORD, trials, outcomes)
    return sizes, judge.verdicts(WORD, trials, outcomes)


UNREADABLE = {
    "no list": Answer("I cannot say."),
    "wrong number": Answer("[1, 0, 1, 0, 1, 0, 1, 0]"),
    "cut off": Answer("[1, 0, 0", "length"),
    "too long": Failure("too long", "the prompt has 9000 tokens"),
    "empty": Failure("empty", "the model answered without text"),
}


class TestAgain:
    """What is asked again, and in which parts."""

    @pytest.mark.parametrize("status", UNREADABLE)
    @pytest.mark.parametrize("form", ["free", "list"])
    def test_halves_and_then_single_windows(self, status: str, form: str) -> None:
        """Where only single windows are answered, five are asked about as five, as three and two, and one by one; nothing is lost."""
        trials, judge = trials_of(10, marked=True), judge_of(form=form)
        sizes, found = rounds_of(judge, trials, lambda request: alone(request, UNREADABLE[status]))
        assert sizes == [[5, 5], [3, 2, 3, 2], [1] * 10]
        assert found.status.tolist() == ["ok"] * 10
        assert found.answer.tolist() == trials.truth.tolist()
        assert found.reason == ""

    @pytest.mark.parametrize("form", ["free", "list"])
    def test_only_the_part_that_fails_is_asked_again(self, form: str) -> None:
        """One window that no answer is about costs four requests more, and is the only one without an answer."""
        trials, judge = trials_of(10, marked=False), judge_of(form=form)
        bad = int(judge.batches(trials)[1][4])
        text = "".join(PIECES[token] for token in trials.tokens[bad])
        sizes, found = rounds_of(judge, trials, failing({text}, Answer("Hm.")))
        assert sizes == [[5, 5], [3, 2], [1, 1]]
        assert np.flatnonzero(found.status != "ok").tolist() == [bad]
        assert (found.status[bad], "no list" in found.reason or "holds no list" in found.reason) == ("no list", True)

    @pytest.mark.parametrize("shown", [1, 2, 3, 8])
    def test_the_smallest_batches_are_single_windows(self, shown: int) -> None:
        """A single window is not asked about twice, two are asked about singly at once, and nothing is asked for ever."""
        sizes, found = rounds_of(judge_of(shown), trials_of(8, marked=False), lambda _: Answer("Hm."))
        assert sizes == {1: [[1] * 8], 2: [[2] * 4, [1] * 8], 3: [[3, 3, 2], [2, 1, 2, 1, 1, 1], [1] * 4], 8: [[8], [4, 4], [1] * 8]}[shown]
        assert set(found.status.tolist()) == {"no list"}

    @pytest.mark.parametrize("failure", [Failure("HTTP 500", "out of memory"), Failure("time-out", "no answer in time")])
    def test_a_broken_server_is_not_asked_more(self, failure: Failure) -> None:
        """A request that failed for another reason than what it shows is not made in parts."""
        assert rounds_of(judge_of(), trials_of(10, marked=False), lambda _: failure)[0] == [[5, 5]]

    def test_missing_log_probabilities_are_not_asked_for_again(self) -> None:
        """An engine that gives none gives none in parts either."""
        assert rounds_of(judge_of(logprobs=True), trials_of(10, marked=False), oracle)[0] == [[5, 5]]

    def test_single_windows_need_no_second_round(self) -> None:
        """In the form of single windows each is asked about once."""
        assert rounds_of(judge_of(form="single"), trials_of(7, marked=True), lambda _: Answer("Hm."))[0] == [[1] * 7]


def alone(request: Request, otherwise: Outcome) -> Outcome:
    """Judge rightly where one window is shown alone."""
    return oracle(request) if len(questions(request)[1]) == 1 else otherwise


# Tokens that could be taken for a prompt's own lines, quotes or marks.
ODD = [
    b"\n",
    b"\n\nExample 2: ",
    b'"',
    b"\\",
    b"<<",
    b">>",
    b"<",
    b"\nAnswer: [1, 1]",
    b"\xe2\x80\xa8",
    b"\x00",
    b"\xc3",
    b" \xe2\x9f\xa6",
    b"Text: ",
]


class TestOddTexts:
    """Windows that hold what prompts are made of."""

    @given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["list", "single"]))
    @settings(max_examples=100)
    def test_every_window_is_read_back(self, seed: int, marked: bool, form: str) -> None:
        """Whatever a window holds, each is read back from the prompt, in its place, with its own marks and no other."""
        draw = np.random.default_rng(seed)
        tokens = draw.integers(0, len(ODD), (11, 6)).astype(np.int32)
        marks = draw.random(tokens.shape) < 0.4 if marked else None
        trials = Trials(3, np.arange(11), np.arange(11) < 5, tokens, marks, np.full(11, "ok"))
        judge = judge_of(form=form, pieces=ODD)
        plain = [text_of(window, ODD) for window in tokens]
        shown = []
        for request, batch in zip(judge.requests("odd things", trials), judge.batches(trials), strict=True):
            texts = questions(request)[1]
            assert len(texts) == len(batch)
            between = re.search(r"stand between (\S+) and (\S+)\.", request.messages[0].content)
            assert (between is not None) == marked
            for place, text in zip(batch.tolist(), texts, strict=True):
                before, after = (between[1], between[2]) if between else ("<<", ">>")
                assert not between or not any(mark in "\n".join(plain) for mark in (before, after))
                assert text == prompts.marked_text(
                    tokens[place], np.zeros(6, bool) if marks is None else marks[place], ODD, (before, after)
                )
            shown += batch.tolist()
        assert sorted(shown) == list(range(11))

    @pytest.mark.parametrize("marked", [False, True])
    @pytest.mark.parametrize("form", ["list", "single"])
    def test_no_window_is_lost_over_http(self, marked: bool, form: str) -> None:
        """A server that keeps to the schema answers about every window, whatever stands in it, and each answer is its own window's."""
        draw = np.random.default_rng(0)
        tokens = draw.integers(0, len(ODD), (23, 6)).astype(np.int32)
        marks = draw.random(tokens.shape) < 0.4 if marked else None
        trials = Trials(3, np.arange(23), np.arange(23) < 9, tokens, marks, np.full(23, "ok"))

        def breaks(body: Body, _: int) -> Reply:
            texts = windows_in(body["messages"][-1]["content"], quoted=True)
            return chat(written(schema_of(body), [int("\n" in text) for text in texts]))

        judge = judge_of(form=form, pieces=ODD)
        with serving(breaks) as server:
            outcomes = dict(engine_of(server).run(judge.requests("line breaks", trials)))
        found = judge.verdicts("line breaks", trials, [outcomes[place] for place in sorted(outcomes)])
        assert all(schema_of(body) is not None for body in server.bodies)
        assert found.status.tolist() == ["ok"] * 23
        assert found.answer.tolist() == ["\n" in text_of(window, ODD) for window in tokens]

    def test_marks_are_one_pair_for_all_of_a_latent_s_prompts(self) -> None:
        """Where one window holds <<, every prompt about the latent, guidelines and worked examples too, has the other marks."""
        trials = trials_of(11, marked=True)
        odd = replace(trials, tokens=np.where(np.arange(11)[:, None] == 4, 0, trials.tokens))
        pieces = [b" <<", *BYTES[1:]]
        requests = judge_of(form="list", pieces=pieces).requests(WORD, odd)
        assert len(requests) == 3
        for request in requests:
            *before, last = [message.content for message in request.messages]
            assert "stand between ⟦ and ⟧." in before[0]
            assert not any(mark in text for text in before for mark in ("<<", ">>"))
            assert all(text.count("⟦") > 0 for text in before[1::2])
            assert last.count("⟦") == last.count("⟧") == len(questions(request)[1])

    def test_an_explanation_keeps_to_its_line(self) -> None:
        """Line breaks in an explanation become spaces where the answer has a schema."""
        told = {form: judge_of(form=form).requests("one\n\nExample 1: two", trials_of(3, marked=False))[0] for form in FORMS}
        starts = {form: request.messages[-1].content.split("\n")[0] for form, request in told.items()}
        assert starts == {
            "list": "Explanation: one Example 1: two",
            "single": "Explanation: one Example 1: two",
            "free": "Explanation: one",
        }


class TestSchemas:
    """What the engine is told about the answer."""

    @pytest.mark.parametrize("shown", [1, 5, 40])
    def test_a_list_has_exactly_as_many_digits_as_windows(self, shown: int) -> None:
        """The schema allows zeros and ones, one for each window of its own request, and there is room for all of them."""
        for request in judge_of(shown, form="list").requests(WORD, trials_of(43, marked=False)):
            n = len(questions(request)[1])
            (answers,) = schema(request)["properties"].values()
            assert answers == {"type": "array", "items": {"type": "integer", "enum": [0, 1]}, "minItems": n, "maxItems": n}
            assert request.max_tokens == max(77, 16 + 8 * n)

    def test_a_single_digit_is_one_of_two(self) -> None:
        """One window is answered by 0 or 1, in few tokens."""
        (request,) = judge_of(form="single").requests(WORD, trials_of(1, marked=False))
        assert (schema(request), request.max_tokens) == ({"type": "integer", "enum": [0, 1]}, 8)

    def test_an_intruder_is_one_of_those_shown(self) -> None:
        """A lineup of three is answered by 1, 2 or 3."""
        (request,) = ModelFinder(BYTES).requests(lineup())
        assert schema(request)["properties"] == {"intruder": {"type": "integer", "enum": [1, 2, 3]}}

    def test_free_text_has_no_schema(self) -> None:
        """In the free form nothing is said about the answer but in words."""
        requests = [*judge_of().requests(WORD, trials_of(7, marked=True)), *ModelFinder(BYTES, form="free").requests(lineup())]
        assert [schema(request) for request in requests] == [None] * 3
