"""Reading a judge's answers: yes or no for each example, and the probability of yes.

Answers are read strictly. An answer that is unclear is a failure: nothing is shifted, padded or guessed.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builders.arrays import Floats
from builders.engines.requests import Answer, Failure, Token
from builders.scorers.judging import nans

VALUES = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}
EDGES = string.whitespace + "\u00a0\u3000" + "\"'`*“”„‘’«»"  # characters that may stand around an entry
BRACKETS = re.compile(r"\[([^\[\]]*)\]")
LABELLED = re.compile(r'[\s>*•"-]*(?:example|text)?\s*(\d{1,4})["*]*(?::|[.)](?=\s))[\s"*]*(\w+)[\s"*,.]*', re.IGNORECASE)
# Words that introduce the final answer, where earlier lists are drafts. The surest words come first.
MARKERS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"\b(?:final(?:ly)?|corrected|revised)\b", r"\b(?:answer|response|output|result)s?\b\W{0,4}(?::|\b(?:is|are)\b)")
]
RESPONSE = re.compile(r"\[RESPONSE\]", re.IGNORECASE)
NUMBER = re.compile(r"[\s*_`]*:[\s*_`\"'\[(]*(?:example\s+)?(\d{1,4})[ \t*_`\"'\]).]*(?:\r?\n|$)", re.IGNORECASE)
THOUGHT = "</think>"  # the end of what a model thinks before it answers


@dataclass(frozen=True)
class Entry:
    """One yes or no, and the place in the answer where its word begins."""

    yes: bool
    at: int


Entries = list[Entry]


def read(text: str, n: int) -> list[bool] | Failure:
    """Return the *n* answers in *text*, or a failure where it has no list of exactly *n* answers, or several that disagree."""
    found = find(text, n)
    return found if isinstance(found, Failure) else [entry.yes for entry in found]


def find(text: str, n: int) -> Entries | Failure:
    """Return what :func:`read` returns, each answer with its place in *text*."""
    low, high = _spoken(text)
    said = text[low:high]
    lists = _in_brackets(said) if "[" in said else _on_lines(said, n)
    whole = [entries for entries in lists if len(entries) == n]
    if not lists:
        return Failure("no list", f"the answer holds no list of zeros and ones (it begins {said.strip()[:60]!r})")
    if not whole:
        return Failure("wrong number", f"the answer has {len(lists[-1])} entries for {n} examples")
    last = _final(whole, said)
    if last is None:
        return Failure("ambiguous", f"the answer has {len(whole)} lists that disagree, and does not say which is final")
    return [Entry(entry.yes, low + entry.at) for entry in last]


def _spoken(text: str) -> tuple[int, int]:
    """Return where the answer begins and ends in *text*: a model's thinking, between think tags, is not part of the answer."""
    thought = text.rfind(THOUGHT)
    low = thought + len(THOUGHT) if thought >= 0 else 0
    high = text.find("<think>", low)
    return low, high if high >= 0 else len(text)


def _entries(text: str, start: int) -> Entries:
    """Return the entries of *text*, which begins at *start* of the answer; none unless all of *text* is one list."""
    parts = re.split("[,，]", text)
    if len(parts) > 1 and not parts[-1].strip():
        parts.pop()
    entries = []
    for part in parts:
        word = part.strip(EDGES)
        if word.lower() not in VALUES:
            return []
        entries.append(Entry(VALUES[word.lower()], start + part.index(word)))
        start += len(part) + 1
    return entries


def _in_brackets(text: str) -> list[Entries]:
    found = (_entries(match[1], match.start(1)) for match in BRACKETS.finditer(text))
    return [entries for entries in found if entries]


def _on_lines(text: str, n: int) -> list[Entries]:
    """Return lists that fill a line, and lists with one numbered entry per line, such as `Example 2: yes`."""
    lists: list[Entries] = []
    labelled: list[list[tuple[int, Entry]]] = []
    start = 0
    for line in text.splitlines(keepends=True):
        entries = _entries(line, start)
        if len(entries) > 1 or (entries and n == 1):
            lists.append(entries)
        match = LABELLED.fullmatch(line)
        if match and match[2].lower() in VALUES:
            label = int(match[1])
            if label == 1 or not labelled:
                labelled.append([])
            labelled[-1].append((label, Entry(VALUES[match[2].lower()], start + match.start(2))))
        start += len(line)
    if any([label for label, _ in run] != list(range(1, len(run) + 1)) for run in labelled):
        return lists  # some number is missing, double or out of order
    return lists + [[entry for _, entry in run] for run in labelled]


def _final(lists: list[Entries], text: str) -> Entries | None:
    """Return the last of *lists* where all agree, else where all after one of MARKERS agree; None where they disagree."""
    for start in [0, *(mark.end() for marker in MARKERS if (mark := marker.search(text)))]:
        later = [entries for entries in lists if entries[0].at >= start]
        if later and len({tuple(entry.yes for entry in entries) for entries in later}) == 1:
            return later[-1]
    return None


def answered(answer: Answer, n: int) -> list[bool] | Failure:
    """Return a judge's answers to *n* examples. Of an answer that was cut off, only a list that is its whole first line counts."""
    if answer.finish != "length":
        return read(answer.text, n)
    first, broken, _ = answer.text.strip().partition("\n")
    entries = _entries(first.strip()[1:-1], 0) if broken and BRACKETS.fullmatch(first.strip()) else []
    return [entry.yes for entry in entries] if len(entries) == n else cut_off(answer)


def cut_off(answer: Answer) -> Failure:
    """Return the failure of an answer that ran out of tokens."""
    return Failure("cut off", f"the answer was cut off after {answer.output_tokens} tokens; raise the judge's `max_tokens`")


def probabilities(tokens: Sequence[Token], answers: Sequence[bool]) -> Floats:
    """Return P(1) / (P(0) + P(1)) at the digit of each of *answers* [n], read from the answer's *tokens*.

    NaN where no token holds that digit alone, as with yes and no in words.
    """
    found = find("".join(token.text for token in tokens), len(answers))
    if isinstance(found, Failure) or [entry.yes for entry in found] != list(answers):
        return nans(len(answers))
    ends = np.cumsum([len(token.text) for token in tokens])
    places = np.searchsorted(ends, [entry.at for entry in found], side="right").tolist()
    return np.array([_yes(tokens[p], e.at - int(ends[p]) + len(tokens[p].text)) for p, e in zip(places, found, strict=True)])


def _yes(token: Token, at: int) -> float:
    """Return the probability of 1 rather than 0 at character *at* of a token.

    Only alternatives count that have the same characters before *at*.
    """
    if not _one_digit(token.text, at):
        return math.nan
    weights = {"0": 0.0, "1": 0.0}
    for text, logprob in token.top:
        if text[:at] == token.text[:at] and _one_digit(text, at):
            weights[text[at]] += math.exp(logprob)
    total = sum(weights.values())
    return weights["1"] / total if total else math.nan


def _one_digit(text: str, at: int) -> bool:
    return text[at : at + 1] in ("0", "1") and not any(letter.isalnum() for letter in text[:at] + text[at + 1 :])


def responded(answer: Answer, shown: int) -> int | Failure:
    """Return the number from 1 to *shown* after the last [RESPONSE] of an answer, or a failure where there is none."""
    if answer.finish == "length":
        return cut_off(answer)
    low, high = _spoken(answer.text)
    said = answer.text[low:high]
    marks = list(RESPONSE.finditer(said))
    number = NUMBER.match(said, marks[-1].end()) if marks else None
    if number is None:
        return Failure("no response", f"the answer has no line `[RESPONSE]: number` (it begins {said.strip()[:60]!r})")
    if not 1 <= int(number[1]) <= shown:
        return Failure("out of range", f"the answer is {number[1]}, but the examples are 1 to {shown}")
    return int(number[1])


def numbered(answer: Answer, shown: int) -> int | Failure:
    """Return the number from 1 to *shown* in an answer such as `{"intruder": 3}`, or a failure where it is none."""
    if answer.finish == "length":
        return cut_off(answer)
    low, high = _spoken(answer.text)
    said = answer.text[low:high].strip()
    try:
        number = json.loads(said)["intruder"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return Failure("no response", f'the answer is no `{{"intruder": number}}` (it begins {said[:60]!r})')
    if type(number) is not int or not 1 <= number <= shown:
        return Failure("out of range", f"the answer is {str(number)[:20]}, but the examples are 1 to {shown}")
    return number
