"""Copies of a worked example: an answer that gives one's explanation is asked for once more without it; a second copy is a failure.

A latent may really be what a worked example is about, so no answer is refused for being like one: what a model says of a latent without
being shown the words is its own. See docs/science.md#explanations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from builders.engines.requests import Answer, Chat, Failure, Outcome
from builders.explainers import chat

COPIED = "copied"  # the status of a latent whose second answer is a copy too
RUN = 4  # words in a row, at least, that make a copy of texts that are not all alike
WORD = re.compile(r"\w+")


def copies(text: str, other: str) -> bool:
    """Return whether two explanations are all but the same: their words are equal, or a run of words is half of the shorter one.

    Such a run has at least RUN words. Case, punctuation and white space do not count.
    """
    mine, theirs = WORD.findall(text.casefold()), WORD.findall(other.casefold())
    run = SequenceMatcher(None, mine, theirs, autojunk=False).find_longest_match().size
    return mine == theirs or run >= max(RUN, min(len(mine), len(theirs)) / 2)


def again(requests: Sequence[Chat], outcomes: Sequence[Outcome]) -> dict[int, Chat]:
    """Return, by place, those *requests* whose outcome copies a worked example, without that example."""
    found = {}
    for place, (request, outcome) in enumerate(zip(requests, outcomes, strict=True)):
        copied = _copied(request, outcome)
        if copied:
            gone = {turn for answer in copied for turn in (answer - 1, answer)}
            left = tuple(message for turn, message in enumerate(request.messages) if turn not in gone)
            found[place] = replace(request, messages=left)
    return found


def read(request: Chat, outcome: Outcome) -> str | Failure:
    """Return the explanation in the *outcome* of the last request about a latent; a copy of an example that it shows is a failure."""
    copied = list(_copied(request, outcome).values())
    if copied:
        mend = "ask a larger model, or choose another `kind` of explainer"
        return Failure(COPIED, f'two answers in turn repeat worked examples of the prompt, the last one "{copied[0]}"; {mend}')
    return chat.read(outcome) if isinstance(outcome, Answer) else outcome


def _copied(request: Chat, outcome: Outcome) -> dict[int, str]:
    """Return the explanations of the worked examples that an *outcome* copies, by the turn in which *request* shows each."""
    told = chat.read(outcome) if isinstance(outcome, Answer) else outcome
    if isinstance(told, Failure):
        return {}
    return {turn: text for turn, text in _worked(request) if copies(told, text)}


def _worked(request: Chat) -> Iterator[tuple[int, str]]:
    """Yield the explanation of each worked example, with the turn in which it stands; the turn before it shows the windows."""
    for turn, message in enumerate(request.messages):
        text = chat.read(Answer(message.content)) if message.role == "assistant" else None
        if isinstance(text, str):
            yield turn, text
