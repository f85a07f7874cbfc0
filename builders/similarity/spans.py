"""The common units of two tokenizations: spans, so that latents of subjects with different tokenizers can fire on the same text.

A span is a smallest stretch of a document's bytes at both ends of which both tokenizations have a boundary. With one tokenizer every
token is a span of its own. See docs/science.md#similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Bools, Ints, among, ranks
from builders.text.tokens import Packing

Bytes = npt.NDArray[np.uint8]
SPACE = ord(" ")
LEADS = ((0, 0), (1, 0), (0, 1))  # how many spaces A and B have before a document's text; nothing else may differ
NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Reading:
    """What a subject read: all its TOKENS *rows* in order, and the bytes of each token id (`text_pieces` of its vocabulary)."""

    rows: pa.Table
    pieces: Sequence[bytes]


@dataclass(frozen=True)
class Units:
    """The span of each token of a subject: *span* [tokens], row after row, −1 for none; *first* [rows] is where each row begins."""

    span: Ints
    first: Ints

    def at(self, row: npt.NDArray[np.integer], position: npt.NDArray[np.integer]) -> Ints:
        """Return the spans [n] of the tokens at *position* [n] of *row* [n], as ACTIVATIONS rows name them."""
        found: Ints = self.span[self.first[row] + position]
        return found

    @property
    def row(self) -> Ints:
        """The row of each token [tokens]."""
        return np.repeat(np.arange(len(self.first)), np.diff(self.first, append=len(self.span)))


@dataclass(frozen=True)
class Spans:
    """The spans of the subjects A and B, numbered from 0 in order of the text.

    *count* is how many there are. *documents* counts the documents that both read, and *different* those that were left out because
    their bytes differ.
    """

    a: Units
    b: Units
    count: int
    documents: int
    different: int

    def within(self, rows: npt.NDArray[np.integer]) -> Spans:
        """Return the spans that lie in A's *rows* with all of A's tokens, numbered anew; all other tokens have none."""
        outside = self.a.span[~np.isin(self.a.row, rows) & (self.a.span >= 0)]
        kept = np.ones(self.count, dtype=bool)
        kept[outside] = False
        number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last one is what the span −1 becomes
        a, b = (Units(number[units.span], units.first) for units in (self.a, self.b))
        return Spans(a, b, int(kept.sum()), self.documents, self.different)


def align(a: Reading, b: Reading, packing: Packing) -> Spans:
    """Return the spans of the text that *a* and *b* both read; *packing* is how both cut documents into rows.

    Special tokens, tokens without bytes and text that only one of them has (of rows that were dropped) lie in no span. A space before
    a document's text that only one of them has, as SentencePiece puts it there, counts as no text. Documents whose bytes differ
    otherwise are left out. Joined documents are told apart by the special tokens between them, so a tokenizer that writes unknown
    tokens loses the documents behind the first of them. If there is no common text, there are no spans.
    """
    one = _text(a, packing)
    if _same(a, b):
        number = np.where(one.sizes > 0, np.cumsum(one.sizes > 0) - 1, -1)
        units = one.units(number)
        return Spans(units, units, int(number.max(initial=-1)) + 1, len(one.names), 0)
    two = _text(b, packing)
    both = _compared(one, two)
    (end_a, last_a), (end_b, last_b) = _ends(one, both.a, both), _ends(two, both.b, both)
    common = end_a[among(end_b[end_b != NOWHERE], end_a)]
    a_units, b_units = one.units(_spans(end_a, last_a, common)), two.units(_spans(end_b, last_b, common))
    return Spans(a_units, b_units, len(common), len(both.length), both.different)


@dataclass(frozen=True)
class _Text:
    """What a subject read, document by document.

    *names* [documents] rise; *begin* [documents] is the byte where each begins. *document* (an index), *end* (a byte) and *sizes* (in
    bytes) are all [tokens], as is *place*, which says where the token stands in the rows; *first* [rows] is as in Units.
    """

    bytes: Bytes
    names: Ints
    begin: Ints
    document: Ints
    end: Ints
    sizes: Ints
    place: Ints
    first: Ints

    def units(self, span: Ints) -> Units:
        """Return the *span* [tokens] of each token in order of the rows."""
        ordered = np.empty_like(span)
        ordered[self.place] = span
        return Units(ordered, self.first)

    def of(self, document: int) -> Bytes:
        """Return the bytes of a document, by its index."""
        stop = self.begin[document + 1] if document + 1 < len(self.begin) else len(self.bytes)
        return self.bytes[self.begin[document] : stop]


def _text(reading: Reading, packing: Packing) -> _Text:
    # Rows that belong together: those of a document, or of a stream of joined documents (builders/text/tokens.py).
    group = reading.rows["held_out" if packing.join else "document"].to_numpy().astype(np.int64)
    order = np.argsort(group, kind="stable")
    lengths = pc.list_value_length(reading.rows["ids"]).to_numpy().astype(np.int64)
    first = np.cumsum(lengths) - lengths
    turn = np.repeat(np.arange(len(order)), lengths[order])
    row, position = order[turn], ranks(turn)[0]
    taken = reading.rows.select(["ids", "special"]).take(order)
    ids, special = (pc.list_flatten(taken[name]).to_numpy() for name in ("ids", "special"))
    bos = (position == 0) & (packing.bos == "row")
    names = _names(group[row], special & ~bos & packing.join)
    content, bounds = _joined(ids, special, reading.pieces)
    begins = np.diff(names, prepend=-1) != 0
    document = np.cumsum(begins) - 1
    return _Text(content, names[begins], bounds[:-1][begins], document, bounds[1:], np.diff(bounds), first[row] + position, first)


def _names(group: Ints, stops: Bools) -> Ints:
    """Return a number of each token's document [tokens]: its group's and, within the group, how many documents stopped before it."""
    before: Ints = np.cumsum(stops) - stops
    at_first: Ints = before[np.arange(len(group)) - ranks(group)[0]]
    names: Ints = (group << 32) + before - at_first
    return names


def _joined(ids: npt.NDArray[np.int32], special: Bools, pieces: Sequence[bytes]) -> tuple[Bytes, Ints]:
    """Return the bytes of all tokens in one array, and the bounds of the tokens in it [tokens + 1]; special tokens have no bytes."""
    if not len(ids):
        return np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
    _, bounds, content = pa.array(pieces, pa.large_binary()).take(pa.array(ids, mask=special)).buffers()
    bounds = np.frombuffer(bounds, np.int64)[: len(ids) + 1]
    return np.frombuffer(content, np.uint8)[: bounds[-1]], bounds


def _same(a: Reading, b: Reading) -> bool:
    columns = ["document", "held_out", "ids", "special"]
    shared = min(len(a.pieces), len(b.pieces))  # a model may have more ids than its tokenizer makes
    return a.pieces[:shared] == b.pieces[:shared] and bool(a.rows.select(columns).equals(b.rows.select(columns)))


@dataclass(frozen=True)
class _Both:
    """The documents that both read with the same bytes.

    *a* and *b* [documents, 2] are the index of each among the subject's documents and its number of leading bytes that are no text.
    *length* [documents] is how many bytes both have, and *base* [documents] where they begin when all documents follow each other.
    """

    a: Ints
    b: Ints
    length: Ints
    different: int

    @property
    def base(self) -> Ints:
        # One more than their length, so that the end of a document is not the beginning of the next.
        return np.cumsum(self.length + 1) - (self.length + 1)


def _compared(a: _Text, b: _Text) -> _Both:
    _, in_a, in_b = np.intersect1d(a.names, b.names, assume_unique=True, return_indices=True)
    found = []
    for one, two in zip(in_a.tolist(), in_b.tolist(), strict=True):
        overlap = _overlap(a.of(one), b.of(two))
        if overlap:
            found.append((one, two, *overlap))
    table = np.array(found, dtype=np.int64).reshape(-1, 5)
    return _Both(table[:, [0, 2]], table[:, [1, 3]], table[:, 4], len(in_a) - len(found))


def _overlap(a: Bytes, b: Bytes) -> tuple[int, int, int] | None:
    """Return how many bytes of *a* and of *b* come before the text that both have, and its length; None if the texts differ."""
    for lead_a, lead_b in LEADS:
        length = min(len(a) - lead_a, len(b) - lead_b)
        spaces = np.all(a[:lead_a] == SPACE) and np.all(b[:lead_b] == SPACE)
        if length >= 0 and spaces and np.array_equal(a[lead_a : lead_a + length], b[lead_b : lead_b + length]):
            return lead_a, lead_b, length
    return None


def _ends(text: _Text, own: Ints, both: _Both) -> tuple[Ints, Ints]:
    """Return the ends of each token and of its document in the text that both have (both [tokens]).

    *own* is *both.a* or *both.b*. A token that is no part of that text, or has no bytes in it, ends NOWHERE.
    """
    base, last, shift = (np.full(len(text.names), -1, dtype=np.int64) for _ in range(3))
    index, lead = own.T
    base[index], last[index] = both.base, both.base + both.length
    shift[index] = both.base - text.begin[index] - lead
    end, last = text.end + shift[text.document], last[text.document]
    there = (text.sizes > 0) & (end > base[text.document]) & (end <= last)
    return np.where(there, end, NOWHERE), last


def _spans(end: Ints, last: Ints, common: Ints) -> Ints:
    """Return the span of each token [tokens] from its *end* and its document's *last* byte; spans end at *common* [spans], which rise."""
    span = np.searchsorted(common, end)
    return np.where((end != NOWHERE) & (np.append(common, NOWHERE)[span] <= last), span, -1)
