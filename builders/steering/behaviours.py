"""Behaviours: questions with two options, one of which shows the behaviour.

Source: the data of contrastive activation addition (Rimsky et al. 2024); see docs/science.md#steering.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

from builders.errors import UserError, first_line, one_of

MATCHING, OTHER = "answer_matching_behavior", "answer_not_matching_behavior"  # the published files spell it so
ANSWER = re.compile(r"\s*\(([A-Za-z0-9])\)\s*")
OPTION = re.compile(r"^(?P<before>[ \t]*\()(?P<letter>[A-Za-z0-9])(?=\))", re.MULTILINE)
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell half an emoji, which no tokenizer takes


@dataclass(frozen=True)
class Pair:
    """A question with its lettered options, the letter of the option that matches the behaviour, and the letter of another option.

    A letter may be a digit. *place* says where the pair came from, for error messages; it is the same for all orders of one question's
    options. *said* is the part of the answer that stands before the letter.
    """

    question: str
    matching: str
    other: str
    place: str
    said: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a JSON file in the published format, in the file's order; a pair's place is the file and its position from 0.

    Raises UserError for a file that is no list of such objects, for answers that are not two different letters or digits in brackets, and
    for a question that does not offer each of them at the beginning of a line.
    """
    return [_pair(record, f"{path}[{row}]") for row, record in enumerate(_rows(path))]


def read_open(path: Path) -> list[str]:
    """Return the open-ended questions of a JSON file: a list of texts, or of objects with `question`.

    Raises UserError for a file that is no such list.
    """
    rows = enumerate(_rows(path))
    return [
        _whole(record, f"{path}[{row}]") if isinstance(record, str) else _text(record, "question", f"{path}[{row}]") for row, record in rows
    ]


def _rows(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; correct the path of this file of questions") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a JSON file of questions") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({first_line(error)}); give a JSON list of questions") from error
    if not isinstance(found, list):
        raise UserError(f"{path}: holds {type(found).__name__}, not a list; give a JSON list of questions")
    if not found:
        raise UserError(f"{path}: holds an empty list; give at least one question")
    return found


def _pair(record: Any, place: str) -> Pair:
    question = _text(record, "question", place)
    matching, other = (_letter(_text(record, key, place), key, place) for key in (MATCHING, OTHER))
    if matching == other:
        raise UserError(f"{place}: both answers are ({matching}); {OTHER} must name another option")
    if alphabet_of(matching) != alphabet_of(other):
        raise UserError(
            f"{place}: the answers ({matching}) and ({other}) are not of one kind; use capitals, small letters or digits in both"
        )
    offered = {option["letter"] for option in OPTION.finditer(question)}
    for letter in (matching, other):
        if letter not in offered:
            raise UserError(
                f"{place}: the question has no option ({letter}) at the beginning of a line; give each option a line of its own"
            )
    return Pair(question, matching, other, place)


def _text(record: Any, key: str, place: str) -> str:
    if not isinstance(record, dict):
        raise UserError(f"{place}: holds {type(record).__name__}, not an object; give an object with {key!r}")
    if key not in record:
        raise UserError(f"{place}: has no {key!r}; it has {one_of(record) or 'nothing'}; add it")
    if not isinstance(record[key], str):
        raise UserError(f"{place}: {key!r} holds {type(record[key]).__name__}, not text; put it in quotes")
    return _whole(record[key], place)


def _whole(text: str, place: str) -> str:
    if not text.strip():
        raise UserError(f"{place}: holds an empty text; fill it in, or take the row out")
    if half := HALF_CHARACTER.search(text):
        raise UserError(f"{place}: holds half a character ({half[0]!a} at {half.start()}); correct the text, or take the row out")
    return text


def _letter(answer: str, key: str, place: str) -> str:
    found = ANSWER.fullmatch(answer)
    if found is None:
        raise UserError(f"{place}: {key!r} is {answer[:40]!r}; give one letter or digit in brackets, such as '(A)'")
    return found[1]


def alphabet_of(letter: str) -> str:
    """Return the alphabet of *letter*: capitals, small letters or digits, in the order in which options are named."""
    return next(letters for letters in (ascii_uppercase, ascii_lowercase, digits) if letter in letters)
