from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from builders.similarity import spans
from builders.similarity.spans import Reading, Spans, Units, align
from builders.text.sources import DOCUMENTS
from builders.text.tokens import TOKENS, Encoded, Packing, encode, pack, token_rows
from builders.text.vocabulary import token_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BOS, EOS = 0, 1
SPECIALS: Any = SimpleNamespace(bos_token_id=BOS, eos_token_id=EOS, all_special_ids=[BOS, EOS])
APART, JOINED = Packing(4, "row", join=False, keep_partial=True), Packing(4, "row", join=True, keep_partial=True)
PACKINGS = st.builds(Packing, st.integers(2, 6), st.sampled_from(["row", "none"]), st.booleans(), st.booleans())

Text = tuple[bool, list[bytes]]  # held_out, the bytes of each token
Where = tuple[int, int, int]  # of a token: its document, and the bytes of the document between which it lies


@dataclass(frozen=True)
class Known:
    """A reading in which every token has an id of its own, so that its place in the text is known."""

    reading: Reading
    where: dict[int, Where]


def read(texts: list[Text], packing: Packing, lead: int = 0) -> Known:
    """Return how documents are read; the first *lead* bytes of each stand before its text."""
    pieces, where, encoded = [b"<s>", b"</s>"], {}, []
    for document, (held_out, tokens) in enumerate(texts):
        end, ids = -lead, []
        for token in tokens:
            where[len(pieces)] = (document, max(end, 0), max(end + len(token), 0))
            ids.append(len(pieces))
            pieces.append(token)
            end += len(token)
        encoded.append((document, held_out, ids))
    return Known(Reading(rows_of(encoded, packing, SPECIALS, pieces), pieces), where)


def rows_of(encoded: list[Encoded], packing: Packing, tokenizer: Any, pieces: list[bytes]) -> pa.Table:
    """Return the TOKENS rows of *encoded* documents, in one table."""
    tables = list(token_rows(pack(encoded, tokenizer, packing), "toy", tokenizer, pieces))
    return pa.concat_tables([TOKENS.rows([]), *tables])


def simple(*documents: str, packing: Packing = APART) -> Reading:
    """Return how *documents*, whose tokens stand between bars, are read."""
    return read([(False, [token.encode() for token in text.split("|")]) for text in documents], packing).reading


def nested(units: Units, reading: Reading) -> list[list[int]]:
    """Return the span of each token, row by row."""
    lengths = [len(ids) for ids in reading.rows["ids"].to_pylist()]
    return [part.tolist() for part in np.split(units.span, np.cumsum(lengths)[:-1])]


def tokens_of(found: Spans, units: Units, known: Known) -> list[set[int]]:
    """Return the ids in each span."""
    ids = [token for row in known.reading.rows["ids"].to_pylist() for token in row]
    groups: list[set[int]] = [set() for _ in range(found.count)]
    for token, span in zip(ids, units.span.tolist(), strict=True):
        if span >= 0:
            groups[span].add(token)
    return groups


# Small cases


def test_a_span_ends_where_both_tokenizations_end_a_token() -> None:
    """Boundaries after `the` and `cats` are common; those inside `cats` are not."""
    a, b = simple("the| ca|ts| sat"), simple("the| c|ats| sat")
    found = align(a, b, APART)

    assert nested(found.a, a) == [[-1, 0, 1, 1], [-1, 2]]
    assert nested(found.b, b) == [[-1, 0, 1, 1], [-1, 2]]
    assert (found.count, found.documents, found.different) == (3, 1, 0)


def test_a_span_may_run_over_rows() -> None:
    """A token of one subject may cover the end of one row and the beginning of the next row of the other."""
    a, b = simple("a|b|c|d|e"), simple("ab|cd|e")
    found = align(a, b, APART)

    assert nested(found.a, a) == [[-1, 0, 0, 1], [-1, 1, 2]]
    assert nested(found.b, b) == [[-1, 0, 1, 2]]


def test_without_a_boundary_inside_a_document_is_one_span() -> None:
    """Tokenizations whose boundaries never meet share the whole document."""
    a, b = simple("a|bc|d", "xy"), simple("ab|cd", "x|y")
    found = align(a, b, APART)

    assert nested(found.a, a) == [[-1, 0, 0, 0], [-1, 1]]
    assert nested(found.b, b) == [[-1, 0, 0], [-1, 1, 1]]


def test_a_character_may_be_cut() -> None:
    """Boundaries inside a character are boundaries too: spans are of bytes."""
    a = read([(False, [b"\xe5\xad", b"\x97", b"!"])], APART).reading
    b = read([(False, [b"\xe5", b"\xad", b"\x97!"])], APART).reading
    found = align(a, b, APART)

    assert nested(found.a, a) == [[-1, 0, 1, 1]]
    assert nested(found.b, b) == [[-1, 0, 0, 1]]


def test_firings_are_looked_up_by_row_and_position() -> None:
    """Units say the span of a position of a row, as activations name them."""
    a = simple("a|b|c|d", "e|f")
    units = align(a, simple("a|bc|d", "ef"), APART).a

    assert units.at(np.array([1, 0, 0, 2], np.int32), np.array([1, 3, 0, 2], np.int32)).tolist() == [2, 1, -1, 3]


# What is left out


def test_a_space_before_the_text_is_no_text() -> None:
    """SentencePiece's space before a document's first word belongs to the first span, whichever subject has it."""
    a, b = simple(" the| cat", " |the"), simple("th|e| cat", "the")
    for one, two, swap in ((a, b, False), (b, a, True)):
        found = align(one, two, APART)
        of_a, of_b = (found.b, found.a) if swap else (found.a, found.b)
        assert nested(of_a, a) == [[-1, 0, 1], [-1, -1, 2]]
        assert nested(of_b, b) == [[-1, 0, 0, 1], [-1, 2]]
        assert (found.documents, found.different) == (2, 0)


def test_a_space_that_both_have_is_text() -> None:
    """A document that begins with a space for both subjects keeps it."""
    found = align(simple(" |a"), simple(" a| b"), APART)

    assert (found.a.span.tolist(), found.b.span.tolist(), found.count) == ([-1, 0, 0], [-1, 0, -1], 1)


@pytest.mark.parametrize("other", ["b|c", "  a|b", "\ta|b", "a|c", "A|b", " a|c"])
def test_a_document_with_other_bytes_is_left_out_and_counted(other: str) -> None:
    """Anything but one space more or less is another text; the documents beside it are read as usual."""
    found = align(simple("x", "a|b", "y"), simple("x", other, "y"), APART)

    assert found.a.span.tolist() == [-1, 0, -1, -1, -1, -1, 1]
    assert (found.count, found.documents, found.different) == (2, 2, 1)


def test_text_that_one_subject_lacks_is_in_no_span() -> None:
    """Where the rest of a document was dropped with a short row, spans end at the last boundary that both have."""
    short = Packing(4, "row", join=False, keep_partial=False)
    a, b = simple("a|b|c|d|e", packing=short), simple("ab|cd|e", packing=short)
    found = align(a, b, short)

    assert nested(found.a, a) == [[-1, 0, 0, -1]]
    assert nested(found.b, b) == [[-1, 0, -1, -1]]


def test_a_token_without_bytes_is_in_no_span() -> None:
    """A token that stands for no text has no span, whether the tokenizers differ or not."""
    a = read([(False, [b"a", b"", b"b"])], APART).reading

    assert align(a, simple("a|b"), APART).a.span.tolist() == [-1, 0, -1, 1]
    assert align(a, a, APART).a.span.tolist() == [-1, 0, -1, 1]


@pytest.mark.parametrize("packing", [APART, JOINED])
def test_without_common_text_there_are_no_spans(packing: Packing) -> None:
    """Other documents, and no rows at all, give zero spans and no error."""
    a, b, nothing = simple("a|b", packing=packing), simple("c|d", packing=packing), read([], packing).reading
    for one, two in ((a, b), (a, nothing), (nothing, b), (nothing, nothing)):
        found = align(one, two, packing)
        assert found.count == 0
        assert set(found.a.span.tolist()) <= {-1}
        assert len(found.a.span) == sum(len(ids) for ids in one.rows["ids"].to_pylist())
        assert len(found.b.span) == sum(len(ids) for ids in two.rows["ids"].to_pylist())


def test_documents_that_only_one_subject_read_are_skipped() -> None:
    """Documents are matched by number, so that one which gives no row to one of the subjects shifts nothing."""
    short = Packing(3, "row", join=False, keep_partial=False)
    a, b = simple("a|b", "c", "d|e", packing=short), simple("ab", "c", "d|e", packing=short)
    found = align(a, b, short)

    assert nested(found.a, a) == [[-1, -1, -1], [-1, 0, 1]]
    assert (found.count, found.documents, found.different) == (2, 1, 0)


# Joined documents


def test_joined_documents_are_told_apart_by_eos() -> None:
    """In a stream every document may have its own space before it, and one with other bytes harms no other."""
    a = simple(" a|b", " c|d", " e", " f|g", packing=JOINED)
    b = simple("ab", "c|d", "X", "f|g", packing=JOINED)
    found = align(a, b, JOINED)

    assert nested(found.a, a) == [[-1, 0, 0, -1], [-1, 1, 2, -1], [-1, -1, -1, 3], [-1, 4, -1]]
    assert nested(found.b, b) == [[-1, 0, -1, 1], [-1, 2, -1, -1], [-1, -1, 3, 4], [-1, -1]]
    assert (found.documents, found.different) == (3, 1)


def test_joined_sides_are_aligned_apart() -> None:
    """Held-out documents are a stream of their own, though its rows stand between those of the others."""
    texts_a: list[Text] = [(False, [b"a", b"b"]), (True, [b"c", b"d", b"e"]), (False, [b"f", b"g"])]
    texts_b: list[Text] = [(False, [b"ab"]), (True, [b"c", b"de"]), (False, [b"f", b"g"])]
    a, b = read(texts_a, JOINED).reading, read(texts_b, JOINED).reading
    found = align(a, b, JOINED)

    assert a.rows["held_out"].to_pylist() == [False, True, False, True]
    assert nested(found.a, a) == [[-1, 0, 0, -1], [-1, 3, 4, 4], [-1, 1, 2, -1], [-1, -1]]
    assert found.count == 5


def test_an_unknown_token_loses_the_joined_documents_behind_it() -> None:
    """A special token inside a joined document looks like its end: documents after it meet others, and are left out."""
    pieces = [b"<s>", b"</s>", b"a", b"b", b"c", b"<unk>"]
    tokenizer: Any = SimpleNamespace(bos_token_id=BOS, eos_token_id=EOS, all_special_ids=[BOS, EOS, 5])
    rows = rows_of([(0, False, [2]), (1, False, [5, 3]), (2, False, [4])], JOINED, tokenizer, pieces)
    found = align(Reading(rows, pieces), simple("a", "?|b", "c", packing=JOINED), JOINED)

    assert rows["ids"].to_pylist() == [[BOS, 2, EOS, 5], [BOS, 3, EOS, 4], [BOS, EOS]]
    assert (found.a.span.tolist(), found.count) == ([-1, 0, *[-1] * 8], 1)


# Any text


TEXT = st.lists(st.sampled_from([b"a", b"b", b" ", b"\xc3", b"\xa9"]), max_size=10).map(lambda parts: b"x" * bool(parts) + b"".join(parts))


@st.composite
def two_readings(draw: st.DrawFn) -> tuple[Known, Known, Packing]:
    """Draw documents, two ways to cut them into tokens (one may put a space before each) and a packing."""
    documents = draw(st.lists(st.tuples(st.booleans(), TEXT), max_size=5))
    packing = draw(PACKINGS)
    spaces = draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]))
    known = []
    for space in spaces:
        texts = [(held_out, draw(cut(b" " * (space and bool(text)) + text))) for held_out, text in documents]
        known.append(read(texts, packing, space - min(spaces)))  # what both have is text
    return known[0], known[1], packing


@st.composite
def cut(draw: st.DrawFn, text: bytes) -> list[bytes]:
    """Draw tokens that join to *text*."""
    bounds = sorted({0, len(text), *draw(st.sets(st.integers(0, len(text))))})
    return [text[low:high] for low, high in pairwise(bounds)]


def expected(a: Known, b: Known) -> list[tuple[set[int], set[int]]]:
    """Return the ids of A and of B in each span, in order of document and text, straight from the definition."""
    there = [
        {token: known.where[token] for row in known.reading.rows["ids"].to_pylist() for token in row if token > EOS} for known in (a, b)
    ]
    found = []
    for document in {document for places in there for document, _, _ in places.values()}:
        own = [{token: (low, high) for token, (which, low, high) in places.items() if which == document} for places in there]
        bounds = sorted(set.intersection(*({0, *(high for _, high in places.values())} for places in own)))
        for low, high in pairwise(bounds):
            inside = [{token for token, (begin, end) in places.items() if low <= begin < end <= high} for places in own]
            found.append((document, low, inside[0], inside[1]))
    return [(of_a, of_b) for *_, of_a, of_b in sorted(found, key=lambda span: span[:2])]


@given(two_readings())
def test_spans_are_what_the_definition_says(readings: tuple[Known, Known, Packing]) -> None:
    """For any text, tokens and packing, spans are the smallest stretches between common boundaries, and nothing is left out."""
    a, b, packing = readings
    found = align(a.reading, b.reading, packing)
    spans_found = list(zip(tokens_of(found, found.a, a), tokens_of(found, found.b, b), strict=True))
    wanted = expected(a, b)

    assert found.different == 0
    assert sorted(spans_found, key=repr) == sorted(wanted, key=repr)
    assert packing.join or spans_found == wanted  # joined streams come one after the other


@given(two_readings())
def test_exchanging_the_subjects_exchanges_the_spans(readings: tuple[Known, Known, Packing]) -> None:
    """Spans are the same whichever subject is called A."""
    a, b, packing = readings
    found, turned = align(a.reading, b.reading, packing), align(b.reading, a.reading, packing)

    assert found.a.span.tolist() == turned.b.span.tolist()
    assert found.b.span.tolist() == turned.a.span.tolist()
    assert (found.count, found.documents) == (turned.count, turned.documents)


@given(two_readings())
def test_with_one_tokenizer_every_token_is_a_span(readings: tuple[Known, Known, Packing]) -> None:
    """Two subjects with the same tokens have each token as a span, and the short way gives what the long way gives."""
    a, _, packing = readings
    other = Reading(a.reading.rows.set_column(0, "subject", pa.array(["other"] * a.reading.rows.num_rows)), [*a.reading.pieces, b""])
    short = align(a.reading, other, packing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_same", lambda *_: False)
        long = align(a.reading, other, packing)
    special = [flag for row in a.reading.rows["special"].to_pylist() for flag in row]

    assert short.a.span.tolist() == short.b.span.tolist() == long.a.span.tolist() == long.b.span.tolist()
    assert (short.count, short.documents, short.different) == (long.count, long.documents, long.different)
    assert sorted(short.a.span[~np.array(special, dtype=bool)].tolist()) == list(range(short.count))


# Drawn rows


def test_drawn_rows_keep_spans_that_lie_in_them() -> None:
    """A span that runs out of A's drawn rows is dropped with all its tokens; the others are numbered anew."""
    a, b = simple("a|b|c|d|e|f", "g"), simple("a|b|cd|e|f", "g")
    found = align(a, b, APART)
    drawn = found.within(np.array([1, 2]))

    assert nested(found.a, a) == [[-1, 0, 1, 2], [-1, 2, 3, 4], [-1, 5]]
    assert nested(drawn.a, a) == [[-1, -1, -1, -1], [-1, -1, 0, 1], [-1, 2]]
    assert nested(drawn.b, b) == [[-1, -1, -1, -1], [-1, 0, 1], [-1, 2]]
    assert (drawn.count, drawn.documents, drawn.different) == (3, 2, 0)


@given(two_readings(), st.data())
def test_drawn_rows_hold_whole_spans_only(readings: tuple[Known, Known, Packing], data: st.DataObject) -> None:
    """The spans of drawn rows are those of all rows that have no token of A elsewhere, in the same order."""
    a, b, packing = readings
    assume(a.reading.rows.num_rows)
    rows = data.draw(st.sets(st.integers(0, a.reading.rows.num_rows - 1)))
    found = align(a.reading, b.reading, packing)
    drawn = found.within(np.array(sorted(rows), dtype=np.int64))
    inside = {token for row, ids in enumerate(a.reading.rows["ids"].to_pylist()) if row in rows for token in ids}
    pairs = zip(tokens_of(found, found.a, a), tokens_of(found, found.b, b), strict=True)
    kept = [pair for pair in pairs if pair[0] <= inside]

    assert list(zip(tokens_of(drawn, drawn.a, a), tokens_of(drawn, drawn.b, b), strict=True)) == kept


# Real tokenizers


@given(contents=st.lists(st.text("atheceb é日\n", max_size=20).filter(str.strip), min_size=1, max_size=4), packing=PACKINGS)
def test_real_tokenizers_share_the_text_of_each_span(
    contents: list[str], packing: Packing, tiny_tokenizer: PreTrainedTokenizerBase, sentence_piece_tokenizer: PreTrainedTokenizerBase
) -> None:
    """A byte-level and a SentencePiece-like tokenizer have the same bytes in every span, but for the space before a document."""
    names = [str(number) for number in range(len(contents))]
    texts = DOCUMENTS.build({"document": range(len(contents)), "name": names, "text": contents, "held_out": [False] * len(contents)})
    readings, bytes_of = [], []
    for tokenizer in (tiny_tokenizer, sentence_piece_tokenizer):
        pieces = token_bytes(tokenizer, len(tokenizer))
        readings.append(Reading(rows_of(list(encode(texts, tokenizer)), packing, tokenizer, pieces), pieces))
    found = align(readings[0], readings[1], packing)
    for units, reading in zip((found.a, found.b), readings, strict=True):
        spans_of: list[bytes] = [b""] * found.count
        ids = [token for row in reading.rows["ids"].to_pylist() for token in row]
        for token, span in zip(ids, units.span.tolist(), strict=True):
            if span >= 0:
                spans_of[span] += reading.pieces[token]
        bytes_of.append(spans_of)

    assert found.different == 0
    assert all(two in (one, b" " + one) for one, two in zip(*bytes_of, strict=True))
    if packing.keep_partial:
        assert b"".join(bytes_of[0]) == "".join(contents).encode()
