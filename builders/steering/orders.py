"""Questions in several orders of their options, and options named by numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from string import digits

from builders.errors import UserError
from builders.steering.behaviours import OPTION, Pair, alphabet_of

BLANK_LINE = re.compile(r"\n[ \t]*\n")  # ends the last option


def in_both_orders(pairs: Sequence[Pair]) -> list[Pair]:
    """Return each of *pairs* as it is and with its two options exchanged, so that either letter is the matching one."""
    return [some for pair in pairs for some in (pair, exchanged(pair))]


def exchanged(pair: Pair) -> Pair:
    """Return *pair* with the texts of its two options exchanged; other options, and what stands around, stay where they are."""
    spans = sorted(_span(pair, letter) for letter in (pair.matching, pair.other))
    (begin, middle), (second, end) = spans
    text = pair.question
    turned = text[:begin] + text[second:end] + text[middle:second] + text[begin:middle] + text[end:]
    return replace(pair, question=turned, matching=pair.other, other=pair.matching)


def _span(pair: Pair, letter: str) -> tuple[int, int]:
    """Return where the text of option *letter* begins and ends in the question, white space around it left out."""
    options = list(OPTION.finditer(pair.question))
    place = max(place for place, option in enumerate(options) if option["letter"] == letter)
    begin = options[place].end() + 1  # after the bracket
    stop = options[place + 1].start() if place + 1 < len(options) else len(pair.question)
    text = BLANK_LINE.split(pair.question[begin:stop])[0]
    return begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())


def numbered(pair: Pair) -> Pair:
    """Return *pair* in the 1-2 format: its options (A), (B), … become (1), (2), … in the question and in both answers.

    Only options at the beginning of a line are renamed; an `(A)` within a line and lists with numbers stay as they are, and so does a pair
    that is numbered already. Raises UserError for an option after the ninth letter.
    """
    alphabet = alphabet_of(pair.matching)
    if alphabet == digits:
        return pair

    def number(letter: str) -> str:
        place = alphabet.index(letter) + 1
        if place > 9:
            raise UserError(f"{pair.place}: option ({letter}) would be ({place}), which is two digits; take the row out, or keep letters")
        return str(place)

    def renamed(option: re.Match[str]) -> str:
        return option["before"] + (number(option["letter"]) if option["letter"] in alphabet else option["letter"])

    return replace(pair, question=OPTION.sub(renamed, pair.question), matching=number(pair.matching), other=number(pair.other))


def numbers_of(pairs: Sequence[Pair]) -> list[int]:
    """Return the number of each pair's question, from 0: pairs of one place ask the same question, with its options in another order."""
    numbers = {place: number for number, place in enumerate(dict.fromkeys(pair.place for pair in pairs))}
    return [numbers[pair.place] for pair in pairs]


def count_of(pairs: Sequence[Pair]) -> int:
    """Return how many different questions *pairs* ask."""
    return len({pair.place for pair in pairs})
