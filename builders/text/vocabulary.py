"""What each token id stands for: the `vocabulary` config, so that readers need no tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Ints
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = Table(
    name="vocabulary",
    row="a token id of a subject's tokenizer",
    key=("subject", "token"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("token", "int32", "token id", low=0),
        Column("piece", "string", "its text; bytes that are not valid UTF-8 by themselves are written as \\xNN"),
        Column("bytes", "binary", "its bytes; the bytes of consecutive tokens join to the exact text"),
        Column("special", "bool", "whether it is a special token"),
        Column("count", "int64", "how often it occurs in `tokens`", low=0),
    ),
    references=(OF_SUBJECT,),
)

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: PreTrainedTokenizerBase, size: int) -> list[bytes]:
    """Return the bytes of each token id below *size*, for byte-level, SentencePiece-like and other tokenizers."""
    decoder = _decoder(tokenizer)
    known = {token: name for name, token in tokenizer.get_vocab().items()}
    names = [known.get(token) for token in range(size)]
    convert = _byte_level if "ByteLevel" in decoder else _sentence_piece if "▁" in decoder else None
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}  # written as they are, whatever the alphabet
    pieces = []
    for token, name in enumerate(names):
        if name is None:  # an id that the model has but the tokenizer never makes
            pieces.append(b"")
        elif name in special or convert is None:
            pieces.append(str(name if name in special else tokenizer.decode([token])).encode())
        else:
            pieces.append(convert(name))
    return pieces


def _decoder(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.dumps(json.loads(backend.to_str())["decoder"], ensure_ascii=False) if backend else ""


def _byte_alphabet() -> dict[str, int]:
    # GPT-2's table: printable bytes stand for themselves, the rest are shifted past 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(shifted)}


BYTE_ALPHABET = _byte_alphabet()


def _byte_level(name: str) -> bytes:
    if all(letter in BYTE_ALPHABET for letter in name):
        return bytes(BYTE_ALPHABET[letter] for letter in name)
    return name.encode()  # an added token is written as it is


def _sentence_piece(name: str) -> bytes:
    byte = BYTE_PIECE.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace("▁", " ").encode()


def vocabulary_rows(subject: str, pieces: list[bytes], special_ids: set[int], counts: Ints) -> pa.Table:
    """Return the VOCABULARY rows: *pieces* holds the bytes of each id, *counts* how often it occurs."""
    return VOCABULARY.build(
        {
            "subject": subject,
            "token": np.arange(len(pieces), dtype=np.int32),
            "piece": [piece.decode("utf-8", "backslashreplace") for piece in pieces],
            "bytes": pieces,
            "special": [token in special_ids for token in range(len(pieces))],
            "count": counts,
        }
    )


def text_pieces(rows: pa.Table) -> list[bytes]:
    """Return the bytes of each token id in VOCABULARY *rows*; a special token is no text, so it has none."""
    pairs = zip(rows["bytes"].to_pylist(), rows["special"].to_pylist(), strict=True)
    return [b"" if special else piece for piece, special in pairs]


def text_of(ids: Iterable[int], pieces: Sequence[bytes]) -> str:
    """Return the text of token *ids*; *pieces* holds the bytes of each id. A character that is cut at either end becomes U+FFFD."""
    return b"".join(pieces[token] for token in ids).decode("utf-8", "replace")


def texts(ids: npt.NDArray[np.int32], pieces: pa.Array) -> pa.Array:
    """Return the text of each row of *ids* [rows, n]; *pieces* holds the bytes of each token id."""
    flat = pieces.take(pa.array(ids.reshape(-1)))
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * ids.shape[1]
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, flat), b"")
    try:
        return joined.cast(pa.string())
    except pa.ArrowInvalid:  # a window that cuts a character in two
        return pa.array([text.decode("utf-8", "replace") for text in joined.to_pylist()], pa.string())
