"""Documents → rows of token ids: the `tokens` config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from builders.errors import UserError
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = Table(
    name="tokens",
    row="a row of token ids that the subject reads at once",
    key=("subject", "row"),
    columns=(
        Column("subject", "string", "the language model whose tokenizer made the ids", categorical=True),
        Column("row", "int32", "position of the row", low=0),
        Column("document", "int64", "the document of its first token", low=0),
        Column("held_out", "bool", "whether no SAE that is trained here sees it (nor, at the default share, the lab model)"),
        Column("ids", "list<int32>", "token ids", low=0),
        Column("special", "list<bool>", "which ids are special tokens (BOS, EOS, …); activations on them are left out"),
        Column("bytes", "int32", "bytes of text that the row covers", unit="bytes", low=0),
        Column("text", "string", "the row's text"),
    ),
    row_group=2_000,
    references=(OF_SUBJECT,),
)


@dataclass(frozen=True)
class Packing:
    """How token ids become rows. Every choice is explicit and recorded, since a BOS inside a row can dominate top activations.

    *bos*: "row" puts BOS before every row, "none" puts it nowhere. *join*: False keeps documents apart (a row never holds
    two), True joins them with EOS. *keep_partial*: whether rows shorter than *length* are kept. See SAELens issues 333 and
    472, and docs/science.md#corpus.
    """

    length: int
    bos: str
    join: bool
    keep_partial: bool


Encoded = tuple[int, bool, list[int]]  # document, held_out, ids


def encode(texts: pa.Table, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    """Yield the token ids of each document in the DOCUMENTS rows *texts*; text that spells a special token is read as plain text."""
    encoded = tokenizer(texts["text"].to_pylist(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    yield from zip(texts["document"].to_pylist(), texts["held_out"].to_pylist(), encoded, strict=True)


def pack(encoded: Iterable[Encoded], tokenizer: PreTrainedTokenizerBase, packing: Packing) -> Iterator[Encoded]:
    """Yield rows cut from the *encoded* documents as *packing* says; the document of a row is the document of its first token.

    Raises UserError if the packing needs a special token that the tokenizer lacks, or if BOS leaves no room for text.
    """
    bos = [_special(tokenizer.bos_token_id, "tokens.bos is `row`", "BOS")] if packing.bos == "row" else []
    size = packing.length - len(bos)
    if size < 1:
        raise UserError(f"tokens.length is {packing.length}, which leaves no room for text beside BOS; raise it")
    streams = _joined(encoded, tokenizer, size) if packing.join else encoded
    for document, held_out, ids in streams:
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            if len(piece) == size or packing.keep_partial:
                yield document, held_out, [*bos, *piece]


def _joined(encoded: Iterable[Encoded], tokenizer: PreTrainedTokenizerBase, size: int) -> Iterator[Encoded]:
    eos = _special(tokenizer.eos_token_id, "tokens.packing is `joined`", "EOS")
    # One stream for held-out documents and one for the others: a mixed row would be held out and trained on at once.
    pending: dict[bool, tuple[int, list[int]]] = {}
    for document, held_out, ids in encoded:
        first, rest = pending.pop(held_out, (document, []))
        rest = [*rest, *ids, eos]
        while len(rest) >= size:
            yield first, held_out, rest[:size]
            first, rest = document, rest[size:]
        if rest:
            pending[held_out] = first, rest
    for held_out, (first, rest) in pending.items():
        yield first, held_out, rest


def _special(token: int | None, setting: str, name: str) -> int:
    if token is None:
        raise UserError(f"{setting} but this tokenizer has no {name} token; change that setting")
    return token


def token_rows(packed: Iterable[Encoded], subject: str, tokenizer: PreTrainedTokenizerBase, pieces: list[bytes]) -> Iterator[pa.Table]:
    """Yield the TOKENS rows of *packed*, a row group at a time; *pieces* holds the bytes of each token id."""
    special_ids = set(tokenizer.all_special_ids)
    records: list[dict[str, Any]] = []
    for number, (document, held_out, ids) in enumerate(packed):
        special = [token in special_ids for token in ids]
        covered = b"".join(pieces[t] for t, skip in zip(ids, special, strict=True) if not skip)
        record = {"subject": subject, "row": number, "document": document, "held_out": held_out}
        words = {"bytes": len(covered), "text": covered.decode("utf-8", "replace")}
        records.append({**record, **words, "ids": ids, "special": special})
        if len(records) == TOKENS.row_group:
            yield TOKENS.rows(records)
            records = []
    if records:
        yield TOKENS.rows(records)
