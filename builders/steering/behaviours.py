"""Behaviours: questions with two options, one of which shows the behaviour.

Source: the data of contrastive activation addition (Rimsky et al. 2024); see docs/science.md#steering.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.errors import UserError, first_line, one_of
from builders.seeds import drawn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MATCHING, OTHER = "answer_matching_behavior", "answer_not_matching_behavior"  # the published files spell it so
HOLE = "{question}"
ANSWER = re.compile(r"\s*\(([A-Za-z0-9])\)\s*")
OPTION = re.compile(r"^(?P<before>[ \t]*\()(?P<letter>[A-Za-z0-9])(?=\))", re.MULTILINE)
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell half an emoji, which no tokenizer takes
SHOWN = 8  # at most so many tokens are shown in an error


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


@dataclass(frozen=True)
class Prompt:
    """The token ids of a question in its template, up to just before the answer's letter, and the token ids of both letters."""

    ids: tuple[int, ...]
    matching: int
    other: int
    question: str


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
    if _alphabet(matching) != _alphabet(other):
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


def _alphabet(letter: str) -> str:
    """Return the alphabet of *letter*: capitals, small letters or digits, in the order in which options are named."""
    return next(letters for letters in (ascii_uppercase, ascii_lowercase, digits) if letter in letters)


def numbered(pair: Pair) -> Pair:
    """Return *pair* in the 1-2 format: its options (A), (B), … become (1), (2), … in the question and in both answers.

    Only options at the beginning of a line are renamed; an `(A)` within a line and lists with numbers stay as they are, and so does a pair
    that is numbered already. Raises UserError for an option after the ninth letter.
    """
    alphabet = _alphabet(pair.matching)
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


def prompts(pairs: Sequence[Pair], template: str, tokenizer: PreTrainedTokenizerBase, bos: bool) -> list[Prompt]:
    """Return the prompt of each of *pairs*: *template* with the question in the place of `{question}`; with *bos*, a BOS token comes first.

    A special token's name becomes that token in *template*, but stays text in a question. A letter's token is the one that the letter
    becomes right after the prompt. Raises UserError for a template that does not ask the question exactly once, for a letter that does not
    become one token of its own, for two letters that become the same token, and if template and question both spell special tokens.
    """
    before, after = _around(template)
    chat = _special_tokens(template, tokenizer)
    for pair in pairs if chat else ():
        _check_plain(pair.question, pair.place, chat, tokenizer)
    texts = [before + pair.question + after + pair.said + letter for pair in pairs for letter in ("", pair.matching, pair.other)]
    # Tokenizers fail on an empty batch.
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=not chat)["input_ids"] if texts else []
    first = _first(template, tokenizer) if bos else []
    return [_prompt(pair, first, ids[3 * place : 3 * place + 3], tokenizer) for place, pair in enumerate(pairs)]


def open_prompts(questions: Sequence[str], template: str, tokenizer: PreTrainedTokenizerBase, bos: bool) -> list[list[int]]:
    """Return the token ids of open questions in *template*, made as in :func:`prompts`."""
    before, after = _around(template)
    chat = _special_tokens(template, tokenizer)
    for place, question in enumerate(questions if chat else ()):
        _check_plain(question, f"open question {place}", chat, tokenizer)
    texts = [before + question + after for question in questions]
    found = tokenizer(texts, add_special_tokens=False, split_special_tokens=not chat)["input_ids"] if texts else []
    first = _first(template, tokenizer) if bos else []
    return [[*first, *ids] for ids in found]


def _around(template: str) -> list[str]:
    """Return the two parts of *template*, before and after the question; raise UserError if it does not ask the question once."""
    parts = template.split(HOLE)
    if len(parts) < 2:
        raise UserError(f"template {template!r}: it drops the question; put {HOLE} where the question belongs")
    if len(parts) > 2:
        raise UserError(f"template {template!r}: it asks the question {len(parts) - 1} times; keep one {HOLE}")
    return parts


def _special_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the special tokens that *text* spells."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | set(tokenizer.all_special_tokens)
    return sorted(token for token in special if token in text)


def _check_plain(question: str, place: str, chat: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    # A tokenizer reads special tokens everywhere in a text or nowhere: it cannot read the template's and skip the question's.
    if spelled := _special_tokens(question, tokenizer):
        raise UserError(
            f"{place}: the question spells {one_of(spelled)}, which would be a special token like the template's {one_of(chat)}; "
            "take the row out, or the special tokens out of the template"
        )


def _first(template: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the BOS token as a list of ids, empty if the tokenizer has none or *template* begins with it."""
    token, text = tokenizer.bos_token_id, tokenizer.bos_token
    return [] if token is None or template.startswith(str(text)) else [token]


def _prompt(pair: Pair, first: list[int], ids: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Return the prompt of *pair*: *first*, then the first of *ids*; the second and third of *ids* have a letter after it."""
    letters = zip((pair.matching, pair.other), ids[1:], strict=True)
    prompt = _with_space(*ids, tokenizer=tokenizer)
    matching, other = (_token(pair, letter, prompt, longer, tokenizer) for letter, longer in letters)
    if matching == other:
        both = f"the letters {pair.matching} and {pair.other} are both {_shown([matching], tokenizer)}"
        raise UserError(f"{pair.place}: {both} to this tokenizer; take a subject whose tokenizer tells them apart{_numbers(pair)}")
    return Prompt((*first, *prompt), matching, other, pair.question)


def _with_space(prompt: list[int], *longer: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return *prompt* with the space before both letters, if the tokenizer makes that space a token of its own."""
    shared = [one for one, _ in takewhile(lambda both: both[0] == both[1], zip(*longer, strict=False))]
    goes_on = shared[: len(prompt)] == prompt and not str(tokenizer.decode(shared[len(prompt) :])).strip()
    return shared if goes_on else prompt


def _token(pair: Pair, letter: str, prompt: list[int], longer: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the one token that *longer* has after *prompt*; raise UserError if there is not exactly one."""
    if longer and longer[:-1] == prompt and longer[-1] != tokenizer.unk_token_id:
        return longer[-1]
    same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(prompt, longer, strict=False)))
    end = f"the template's end ({_shown(prompt[same:], tokenizer)}) and letter {letter} become"
    end = end if prompt[same:] else f"letter {letter} becomes"
    raise UserError(
        f"{pair.place}: {end} {_shown(longer[same:], tokenizer)}, where one token of its own is needed; "
        f"end the template so that the letter stands alone{_numbers(pair)}"
    )


def _numbers(pair: Pair) -> str:
    return "" if pair.matching in digits else ", or use format numbers"


def _shown(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    names = [repr(str(token)) for token in tokenizer.convert_ids_to_tokens(ids[:SHOWN])]
    return (" ".join(names) + (" …" if len(ids) > SHOWN else "")) or "nothing"


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return which of *count* places are drawn for validation and which are left for test, both sorted; an odd place goes to test."""
    validation = drawn(np.arange(count), count // 2, seed)
    return validation.tolist(), np.setdiff1d(np.arange(count), validation).tolist()
