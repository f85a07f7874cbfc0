"""Judges that are language models: what they are shown, in which batches, and whose answer is whose."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from asking import BYTES, MARKED, WORD, failing, fits, judge_of, lineup, oracle, questions, trials_of, verdicts_of
from contexts import windows_of
from forms import windows_in
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import scored
from prompting import rendered

from builders.engines import prompts, schemas
from builders.engines.prompts import Prompts
from builders.engines.requests import Answer, Chat, Failure, Outcome, Request, Token
from builders.engines.scripted import ScriptedEngine
from builders.scorers import chat, detection, fuzzing, intruder
from builders.scorers.answers import read
from builders.scorers.forms import FORMS
from builders.scorers.intruder import READERS, ModelFinder
from builders.scorers.judging import PROMPTS, Task
from builders.scorers.trials import Trials, WindowScorer
from pipelines.graph.closure import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

PLACES = ("tests/builders/scorers", "tests/support", "")
GOLDEN = Path(__file__).parent / "prompts"
WRITE = "INTERPLAKE_WRITE_GOLDEN"


def at(trials: Trials, order: npt.NDArray[np.int64]) -> Trials:
    """Return the trials in another order."""
    marks = None if trials.marks is None else trials.marks[order]
    return Trials(trials.latent, trials.number[order], trials.truth[order], trials.tokens[order], marks, trials.status[order])


def asked(name: str, explanation: str = WORD, seed: int = 0) -> Chat:
    """Return the first request of a kind of judge, in the form after its name or the free one."""
    kind, _, form = name.partition("-")
    if kind == "intruder":
        return ModelFinder(BYTES, form=form or "free").requests(lineup())[0]
    trials = trials_of(7, marked=kind == "fuzzing", seed=seed, latent=seed)
    return judge_of(form=form or "free").requests(explanation, trials)[0]


DETECTION, FUZZING, INTRUDER = (
    ("detection", "detection-list", "detection-single"),
    ("fuzzing", "fuzzing-list", "fuzzing-single"),
    ("intruder", "intruder-list"),
)
KINDS = (*DETECTION, *FUZZING, *INTRUDER)
SHOTS = PROMPTS.shots("judge.yaml")
FILES = sorted({name for form in (*FORMS.values(), *intruder.FORMS.values()) for name in form.files})


class TestPrompts:
    """The words."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_prompt_is_word_for_word_the_recorded_one(self, kind: str) -> None:
        """Every message of every kind of judge reads exactly as recorded."""
        text, path = rendered(asked(kind)), GOLDEN / f"{kind}.txt"
        if os.environ.get(WRITE) == "1":
            path.write_text(text, encoding="utf-8", newline="")
        assert path.exists(), f"{path.name} is not recorded; {WRITE}=1 pytest {Path(__file__).name} writes it"
        assert text == path.read_bytes().decode(), (
            f"the prompt has changed; if it should, {WRITE}=1 pytest {Path(__file__).name} records it"
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_turns_alternate_and_end_with_the_question(self, kind: str) -> None:
        """Guidelines come first, then the worked examples with their answers, three lists or fourteen windows, then the question."""
        turns = sum(len(shot["examples"]) for shot in SHOTS) if "single" in kind else 3
        assert [message.role for message in asked(kind).messages] == ["system", *["user", "assistant"] * turns, "user"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_questions_are_worded_like_the_worked_examples(self, kind: str) -> None:
        """Each turn of a user has an explanation, or none has, and then one text, or examples numbered from 1."""
        for message in asked(kind).messages:
            if message.role == "user":
                lines = [line.split(":")[0] for line in message.content.splitlines() if re.match(r"(Explanation|Text|Example \d+): ", line)]
                head = [] if kind in INTRUDER else ["Explanation"]
                shown = ["Text"] if "single" in kind else [f"Example {number}" for number in range(1, len(lines) + 1 - len(head))]
                assert lines == head + shown
                assert len(lines) > 2 or "single" in kind

    @pytest.mark.parametrize("kind", DETECTION)
    def test_detection_never_speaks_of_marks(self, kind: str) -> None:
        """Where nothing is marked, no prompt speaks of marks."""
        assert re.findall(r"mark|<<|>>|token", rendered(asked(kind)), re.I) == []

    @pytest.mark.parametrize("kind", [*FUZZING, *INTRUDER])
    def test_marks_are_explained_and_shown(self, kind: str) -> None:
        """Where tokens are marked, the guidelines say how, and every example has a mark."""
        first, *_, last = asked(kind).messages
        assert "between << and >>" in first.content
        assert all("<<" in line for line in last.content.splitlines() if line.startswith(("Example", "Text")))

    @pytest.mark.parametrize("kind", [*DETECTION, *FUZZING])
    def test_worked_answers_are_read_as_they_are_meant(self, kind: str) -> None:
        """Each worked answer has one entry for each of its examples; those of one explanation are all zeros, and of none all ones."""
        _, *turns, _ = asked(kind).messages
        told = []
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            texts = windows_in(question.content, quoted="-" in kind)
            told.append(read(answer.content, len(texts)))
        truths = [[example["right" if kind in FUZZING else "fires"] for example in shot["examples"]] for shot in SHOTS]
        assert told == ([[truth] for some in truths for truth in some] if "single" in kind else truths)
        assert [any(some) and not all(some) for some in truths] == [True, False, True]
        assert not any(truths[1])

    @pytest.mark.parametrize("kind", [*DETECTION, *FUZZING, *INTRUDER])
    def test_worked_answers_fit_the_schema(self, kind: str) -> None:
        """What worked examples answer is what the JSON schema of as many windows allows."""
        for question, answer in itertools.pairwise(asked(kind).messages[1:-1]):
            if answer.role == "assistant":
                form = (intruder.FORMS if kind in INTRUDER else FORMS)[kind.partition("-")[2] or "free"]
                n = len(windows_in(question.content, quoted=form.schema is not None))
                assert form.schema is None or schemas.fits(form.schema(n), json.loads(answer.content))

    @pytest.mark.parametrize("kind", INTRUDER)
    def test_worked_intruders_are_read_as_they_are_meant(self, kind: str) -> None:
        """Each worked answer names the slot of the intruder, another one each time."""
        answers = [message.content for message in asked(kind).messages if message.role == "assistant"]
        shots, reads = PROMPTS.shots("intruder.yaml"), READERS[kind.partition("-")[2] or "free"]
        told = [reads(Answer(text), len(shot["examples"])) for text, shot in zip(answers, shots, strict=True)]
        assert told == [shot["intruder"] for shot in shots]
        assert len(set(told)) == 3

    @pytest.mark.parametrize("text", [example["text"] for shot in SHOTS for example in shot["examples"]])
    def test_worked_examples_are_marked_like_real_ones(self, text: str) -> None:
        """Marks are balanced, hold something, keep the space before a word, and neighbours share one pair."""
        assert MARKED.findall(text)
        assert all(MARKED.findall(text))
        assert "<" not in MARKED.sub("", text)
        assert ">" not in MARKED.sub("", text)
        assert " <<" not in text
        assert ">><<" not in text

    def test_a_worked_example_is_right_only_where_it_fires(self) -> None:
        """Marked tokens that fit the explanation are something in the text that fits; and right marks are not all there are."""
        pairs = {(example["fires"], example["right"]) for shot in SHOTS for example in shot["examples"]}
        assert pairs == {(True, True), (True, False), (False, False)}

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("leftover", [r"\{\{|\}\}", r"\{%|%\}", r"\{\w+\}", r"\bNone\b(?![\n\"])", r"Ċ|Ġ|âĢ|<\|", r"\n{4,}", r"<<>>"])
    def test_no_template_shows_through(self, kind: str, leftover: str) -> None:
        """No braces, missing values, tokenizer alphabets, gaps or empty marks are left in the text."""
        assert re.findall(leftover, rendered(asked(kind))) == []

    @pytest.mark.parametrize("kind", [*DETECTION, *FUZZING])
    def test_all_but_the_last_turn_is_the_same_for_every_latent(self, kind: str) -> None:
        """Another latent and explanation change the last turn only, so that servers reuse what comes before."""
        mine, others = asked(kind), asked(kind, "w8", seed=5)
        assert mine.messages[:-1] == others.messages[:-1]
        assert mine.messages[-1] != others.messages[-1]

    @pytest.mark.parametrize("name", FILES)
    def test_the_version_changes_with_every_file(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An edit of a prompt's file, be it a space, is another version of the prompts made from it, and of no other."""

        def versions() -> list[str]:
            own = [judge_of(form=form).prompt_sha256 for form in FORMS]
            return own + [ModelFinder(BYTES, form=form).prompt_sha256 for form in intruder.FORMS]

        before = versions()
        for own in FILES:
            (tmp_path / own).write_bytes((PROMPTS.folder / own).read_bytes() + b" " * (own == name))
        monkeypatch.setattr(chat, "PROMPTS", Prompts(tmp_path))
        monkeypatch.setattr(intruder, "PROMPTS", Prompts(tmp_path))
        after = versions()
        prompts._sha256.cache_clear()
        uses = [name in form.files for form in (*FORMS.values(), *intruder.FORMS.values())]
        assert [old != new for old, new in zip(before, after, strict=True)] == uses

    def test_answers_are_not_left_to_chance(self) -> None:
        """Judges answer at temperature 0, within the tokens allowed, with alternatives only where they are read."""
        plain, probable = (judge_of(logprobs=on).requests(WORD, trials_of(3, marked=False))[0] for on in (False, True))
        assert (plain.temperature, plain.max_tokens, plain.top_logprobs, probable.top_logprobs) == (0.0, 77, 0, 5)
        assert (asked("intruder").temperature, asked("intruder").max_tokens) == (0.0, 100)
        assert {(request.temperature, request.top_logprobs) for request in map(asked, KINDS)} == {(0.0, 0)}


class TestBatches:
    """Which windows share a prompt."""

    @pytest.mark.parametrize("n", [0, 1, 4, 5, 7, 10, 101])
    @pytest.mark.parametrize("shown", [1, 5, 8])
    @pytest.mark.parametrize("marked", [False, True])
    @pytest.mark.parametrize("form", FORMS)
    def test_any_number_of_examples_works(self, n: int, shown: int, marked: bool, form: str) -> None:
        """Every example is shown once, as many at a time as asked for, the rest in a last, smaller batch; and all are answered."""
        judge, trials = judge_of(shown, form=form), trials_of(n, marked=marked)
        shown = 1 if form == "single" else shown
        texts = [text for request in judge.requests(WORD, trials) for text in questions(request)[1]]
        sizes = [len(questions(request)[1]) for request in judge.requests(WORD, trials)]
        found = verdicts_of(judge, trials)
        marks = trials.marks if trials.marks is not None else np.zeros((n, 6), dtype=bool)
        shown_as = [prompts.marked_text(tokens, mark, BYTES) for tokens, mark in zip(trials.tokens, marks, strict=True)]
        assert sizes == [shown] * (n // shown) + [n % shown] * (n % shown > 0)
        assert sorted(text.strip() for text in texts) == sorted(text.strip() for text in shown_as)
        assert found.status.tolist() == ["ok"] * n
        assert found.answer.tolist() == trials.truth.tolist()
        assert np.isnan(found.probability).all()

    @given(st.integers(1, 23), st.integers(1, 7), st.booleans(), st.integers(0, 100), st.sampled_from(sorted(FORMS)))
    @settings(max_examples=60)
    def test_the_order_of_examples_is_nothing(self, n: int, shown: int, marked: bool, order_seed: int, form: str) -> None:
        """In another order the same examples are asked about in the same words, and each gets the same verdict."""
        trials = trials_of(n, marked=marked)
        order = np.random.default_rng(order_seed).permutation(n)
        judge = judge_of(shown, form=form)
        assert judge.requests(WORD, at(trials, order)) == judge.requests(WORD, trials)
        assert verdicts_of(judge, at(trials, order)).answer.tolist() == verdicts_of(judge, trials).answer[order].tolist()

    @given(st.integers(1, 23), st.integers(1, 7), st.integers(0, 2**62), st.booleans())
    @settings(max_examples=60)
    def test_another_batch_is_nothing_to_an_oracle(self, n: int, shown: int, seed: int, marked: bool) -> None:
        """Whatever the batches, each example's answer is its own."""
        trials = trials_of(n, marked=marked)
        assert verdicts_of(judge_of(shown, seed), trials).answer.tolist() == trials.truth.tolist()

    def test_batches_are_drawn_by_latent_and_seed(self) -> None:
        """Another latent or seed has other batches; another explanation has the same."""
        trials = trials_of(20, marked=False)
        own = [batch.tolist() for batch in judge_of().batches(trials)]
        assert own != [batch.tolist() for batch in judge_of(seed=2).batches(trials)]
        assert own != [batch.tolist() for batch in judge_of().batches(replace(trials, latent=4))]
        pairs = zip(judge_of().requests("w7", trials), judge_of().requests("w8", trials), strict=True)
        assert all(questions(one)[1] == questions(other)[1] for one, other in pairs)
        assert own != [list(range(low, low + 5)) for low in range(0, 20, 5)]

    def test_positives_and_negatives_are_mixed(self) -> None:
        """Over many batches of five the share of positives varies as a random draw's does: about two thirds hold two or three."""
        trials = replace(trials_of(1000, marked=False), truth=np.arange(1000) < 500)
        counts = np.array([trials.truth[batch].sum() for batch in judge_of().batches(trials)])
        assert len(counts) == 200
        assert 0.5 < np.isin(counts, (2, 3)).mean() < 0.75

    def test_another_process_asks_the_same(self) -> None:
        """The requests of a process with another hash seed are the same, byte by byte."""
        script = "from test_judges import digest; print(digest())"
        told = [
            subprocess.run(
                [sys.executable, "-c", script],
                cwd=ROOT,
                env=os.environ
                | {
                    "PYTHONHASHSEED": seed,
                    "PYTHONPATH": os.pathsep.join(str(ROOT / place) for place in PLACES),
                },
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for seed in ("1", "2")
        ]
        assert told == [digest(), digest()]


def digest() -> str:
    """Return the hash of what is asked and answered about some trials."""
    trials = trials_of(23, marked=True)
    requests = judge_of().requests(WORD, trials)
    return hashlib.sha256(repr((requests, verdicts_of(judge_of(), trials).answer.tolist())).encode()).hexdigest()


class TestFailures:
    """Answers that are none."""

    @pytest.mark.parametrize(
        ("outcome", "status"),
        [
            (Failure("HTTP 500", "out of memory"), "HTTP 500"),
            (Answer("I cannot say."), "no list"),
            (Answer("[1, 0]"), "wrong number"),
            (Answer("[0, 0, 0, 0, 0] or [1, 1, 1, 1, 1]?"), "ambiguous"),
            (Answer("[1, 0, 0", "length"), "cut off"),
        ],
    )
    @pytest.mark.parametrize("form", ["free", "list"])
    def test_a_batch_fails_alone(self, outcome: Outcome, status: str, form: str) -> None:
        """The examples of a batch whose answer fails have its status and neither answer nor probability; nobody else's has."""
        trials, judge = trials_of(23, marked=False), judge_of(form=form)
        bad = judge.batches(trials)[1]
        first = questions(judge.requests(WORD, trials)[1])[1][0]
        found = verdicts_of(judge, trials, failing({first}, outcome))
        assert np.flatnonzero(found.status != "ok").tolist() == sorted(bad.tolist())
        assert set(found.status[bad].tolist()) == {status}
        assert np.isnan(found.answer[bad]).all()
        good = np.flatnonzero(found.status == "ok")
        assert found.answer[good].tolist() == trials.truth[good].tolist()
        assert found.reason

    def test_what_cannot_be_asked_is_not_asked(self) -> None:
        """Examples that cannot be judged keep their status, are shown to nobody, and shift nobody's answer."""
        trials = trials_of(13, marked=True, without=(0, 5, 12))
        found = verdicts_of(judge_of(), trials)
        assert sum(len(batch) for batch in judge_of().batches(trials)) == 10
        assert [place for place, status in enumerate(found.status) if status != "ok"] == [0, 5, 12]
        assert set(found.status[[0, 5, 12]].tolist()) == {"no marks fit"}
        assert np.isnan(found.answer[[0, 5, 12]]).all()
        assert found.answer[found.status == "ok"].tolist() == trials.truth[found.status == "ok"].tolist()

    def test_a_window_that_was_not_asked_about_says_so(self) -> None:
        """Where outcomes are missing the windows have a status, and no answer."""
        trials, judge = trials_of(7, marked=False), judge_of()
        found = judge.verdicts(WORD, trials, [oracle(judge.requests(WORD, trials)[0])])
        assert sorted(found.status.tolist()) == ["not asked"] * 2 + ["ok"] * 5
        assert np.isnan(found.answer).sum() == 2

    def test_a_missing_answer_is_no_half(self) -> None:
        """Where every answer fails there is no score, and no number in its place."""
        examples = windows_of(0, np.full((6, 4), 7, dtype=np.int32), np.eye(6, 4, dtype=np.float32))
        scorer = WindowScorer(detection.trials, judge_of(), "random", np.zeros(50, dtype=bool), 0)
        rows, record = scored(scorer, Task(examples, "x", WORD), ScriptedEngine(lambda _: Answer("no idea"), "s"))
        assert set(rows["status"].to_pylist()) == {"no list"}
        assert (record["status"], record["n"], record["n_failed"], record["score"], record["auroc"]) == ("no answers", 0, 6, None, None)


def chance_of(text: str) -> float:
    """Return how sure the scripted model is of a text: another number for each, above ½ where the word stands in it."""
    own = int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:4], "big") / 2**32
    return 0.51 + 0.48 * own if fits(WORD, text) else 0.49 * own + 0.001


def sure(request: Request) -> Answer:
    """Judge rightly, with the log-probabilities of each digit."""
    assert isinstance(request, Chat)
    assert request.top_logprobs == 5
    tokens = []
    for place, text in enumerate(questions(request)[1]):
        p = chance_of(text)
        tokens.append(Token(", " if place else "[", 0.0))
        tokens.append(Token(str(int(p > 0.5)), math.log(max(p, 1 - p)), (("1", math.log(p)), ("0", math.log(1 - p)))))
    whole = [*tokens, Token("]", 0.0)]
    if request.form is not None:  # the list stands in an object, and a digit alone
        whole = [Token('{"answers": ', 0.0), *whole, Token("}", 0.0)] if "answers" in request.form else tokens[1:]
    return Answer("".join(token.text for token in whole), tokens=tuple(whole))


class TestProbabilities:
    """How sure the judge is."""

    @pytest.mark.parametrize("marked", [False, True])
    @pytest.mark.parametrize("n", [1, 7, 23])
    @pytest.mark.parametrize("form", FORMS)
    def test_each_probability_goes_to_its_example(self, n: int, marked: bool, form: str) -> None:
        """Through the shuffle into batches, each example gets the probability of its own answer."""
        trials = trials_of(n, marked=marked)
        marks = np.zeros((n, 6), dtype=bool) if trials.marks is None else trials.marks
        texts = [prompts.marked_text(tokens, mark, BYTES) for tokens, mark in zip(trials.tokens, marks, strict=True)]
        found = verdicts_of(judge_of(logprobs=True, form=form), trials, sure)
        assert found.probability.tolist() == pytest.approx([chance_of(text) for text in texts])
        assert found.answer.tolist() == trials.truth.tolist()

    def test_answers_without_tokens_have_a_status(self) -> None:
        """Where log-probabilities were asked for and none came, the batch has no answer, for a reason of its own."""
        found = verdicts_of(judge_of(logprobs=True), trials_of(7, marked=False))
        assert found.status.tolist() == ["no log-probabilities"] * 7
        assert np.isnan(found.answer).all()
        assert "`logprobs`" in found.reason

    def test_a_probability_that_cannot_be_read_leaves_the_answer(self) -> None:
        """An answer in words has no probability but counts; then the latent has a score and no area."""

        def words(request: Request) -> Answer:
            said = [("yes" if fits(WORD, text) else "no") for text in questions(request)[1]]
            text = f"[{', '.join(said)}]"
            return Answer(text, tokens=(Token(text, -0.1, ((text, -0.1),)),))

        tokens = np.array([[7, 11], [12, 7], [13, 14], [15, 16]], dtype=np.int32)
        examples = windows_of(0, tokens, (tokens == 7).astype(np.float32))
        scorer = WindowScorer(detection.trials, judge_of(logprobs=True), "random", np.zeros(50, dtype=bool), 0)
        rows, record = scored(scorer, Task(examples, "x", WORD), ScriptedEngine(words, "s"))
        assert rows["answer"].to_pylist() == [True, True, False, False]
        assert rows["probability"].to_pylist() == [None] * 4
        assert (record["score"], record["auroc"], record["n_failed"]) == (1.0, None, 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("draw", "negatives"), [(detection.trials, "random"), (fuzzing.trials, "random"), (fuzzing.misplaced, "active")])
def test_the_whole_way(draw: Callable[..., Trials], negatives: str, form: str) -> None:
    """On a latent that fires on one word an oracle scores 1 with the right explanation and ½ with another, with what it cost."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(10, 50, (43, 8)).astype(np.int32)
    tokens[np.arange(21), rng.integers(0, 8, 21)] = 7
    examples = windows_of(0, tokens, (tokens == 7).astype(np.float32))
    judge = judge_of(form=form)
    scorer = WindowScorer(draw, judge, negatives, np.zeros(50, dtype=bool), 0)
    engine = ScriptedEngine(oracle, "an oracle")
    _, right = scored(scorer, Task(examples, "x", WORD), engine)
    _, wrong = scored(scorer, Task(examples, "x", "w99"), engine)
    batches = right["n"] if form == "single" else math.ceil(right["n"] / 5)
    assert (right["score"], wrong["score"], right["status"], right["n_failed"]) == (1.0, 0.5, "ok", 0)
    assert (right["model"], right["prompt_sha256"]) == ("an oracle", PROMPTS.sha256(FORMS[form].files))
    assert [right[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens")] == [10 * batches, 4 * batches, 2 * batches]
