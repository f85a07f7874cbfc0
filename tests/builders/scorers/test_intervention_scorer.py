"""The intervention scorer: what a judge is asked about passages, and the nats that follow from its log-probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from contexts import windows_of
from hypothesis import given
from hypothesis import strategies as st

from builders.engines.requests import Answer, Failure, Outcome, Request, Score, Token
from builders.engines.scripted import ScriptedEngine
from builders.interventions.generations import Passages
from builders.scorers.intervention import InterventionScorer, prompt
from builders.scorers.judgements import JUDGEMENTS, SCORES, Identity, judgement_rows, score_record
from builders.scorers.judging import Judged, Task

TEXT = "numbers, in digits"
OWN = Passages(np.arange(3), "ok", 0.9, ["one clean", "two clean", "three clean"], ["one 7", "two 7", "three 7"], [])
BESIDE = replace(OWN, random=["one odd", "two odd", "three odd"])  # with passages of a random direction
WHO = Identity("toy", 3, "lexical", "intervention", "none", "llama")


def task(explanation: str = TEXT, latent: int = 3) -> Task:
    """Return an explanation with windows that this scorer does not look at."""
    return Task(windows_of(latent, np.zeros((2, 4), dtype=np.int32), np.ones((2, 4), dtype=np.float32)), "lexical", explanation)


def said(*logprobs: float, text: str = TEXT) -> Answer:
    """Return an answer in which the explanation's characters come in as many tokens as there are *logprobs*."""
    cuts = [len(text) * place // len(logprobs) for place in range(len(logprobs) + 1)]
    pieces = [text[low:high] for low, high in pairwise(cuts)]
    return Answer(text, tokens=tuple(Token(piece, value) for piece, value in zip(pieces, logprobs, strict=True)), prompt_tokens=10)


def judged(outcomes: list[Outcome], own: Passages = OWN) -> Judged:
    """Return what follows from *outcomes*, whose rows fit their tables."""
    scorer = InterventionScorer({3: own})
    found = scorer.judged(task(), outcomes)
    JUDGEMENTS.validate(judgement_rows([(WHO, found)]))
    SCORES.validate(SCORES.rows([score_record(WHO, scorer, found, "llama", outcomes)]))
    return found


class TestRequests:
    """What is asked."""

    def test_the_explanation_is_asked_for_after_every_passage(self) -> None:
        """First after the clean passages, then after the pushed and the random ones, in order of the beginnings."""
        asked = InterventionScorer({3: BESIDE}).requests(task())
        assert [request.prompt for request in asked] == [prompt(passage) for passage in [*OWN.clean, *OWN.pushed, *BESIDE.random]]

    def test_only_the_explanation_is_scored(self) -> None:
        """The prompt ends with an open quotation mark, and the continuation is the explanation without one, on one line."""
        asked = InterventionScorer({3: OWN}).requests(task("numbers,\n in digits "))
        assert {request.continuation for request in asked} == {TEXT}
        assert all(request.prompt.endswith(' "') for request in asked)

    def test_prompts_differ_in_the_passage_alone(self) -> None:
        """What stands before the passage is the same for all latents, and most of the prompt; the passage is there as it is."""
        passages = ["x = {{ y }}\n\n  {% if %}", "<b>&amp;</b> 日本"]
        first, second = (prompt(passage) for passage in passages)
        before, after = first.split(passages[0])
        assert second == before + passages[1] + after
        assert len(before) > 300

    def test_every_worked_example_reads_like_the_question(self) -> None:
        """Each worked example has the sentence that is asked to be completed, with its quotation marks closed."""
        last = prompt("").splitlines()[-1]
        lines = [line for line in prompt("").splitlines() if line.startswith(last)]
        assert len(lines) == 5
        assert all(line.endswith('"') and line.count('"') == 2 for line in lines[:-1])

    @pytest.mark.parametrize("status", ["out of reach", "not finite"])
    def test_nothing_is_asked_where_the_push_missed(self, status: str) -> None:
        """A latent that was not pushed as asked costs no request."""
        assert InterventionScorer({3: replace(OWN, status=status)}).requests(task()) == []

    def test_the_prompt_has_a_version(self) -> None:
        """The hash is that of the prompt's files."""
        assert len(InterventionScorer({}).prompt_sha256) == 64


class TestScore:
    """What follows from the answers."""

    def test_a_score_by_hand(self) -> None:
        """Surprisals 4, 6, 5 cleanly and 3, 4, 2 pushed: drops 1, 2, 3 nats; their mean is 2, its error 1/√3."""
        clean, pushed = [said(-1, -3), said(-6), said(-2, -2, -1)], [said(-1, -2), said(-4), said(-1, -0.5, -0.5)]
        found = judged([*clean, *pushed])
        assert found.value.tolist() == pytest.approx([1, 2, 3])
        assert found.measures["score"] == pytest.approx(2)
        assert found.measures["score_se"] == pytest.approx(1 / math.sqrt(3))
        assert (found.measures["status"], found.measures["kl"]) == ("ok", 0.9)
        assert (found.number.tolist(), found.truth.tolist(), found.status.tolist()) == ([0, 1, 2], [True] * 3, ["ok"] * 3)
        assert np.isnan(found.answer).all()
        assert np.isnan(found.probability).all()

    @given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=3, max_size=3))
    def test_the_score_is_the_mean_drop(self, pairs: list[tuple[float, float]]) -> None:
        """For any log-probabilities the score is the mean of pushed less clean, and swapping the two turns its sign."""
        clean, pushed = ([said(value) for value in side] for side in zip(*pairs, strict=True))
        there, back = judged([*clean, *pushed]), judged([*pushed, *clean])
        drops = np.array([after - before for before, after in pairs])
        assert there.measures["score"] == pytest.approx(drops.mean(), abs=1e-9)
        assert there.measures["score_se"] == pytest.approx(drops.std(ddof=1) / math.sqrt(3), abs=1e-9)
        assert back.measures["score"] == pytest.approx(-drops.mean(), abs=1e-9)

    def test_passages_that_are_the_same_score_nothing(self) -> None:
        """Where the push changed no text the drop is exactly 0: the chance level."""
        own = replace(OWN, pushed=OWN.clean)
        scorer = InterventionScorer({3: own})
        engine = ScriptedEngine(length_judge, "length")
        found = scorer.judged(task(), [outcome for _, outcome in engine.run(scorer.requests(task()))])
        assert found.value.tolist() == [0, 0, 0]
        assert (found.measures["score"], scorer.chance, scorer.unit, scorer.negatives) == (0, 0, "nats", "none")

    def test_a_judge_that_reads_the_passage_tells_right_from_wrong(self) -> None:
        """A judge to whom an explanation is likelier after its own word scores the right one above the wrong one's 0."""
        scorer = InterventionScorer({3: OWN})
        engine = ScriptedEngine(word_judge, "words")
        scores = {}
        for explanation in ("7", "cheese"):
            outcomes = [outcome for _, outcome in engine.run(scorer.requests(task(explanation)))]
            scores[explanation] = scorer.judged(task(explanation), outcomes).measures["score"]
        assert scores == {"7": pytest.approx(4), "cheese": 0}


class TestNull:
    """What follows where a random direction was pushed too."""

    def test_a_null_by_hand(self) -> None:
        """Surprisals 4, 6, 5 cleanly, 3, 4, 2 pushed and 3, 6, 5 at random: the null is 1, 0, 0, and the score is 0, 2, 3 above it."""
        outcomes = [said(-value) for value in (4, 6, 5, 3, 4, 2, 3, 6, 5)]
        found = judged(outcomes, BESIDE)
        assert found.value.tolist() == [1, 2, 3]
        assert found.null_value.tolist() == [1, 0, 0]
        names = ("score", "score_se", "null_score", "null_score_se", "over_null", "over_null_se")
        expected = (2, 1 / math.sqrt(3), 1 / 3, 1 / 3, 5 / 3, math.sqrt(7) / 3)
        assert [found.measures[name] for name in names] == pytest.approx(expected)

    @given(st.lists(st.tuples(*[st.floats(-50, 0)] * 3), min_size=3, max_size=3))
    def test_the_clean_passages_cancel(self, triples: list[tuple[float, float, float]]) -> None:
        """The difference is the score less the null's, and its error that of pushed less random, whatever the clean passages are."""
        clean, pushed, random = ([said(value) for value in side] for side in zip(*triples, strict=True))
        measures = judged([*clean, *pushed, *random], BESIDE).measures
        apart = np.array([after - other for _, after, other in triples])
        assert measures["over_null"] == pytest.approx(measures["score"] - measures["null_score"], abs=1e-9)
        assert measures["over_null"] == pytest.approx(apart.mean(), abs=1e-9)
        assert measures["over_null_se"] == pytest.approx(apart.std(ddof=1) / math.sqrt(3), abs=1e-9)

    def test_a_direction_that_does_what_any_does_is_not_above_its_null(self) -> None:
        """Where both pushes write the same texts, the null takes the whole score away."""
        own = replace(BESIDE, random=OWN.pushed)
        scorer = InterventionScorer({3: own})
        outcomes = [outcome for _, outcome in ScriptedEngine(word_judge, "words").run(scorer.requests(task("7")))]
        measures = scorer.judged(task("7"), outcomes).measures
        assert (measures["score"], measures["null_score"], measures["over_null"]) == (pytest.approx(4), pytest.approx(4), 0)

    def test_without_random_passages_there_is_no_null(self) -> None:
        """Where no random direction was pushed as asked, or the latent was silenced, the null is null and the score stays."""
        found = judged([said(-4)] * 3 + [said(-3)] * 3)
        assert np.isnan(found.null_value).all()
        record = score_record(WHO, InterventionScorer({3: OWN}), found, "llama", [])
        assert (record["score"], record["null_score"], record["over_null"]) == (1, None, None)

    @pytest.mark.parametrize("side", [0, 3, 6])
    def test_a_prompt_counts_if_all_its_passages_have_an_answer(self, side: int) -> None:
        """Score, null and difference are over the same prompts."""
        outcomes: list[Outcome] = [said(-value) for value in (4, 6, 5, 3, 4, 2, 3, 6, 5)]
        outcomes[side + 1] = Failure("unreachable", "nobody there")
        found = judged(outcomes, BESIDE)
        assert found.status.tolist() == ["ok", "unreachable", "ok"]
        assert np.isnan([found.value[1], found.null_value[1]]).all()
        assert [found.measures[name] for name in ("score", "null_score", "over_null")] == [2, 0.5, 1.5]


def length_judge(request: Request) -> Outcome:
    """Score a text by the length of its prompt."""
    assert isinstance(request, Score)
    return said(-len(request.prompt) / 100, text=request.continuation)


def word_judge(request: Request) -> Outcome:
    """Give the explanation 4 nats more where the passage before it holds it."""
    assert isinstance(request, Score)
    passage = request.prompt.splitlines()[-2]
    return said(-1.0 if request.continuation in passage else -5.0, text=request.continuation)


class TestFailures:
    """What has no answer."""

    def test_a_failed_request_takes_its_pair_away(self) -> None:
        """A beginning of which either passage has no answer is no value; the score is that of the others."""
        lost = Failure("unreachable", "nobody there")
        found = judged([said(-4), lost, said(-5), said(-3), said(-4), said(-2)])
        assert found.status.tolist() == ["ok", "unreachable", "ok"]
        assert found.value[[0, 2]].tolist() == pytest.approx([1, 3])
        assert math.isnan(found.value[1])
        assert (found.measures["score"], found.measures["score_se"]) == (pytest.approx(2), pytest.approx(1))

    @pytest.mark.parametrize("side", [0, 3])
    def test_an_answer_without_log_probabilities_is_a_failure(self, side: int) -> None:
        """An engine that tells none gives no value, whichever passage it is."""
        outcomes: list[Outcome] = [said(-4)] * 6
        outcomes[side] = Answer(TEXT)
        found = judged(outcomes)
        assert found.status.tolist() == ["no log-probabilities", "ok", "ok"]
        assert found.measures["status"] == "ok"

    def test_no_answer_at_all_is_no_score(self) -> None:
        """Where all fail there is no score, and the KL is still told."""
        found = judged([Answer(TEXT)] * 6)
        assert found.measures == {"status": "no answers", "kl": 0.9}

    def test_a_push_out_of_reach_has_no_score(self) -> None:
        """The status is that of the generations, for the score and each beginning; the KL reached is told."""
        found = judged([], replace(OWN, status="out of reach", kl=0.02))
        assert found.measures == {"status": "out of reach", "kl": 0.02}
        assert found.status.tolist() == ["out of reach"] * 3
        assert np.isnan(found.value).all()

    def test_a_latent_without_a_direction_has_no_score(self) -> None:
        """A rule over text was never pushed: no request, no judgement, and a score's row that says so."""
        scorer = InterventionScorer({})
        assert scorer.requests(task()) == []
        found = scorer.judged(task(), [])
        assert judgement_rows([(WHO, found)]).num_rows == 0
        record = score_record(WHO, scorer, found, "llama", [])
        SCORES.validate(SCORES.rows([record]))
        assert (record["status"], record["score"], record["kl"], record["n"]) == ("no direction", None, None, 0)
