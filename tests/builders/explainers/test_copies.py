"""Explanations that are those of a worked example: what counts as a copy, what is asked once more, and what stands in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prompting import KINDS, asked

from builders.engines.requests import Answer, Failure
from builders.explainers import chat, copies

if TYPE_CHECKING:
    from builders.engines.requests import Chat, Outcome

COMPARATIVE = "the ending -er of adjectives in the comparative, which compares sizes"
SPEECH = "nouns that name a place or thing at the very end of quoted speech, right before the closing quotation mark"


@pytest.mark.parametrize(
    ("text", "other", "copied"),
    [
        (COMPARATIVE, COMPARATIVE, True),
        ('  "The ending “-ER” of adjectives in the comparative – which compares sizes."', COMPARATIVE, True),
        ("the ending -er of adjectives in the comparative", COMPARATIVE, True),  # as a model of 1.5 B parameters wrote it
        (f"The marked tokens are {COMPARATIVE}.", COMPARATIVE, True),
        ("the ending -er of adjectives in comparative, which compares sizes", COMPARATIVE, True),  # a word less
        ("the ending -er of long adjectives in the comparative, which compares sizes", COMPARATIVE, True),  # a word more
        ("the ending -est of adjectives", COMPARATIVE, False),
        ("adjectives in the comparative", COMPARATIVE, True),
        ("adjectives in the superlative", COMPARATIVE, False),
        ("in the comparative", COMPARATIVE, False),  # three words in a row are no copy of eleven
        ("the word 'that' at the very end of a question or an exclamation", SPEECH, False),  # five words in a row of thirteen
        ("nouns that name a person", SPEECH, True),  # four of five words, so it is asked once more
        ("er", "er", True),
        ("ER.", "er", True),
        ("er, est", "er", False),
        ("way, area, box, house", "house, box, area, way", False),
        ("**", "er", False),
    ],
)
def test_a_copy_has_a_run_of_words_that_is_half_of_the_shorter_text(text: str, other: str, copied: bool) -> None:
    """Texts with equal words are copies, and those with four or more words in a row in common that are half of the shorter one."""
    assert (copies.copies(text, other), copies.copies(other, text)) == (copied, copied)


def shown(request: Chat) -> list[str]:
    """Return the explanations of the worked examples that a request shows."""
    told = [chat.read(Answer(message.content)) for message in request.messages if message.role == "assistant"]
    return [text for text in told if isinstance(text, str)]


def answer(*texts: str) -> Answer:
    """Return an answer that gives *texts* as one explanation, after some thought."""
    return Answer(f"1. Marked are some words.\n[EXPLANATION]: {', '.join(texts)}.")


def again(request: Chat, *texts: str) -> Chat:
    """Return what is asked once more because the answer was *texts*."""
    return copies.again([request], [answer(*texts)])[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1, 2])
class TestEveryKind:
    """Every kind of explainer, whichever worked example is copied."""

    def test_it_is_asked_once_more_without_that_example(self, kind: str, place: int) -> None:
        """Question and answer of the worked example that was copied are gone, and nothing else is changed."""
        request = replace(asked(kind), seed=17)
        first, low = request.messages, 1 + 2 * place
        assert again(request, shown(request)[place]) == replace(request, messages=first[:low] + first[low + 2 :])

    def test_the_same_text_without_the_example_is_the_model_s_own(self, kind: str, place: int) -> None:
        """A latent may be what the worked example is about: a text that is no longer shown is an explanation like any other."""
        request = asked(kind)
        text = shown(request)[place]
        assert copies.read(again(request, text), Answer(f"[EXPLANATION]: {text}")) == text

    def test_a_second_copy_is_a_failure(self, kind: str, place: int) -> None:
        """Who then copies another worked example has a status, and a reason that quotes it and says what to do."""
        request = asked(kind)
        other = shown(request)[place - 1]
        assert copies.read(again(request, shown(request)[place]), Answer(f"[EXPLANATION]: {other}")) == Failure(
            "copied",
            f'two answers in turn repeat worked examples of the prompt, the last one "{other}"; '
            "ask a larger model, or choose another `kind` of explainer",
        )


def test_two_examples_in_one_answer_are_both_left_out() -> None:
    """Where an answer repeats two worked examples, it is asked for once more with the third one alone."""
    request = asked("default")
    one, two, three = shown(request)
    assert shown(again(request, one, three)) == [two]


def test_only_copies_are_asked_once_more() -> None:
    """Own words, answers without an explanation, those cut off and failed requests are left as they are, in their places."""
    request = asked("default")
    outcomes: list[Outcome] = [
        Answer("[EXPLANATION]: words for cold"),
        Answer(f"[EXPLANATION]: {COMPARATIVE}"),
        Answer(COMPARATIVE),
        Answer(f"[EXPLANATION]: {COMPARATIVE}", "length"),
        Failure("HTTP 500", "out of memory"),
    ]
    told = [copies.read(request, outcome) for outcome in outcomes]

    assert list(copies.again([request] * 5, outcomes)) == [1]
    assert told[0] == "words for cold"
    assert [text.status for text in told if isinstance(text, Failure)] == ["copied", "no explanation", "cut off", "HTTP 500"]
