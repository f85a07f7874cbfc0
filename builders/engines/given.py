"""Log-probabilities of given tokens from llama.cpp's server, which has no `echo`: it is made to write them, one after another.

A grammar of token ids leaves the model no choice, and the server tells the probabilities that the model gave before the grammar was
applied. It tells none of a token that ends inside a character, and its grammars break on one that begins there; both take other ways.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from builders.engines.requests import Token

Post = Callable[[str, dict[str, Any]], Awaitable[Any]]  # puts a body to a path of the server, and returns its answer
SURE = 1000.0  # added to a token's logit, it makes the token certain; the probabilities that are told do not see it
EVERY = 10_000_000  # more alternatives than any vocabulary has tokens


@dataclass(frozen=True)
class Piece:
    """A token of a text: its id, and the bytes that it stands for."""

    id: int
    text: bytes

    @property
    def whole(self) -> bool:
        """Whether it begins and ends between characters."""
        try:
            self.text.decode()
        except UnicodeDecodeError:
            return False
        return True


async def pieces(post: Post, text: str, *, special: bool = True) -> list[Piece]:
    """Return the tokens of a text; if *special*, with those that the model's tokenizer puts around every text, such as BOS."""
    found = await post("/tokenize", {"content": text, "add_special": special, "parse_special": False, "with_pieces": True})
    said = ((token["id"], token["piece"]) for token in found["tokens"])
    return [Piece(name, piece.encode() if isinstance(piece, str) else bytes(piece)) for name, piece in said]


def start_of(tokens: Sequence[Piece], prompt: str, continuation: str) -> int | None:
    """Return the place of the first token that lies in the continuation; None where the tokens are not those of the text.

    A token that straddles the border counts as prompt, and so does the first of all: nothing predicts it. The border is counted back from
    the end, because a tokenizer may put tokens, or a space, before a text.
    """
    ends = list(accumulate(len(token.text) for token in tokens))
    if not b"".join(token.text for token in tokens).endswith((prompt + continuation).encode()):
        return None
    border = (ends[-1] if ends else 0) - len(continuation.encode())
    starts = [end - len(token.text) if prompt else end - 1 for end, token in zip(ends, tokens, strict=True)]  # no prompt, no straddling
    found = (place for place, token in enumerate(tokens) if starts[place] >= border and token.text)
    return max(next(found, len(tokens)), min(1, len(tokens)))


def parts(tokens: Sequence[Piece], start: int) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the parts in which the tokens from *start* on are scored: whole ones in a row, and each of the others alone."""
    for whole, places in groupby(range(start, len(tokens)), lambda place: tokens[place].whole):
        row = list(places)
        yield from [(row[0], row[-1] + 1)] if whole else [(place, place + 1) for place in row]


async def scored(post: Post, tokens: Sequence[Piece], start: int, most: int) -> tuple[list[Token], int]:
    """Return the tokens from *start* on with their log-probabilities, each with *most* alternatives, and how many tokens were known.

    Raises ValueError where the server does not tell all of them.
    """
    found: list[Token] = []
    known = None
    for first, end in parts(tokens, start):
        before, row = [token.id for token in tokens[:first]], tokens[first:end]
        forced: dict[str, Any] = {"grammar": "root ::= " + " ".join(f"<[{token.id}]>" for token in row)}
        if not row[0].whole:
            forced = {"logit_bias": [[row[0].id, SURE]]}
        told = await _written(post, before, len(row), most, forced)
        known = told["timings"]["cache_n"] if known is None else known
        entries = told.get("completion_probabilities", [])
        if not entries and not row[0].whole:
            entries = [await _among_all(post, before, row[0].id)]
        if [entry["id"] for entry in entries] != [token.id for token in row]:
            raise ValueError(f"log-probabilities of {len(entries)} of {len(row)} tokens")
        found += [_token(entry, most) for entry in entries]
    return found, known or 0


async def _written(post: Post, before: list[int], count: int, most: int, forced: dict[str, Any]) -> Any:
    body = {"prompt": before, "n_predict": count, "n_probs": max(most, 1), "temperature": 0, "cache_prompt": True}
    return await post("/completion", body | forced)


async def _among_all(post: Post, before: list[int], name: int) -> Any:
    """Return the entry of a token that ends inside a character: while the model writes another one, it is among the alternatives."""
    (dot,) = (await pieces(post, ".", special=False))[-1:]
    told = await _written(post, before, 1, EVERY, {"logit_bias": [[dot.id, SURE]]})
    alternatives = told["completion_probabilities"][0]["top_logprobs"]
    return {**next(entry for entry in alternatives if entry["id"] == name), "top_logprobs": alternatives}


def _token(entry: dict[str, Any], most: int) -> Token:
    top = tuple((_text(one), one["logprob"]) for one in entry["top_logprobs"][:most])
    return Token(_text(entry), entry["logprob"], top)


def _text(entry: dict[str, Any]) -> str:
    return bytes(entry["bytes"]).decode(errors="replace")
