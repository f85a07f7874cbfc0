"""Planted latents: rules over text, each with its true explanation in words. They are the ground truth that calibrates scorers.

A rule is a regular expression over the bytes of a token row. A token's activation is the share of its bytes that lie in
a match, so no model is needed to know what fires. Besides the truth, each rule has one explanation that is too broad and
one that is too narrow, each with the pattern that it describes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.saes.activations import Firings, in_order
from builders.text.rows import padded


@dataclass(frozen=True)
class Meaning:
    """An explanation in words, and the *pattern* that it describes: group 1 of a match, or the whole match if it has no group."""

    words: str
    pattern: str

    def spans(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield the (start, end) of every place in *text* to which the meaning applies, in bytes."""
        for match in re.finditer(self.pattern.encode(), text):
            yield match.span(match.re.groups)


@dataclass(frozen=True)
class Rule:
    """A planted latent: its true meaning, one that is too broad, and one that is too narrow."""

    truth: Meaning
    broad: Meaning
    narrow: Meaning


def _rule(truth: tuple[str, str], broad: tuple[str, str], narrow: tuple[str, str]) -> Rule:
    return Rule(Meaning(*truth), Meaning(*broad), Meaning(*narrow))


RULES = (
    _rule(
        ("decimal digits", r"[0-9]+"),
        ("letters, digits and underscores", r"\w+"),
        ("the digit 3", r"3"),
    ),
    _rule(
        ("the name right after the keyword def", r"\bdef\s+(\w+)"),
        ("names followed by an opening round bracket", r"(\w+)\("),
        ("names that begin with two underscores right after the keyword def", r"\bdef\s+(__\w+)"),
    ),
    _rule(
        ("text inside round brackets", r"\(([^()\n]+)\)"),
        ("text inside or after any bracket", r"[(\[{]([^\n]+)"),
        ("numbers inside round brackets", r"\(([0-9., ]+)\)"),
    ),
    _rule(
        ("the words int, float, complex and bool", r"\b(?:int|float|complex|bool)\b"),
        ("words for kinds of values: types, strings, lists, numbers", r"\b(?:int|float|complex|bool|str\w*|list\w*|number\w*|type\w*)\b"),
        ("the word float", r"\bfloat\b"),
    ),
    _rule(
        ("the phrase of the", r"\bof the\b"),
        ("the word of and the word the, anywhere", r"\b(?:of|the)\b"),
        ("the phrase of the after the word one", r"\bone (of the)\b"),
    ),
    _rule(
        ("the full stop of a sentence that begins with If", r"\bIf\s[^.]*(\.)"),
        ("full stops", r"\."),
        ("the full stop of a sentence that begins with If the", r"\bIf the\s[^.]*(\.)"),
    ),
    _rule(
        ("words of two or more letters all in capitals", r"\b[A-Z]{2,}\b"),
        ("words that begin with a capital letter", r"\b[A-Z]\w*"),
        ("the words HTTP, URL, ASCII and UTF", r"\b(?:HTTP|URL|ASCII|UTF)\b"),
    ),
    _rule(
        ("names that begin and end with two underscores", r"\b__\w+__\b"),
        ("names that hold an underscore", r"\b\w*_\w*\b"),
        ("the name __init__", r"\b__init__\b"),
    ),
    _rule(
        ("text between double quotation marks", r'"([^"\n]+)"'),
        ("text after any quotation mark", r"[\"'`]([^\n]+)"),
        ("a single word in lower case between double quotation marks", r'"([a-z]+)"'),
    ),
    _rule(
        ("words that end in ing", r"\b\w+ing\b"),
        ("words of six or more letters", r"\b[a-z]{6,}\b"),
        ("words that end in ting", r"\b\w+ting\b"),
    ),
    _rule(
        ("the words and and or", r"\b(?:and|or)\b"),
        ("words of two or three letters", r"\b[a-z]{2,3}\b"),
        ("the word or between two quoted words", r"\" (or) \""),
    ),
    _rule(
        ("the words not, no, never and cannot", r"\b(?:not|no|never|cannot)\b"),
        ("words that begin with n or c", r"\b[nc]\w*"),
        ("the word never", r"\bnever\b"),
    ),
    _rule(
        ("names right after a dot", r"\w\.(\w+)"),
        ("names next to any punctuation", r"[^\w\s](\w+)"),
        ("names right after a dot and before an opening round bracket", r"\w\.(\w+)\("),
    ),
    _rule(
        ("commas", r","),
        ("punctuation", r"[^\w\s]"),
        ("commas before the word and", r"(,) and\b"),
    ),
    _rule(
        ("the first word of a line", r"\n[ \t]*(\w+)"),
        ("words after white space", r"\s(\w+)"),
        ("the first word of a line that is indented by four or more spaces", r"\n {4,}(\w+)"),
    ),
    _rule(
        ("the verbs can, may, must, should, will and would", r"\b(?:can|may|must|should|will|would)\b"),
        ("words of three to six letters", r"\b[a-z]{3,6}\b"),
        ("the word must", r"\bmust\b"),
    ),
)


def fired(meaning: Meaning, ids: npt.NDArray[np.int32], pieces: list[bytes]) -> npt.NDArray[np.float32]:
    """Return the activation [n] of *meaning* on a row's token *ids* [n]; *pieces* holds the bytes of each token id."""
    lengths = np.array([len(pieces[token]) for token in ids], dtype=np.int64)
    ends = np.cumsum(lengths)
    inside = np.zeros(int(ends[-1]) + 1 if len(ends) else 1, dtype=np.int64)
    for start, end in meaning.spans(b"".join(pieces[token] for token in ids)):
        inside[start:end] = 1
    matched = np.concatenate([[0], np.cumsum(inside)])
    shares: npt.NDArray[np.float32] = ((matched[ends] - matched[ends - lengths]) / np.maximum(lengths, 1)).astype(np.float32)
    return shares


@dataclass(frozen=True)
class Planted:
    """All rules as one dictionary that reads tokens; *pieces* holds the bytes of each token id, empty for special tokens."""

    pieces: list[bytes]

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(RULES)

    @property
    def truths(self) -> list[str]:
        """The true explanation of each latent."""
        return [rule.truth.words for rule in RULES]

    @property
    def rounding(self) -> float:
        """Zero: a value that is computed again is exactly the same."""
        return 0.0

    def firings(self, rows: pa.Table) -> Firings:
        """Return the firings of TOKENS *rows*."""
        ids, lengths = padded(rows, "ids", 0), np.diff(rows["ids"].combine_chunks().offsets.to_numpy())
        columns: list[list[npt.NDArray[np.generic]]] = [[], [], [], []]
        for place, number in enumerate(rows["row"].to_numpy()):
            row = ids[place, : lengths[place]]
            for latent, rule in enumerate(RULES):
                values = fired(rule.truth, row, self.pieces)
                positions = np.flatnonzero(values)
                parts: tuple[npt.NDArray[Any], ...] = (
                    np.full(len(positions), latent),
                    np.full(len(positions), number),
                    positions,
                    values[positions],
                )
                for column, part, kind in zip(columns, parts, (np.int32, np.int32, np.int32, np.float32), strict=True):
                    column.append(part.astype(kind))
        return in_order(*(np.concatenate(column) for column in columns))

    def effects(self) -> None:
        """Return None: a rule writes nothing into a model."""
