"""What a steered model writes after open questions, and how strongly it shows the behaviour: the `steering_texts` config.

A judge, which is a language model, rates each text from 0 to 10. It sees behaviour, question and text, but not how the text was steered.
Source: the open-ended evaluation of contrastive activation addition (Rimsky et al. 2024); see docs/science.md#steering.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.engines.prompts import Prompts, quote
from builders.engines.requests import Answer, Chat, Engine, Failure, Message, Outcome
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table
from builders.steering.effects import IDENTITY, KEY, Setting
from builders.steering.ways import NONE, Push, columns_of

PROMPTS = Prompts(Path(__file__).parent / "prompts")
FILES = ("guidelines.j2", "turn.j2")
LEAST, MOST = 0, 10
NOT_RATED = "not rated"
EMPTY = "nothing, it is empty"  # without quotes, so that no text reads the same
# Line breaks that JSON does not escape, and what a judge's tokenizer may take for the end of a turn: <|…|>, </s>, [INST].
UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029<]|\[(?=/?[A-Z_]+\])")
TYPE = re.compile(r"[*_`\[\]]")  # bold, code and brackets around a rating
MARKER = re.compile(r"(?<![^\W_])rating\s*[:：]", re.IGNORECASE)
LINE = re.compile(r"[-# ]*rating ?[:：] ?(.*)", re.IGNORECASE)
DIGITS = r"[0-9]+(?:\.[0-9]+)?"
NUMBER = re.compile(rf"([-−]?{DIGITS})(?: ?(?:/|out of) ?10)? ?\.?", re.IGNORECASE)
COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")

STEERING_TEXTS = Table(
    name="steering_texts",
    row="what a subject writes after an open question, steered or not",
    key=(*KEY, "question"),
    columns=(
        *IDENTITY,
        Column("question", "int32", "position of the question among the behaviour's open questions", low=0),
        Column("prompt", "string", "the open question"),
        Column("text", "string", "what the subject wrote after the question"),
        Column("ended", "bool", "whether the text ended by itself; if not, it was cut off"),
        Column("following", "bool", "whether vectors were added at every written token too, not only at the prompt's last tokens"),
        Column(
            "rating",
            "float64",
            "how strongly the text shows the behaviour: 0 not at all, 10 as strongly as can be",
            unit="points of 10",
            nullable=True,
            low=LEAST,
            high=MOST,
        ),
        Column("rating_status", "string", "ok, not rated (no judge was asked), no text, or why there is no rating", categorical=True),
        Column("reason", "string", "why a judge that was asked gave no rating, in words", nullable=True),
        Column("judge", "string", "who rated; none if nobody was asked", categorical=True),
        Column("engine", "string", "what ran the judge; none if nobody was asked", categorical=True),
        Column("model", "string", "the language model that rated", nullable=True, categorical=True),
        Column("prompt_sha256", "string", "SHA-256 of the files that the judge's prompt was made from", nullable=True, categorical=True),
        Column("request_sha256", "string", "SHA-256 of the request and of the engine's identity", nullable=True),
        Column("prompt_tokens", "int64", "tokens read by the judge", unit="tokens", nullable=True, low=0),
        Column("cached_tokens", "int64", "those of the tokens read that the engine had read before", unit="tokens", nullable=True, low=0),
        Column("output_tokens", "int64", "tokens written by the judge", unit="tokens", nullable=True, low=0),
    ),
    references=(OF_SUBJECT,),
)


@dataclass(frozen=True)
class Written:
    """The *text* that a subject wrote after the open question *prompt*, which is number *question*; *ended* if it ended by itself.

    With *following*, vectors were added at every written token too; without, at the prompt's last tokens only.
    """

    question: int
    prompt: str
    text: str
    ended: bool
    following: bool


def prompt_sha256() -> str:
    """Return the version of the judge's prompt: the SHA-256 of its files."""
    return PROMPTS.sha256(FILES)


def conversation(describes: str, question: str, text: str, max_tokens: int) -> Chat:
    """Return the conversation that asks a judge how strongly *text*, written after *question*, shows a behaviour.

    *describes* is the description of the behaviour. All texts share the first turn. Question and text are JSON strings on one line each, so
    that nothing inside can end them.
    """
    shown = _quoted(text) if text.strip() else EMPTY
    facts = {"describes": " ".join(describes.split()), "question": _quoted(question), "text": shown}
    messages = (Message("system", PROMPTS.fill("guidelines.j2", {})), Message("user", PROMPTS.fill("turn.j2", facts)))
    return Chat(messages, max_tokens)


def _quoted(text: str) -> str:
    """Return *text* as a JSON string without line breaks and without what could be a special token."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", quote(text))


def read(answer: Answer) -> float | Failure:
    """Return the rating in *answer*: the number from 0 to 10 on its last line that mentions a rating, or a failure.

    That line must read `Rating:` and a number such as `7`, `7.5` or `7/10`. Nothing is clipped or guessed.
    """
    said = answer.text.rpartition("</think>")[2].partition("<think>")[0]
    lines = [line for line in said.splitlines() if MARKER.search(TYPE.sub(" ", line))]
    unread = Failure("no rating", f"the answer has no line Rating: and a number (it begins {said.strip()[:60]!r})")
    rating = _rating(lines[-1]) if lines else unread
    missing = isinstance(rating, Failure) and rating.status == unread.status
    if answer.finish == "length" and (missing or said.endswith(lines[-1])):  # a cut-off line is no rating: a 1 may become a 10
        return Failure("cut off", f"the answer was cut off after {answer.output_tokens} tokens; raise the judge's `max_tokens`")
    return rating


def _rating(line: str) -> float | Failure:
    whole = LINE.fullmatch(" ".join(TYPE.sub(" ", line).split()))
    if whole is None:
        return Failure("no rating", f"the last line with a rating does not begin with it ({line.strip()[:60]!r})")
    number = NUMBER.fullmatch(whole[1])
    if number is not None:
        rating = float(number[1].replace("−", "-"))
        return rating if LEAST <= rating <= MOST else Failure("out of range", f"the rating is {number[1][:20]}, but ratings are 0 to 10")
    if len(re.findall(DIGITS, whole[1])) > 1:
        return Failure("ambiguous", f"the rating line has several numbers ({line.strip()[:60]!r})")
    return Failure("no rating", f"the rating line is not one number alone ({line.strip()[:60]!r})")


def text_record(setting: Setting, push: Push | None, written: Written) -> dict[str, Any]:
    """Return a STEERING_TEXTS record without a rating; *push* is None for a text that was not steered."""
    record: dict[str, Any] = {column.name: None for column in STEERING_TEXTS.columns}
    place = columns_of(push)
    record |= {**setting.identity, **place, **vars(written), "following": written.following and push is not None}
    return record | {"rating_status": NOT_RATED, "judge": NONE, "engine": NONE}


def rated(record: dict[str, Any], judge: str, engine: Engine, request_sha256: str, outcome: Outcome) -> dict[str, Any]:
    """Return *record* with the rating by *judge*, or why there is none; *request_sha256* is the address of the request."""
    rating = read(outcome) if isinstance(outcome, Answer) else outcome
    asked: dict[str, Any] = {"judge": judge, "engine": engine.kind, "model": engine.model, "prompt_sha256": prompt_sha256()}
    asked |= {"request_sha256": request_sha256, **{name: getattr(outcome, name, None) for name in COUNTS}}  # a failure has no counts
    if isinstance(rating, Failure):
        return record | asked | {"rating": None, "rating_status": rating.status, "reason": rating.reason}
    return record | asked | {"rating": rating, "rating_status": "ok", "reason": None}


def text_rows(records: Iterable[dict[str, Any]]) -> pa.Table:
    """Return the STEERING_TEXTS rows of records, in key order."""
    return STEERING_TEXTS.rows(list(records))
