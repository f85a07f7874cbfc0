from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.errors import UserError
from builders.text.rows import padded
from builders.text.sources import DOCUMENTS, documents, files, hub, python_docs
from builders.text.tokens import TOKENS, Encoded, Packing, encode, pack, token_rows
from builders.text.vocabulary import token_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

BOS, EOS = 1000, 1001
SPECIALS: Any = SimpleNamespace(bos_token_id=BOS, eos_token_id=EOS, all_special_ids=[BOS, EOS])
NO_SPECIALS: Any = SimpleNamespace(bos_token_id=None, eos_token_id=None, all_special_ids=[])


@pytest.fixture(scope="module")
def pieces(tiny_tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """Return the bytes of each id of the tiny tokenizer."""
    return token_bytes(tiny_tokenizer, len(tiny_tokenizer))


@pytest.fixture(scope="module")
def first() -> list[tuple[str, str]]:
    """Return the documents of Python's own text up to the module `abc`."""
    found = []
    for document in python_docs():
        found.append(document)
        if document[0] == "module abc":
            break
    return found


def texts(*contents: str) -> pa.Table:
    """Return DOCUMENTS rows, every second one held out."""
    names = [f"text {number}" for number in range(len(contents))]
    held_out = [number % 2 == 1 for number in range(len(contents))]
    return DOCUMENTS.build({"document": range(len(contents)), "name": names, "text": list(contents), "held_out": held_out})


class TestPythonDocs:
    """The text that every machine has."""

    def test_topics_come_first_then_modules(self, first: list[tuple[str, str]]) -> None:
        """The documents are the language's topics, then modules by their dotted names, each with text and a name of its own."""
        kinds = [name.split()[0] for name, _ in first]
        count = kinds.count("topic")
        assert count > 50
        assert kinds == ["topic"] * count + ["module"] * (len(kinds) - count)
        names = [name for name, _ in first]
        assert len(set(names)) == len(names)
        assert names[:count] == sorted(names[:count])
        assert all(text.strip() for _, text in first)

    def test_a_module_gives_its_docstrings(self, first: list[tuple[str, str]]) -> None:
        """A module's text is its docstring and those of its classes and functions under their names."""
        found = dict(first)
        assert found["module abc"].startswith("Abstract Base Classes (ABCs) according to PEP 3119.")
        assert "\n\nabstractmethod\nA decorator indicating abstract methods." in found["module abc"]


class TestFiles:
    """Documents from files."""

    def test_text_files_are_one_document_each(self, tmp_path: Path) -> None:
        """Files that a glob matches are read in the order of their names, folders below included."""
        (tmp_path / "deep").mkdir()
        for name, text in (("b.txt", "Two\n"), ("a.txt", "One: é"), ("deep/c.txt", "Three")):
            (tmp_path / name).write_text(text, encoding="utf-8")
        assert list(files([f"{tmp_path}/**/*.txt"], "text")) == [("a.txt", "One: é"), ("b.txt", "Two\n"), ("c.txt", "Three")]

    def test_json_lines_are_one_document_a_line(self, tmp_path: Path) -> None:
        """A line's document is its column, named by file and line from 1."""
        (tmp_path / "a.jsonl").write_text('{"body": "One"}\n{"body": "Zwei: ü", "more": 3}\n', encoding="utf-8")
        assert list(files([str(tmp_path / "a.jsonl")], "body")) == [("a.jsonl:1", "One"), ("a.jsonl:2", "Zwei: ü")]

    def test_parquet_rows_are_one_document_each(self, tmp_path: Path) -> None:
        """A row's document is its column, named by file and row from 0; a null is an empty text."""
        pq.write_table(pa.table({"n": [1, 2, 3], "body": ["One", None, "Three"]}), tmp_path / "a.parquet", row_group_size=2)
        assert list(files([str(tmp_path / "a.parquet")], "body")) == [("a.parquet:0", "One"), ("a.parquet:1", ""), ("a.parquet:2", "Three")]

    def test_sources_follow_each_other(self, tmp_path: Path) -> None:
        """Patterns are read in the order in which they are given."""
        (tmp_path / "z.txt").write_text("first")
        (tmp_path / "a.jsonl").write_text('{"text": "second"}\n')
        patterns = [str(tmp_path / "z.txt"), str(tmp_path / "a.jsonl")]
        assert [text for _, text in files(patterns, "text")] == ["first", "second"]

    def test_a_null_in_json_lines_is_no_word(self, tmp_path: Path) -> None:
        """A null is an empty text, as it is in parquet, and not the word None."""
        (tmp_path / "a.jsonl").write_text('{"text": null}\n')
        assert list(files([str(tmp_path / "a.jsonl")], "text")) == [("a.jsonl:1", "")]

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            pytest.param("a.csv", b"text\n", "a.csv ends in '.csv'; .txt, .jsonl and .parquet", id="ending"),
            pytest.param("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', "a.jsonl:2 has no text under 'text'", id="no-field"),
            pytest.param("a.jsonl", b'{"text": "x"\n', "a.jsonl:1 has no text under 'text'", id="no-json"),
            pytest.param("a.jsonl", b'["text"]\n', "a.jsonl:1 has no text under 'text'", id="no-object"),
            pytest.param("a.txt", "é".encode("latin-1"), "a.txt", id="no-utf8"),
            pytest.param("a.parquet", b"PAR?", "a.parquet", id="no-parquet"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_one_line(self, name: str, content: bytes, said: str, tmp_path: Path) -> None:
        """An error in a file is one line that names the file, and the line in it if the file has lines."""
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            list(files([str(tmp_path / name)], "text"))
        assert said in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_column_lists_those_there_are(self, tmp_path: Path) -> None:
        """A parquet file without the column says which columns it has."""
        pq.write_table(pa.table({"body": ["x"], "title": ["y"]}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=r"a\.parquet has no column 'text'; set `column` to one of: body, title$"):
            list(files([str(tmp_path / "a.parquet")], "text"))

    def test_a_column_of_numbers_is_no_text(self, tmp_path: Path) -> None:
        """A parquet column that holds no strings is refused by its name."""
        pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match="text"):
            list(documents(files([str(tmp_path / "a.parquet")], "text"), 0.1))

    def test_a_glob_without_a_match_is_named(self, tmp_path: Path) -> None:
        """A pattern that matches nothing is quoted."""
        with pytest.raises(UserError, match=r"no file matches '.*\*\.txt'"):
            list(files([f"{tmp_path}/*.txt"], "text"))


class TestHub:
    """Documents from a Hub dataset, for which a local folder stands in."""

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> str:
        """Return a dataset of three texts."""
        lines = [json.dumps({"text": text}) for text in ("One", "Two", "Three")]
        (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
        return str(tmp_path)

    def test_the_first_documents_are_streamed(self, dataset: str) -> None:
        """The first *limit* documents are taken, named by repository and number."""
        assert list(hub(dataset, "main", "train", "text", None, 2)) == [(f"{dataset}:0", "One"), (f"{dataset}:1", "Two")]

    def test_a_limit_above_the_size_takes_all(self, dataset: str) -> None:
        """All documents of a dataset that is shorter than the limit are taken."""
        assert [text for _, text in hub(dataset, "main", "train", "text", None, 99)] == ["One", "Two", "Three"]

    @pytest.mark.parametrize(
        ("split", "column", "said"),
        [("train", "body", "has no column 'body'; set `column` to one of: text"), ("test", "text", "Available splits: ['train']")],
    )
    def test_what_is_not_there_is_told(self, split: str, column: str, said: str, dataset: str) -> None:
        """The error for a split or column that the dataset lacks is one line that lists the existing ones."""
        with pytest.raises(UserError) as caught:
            list(hub(dataset, "main", split, column, None, 1))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


class TestDocuments:
    """Documents as rows."""

    def test_documents_are_numbered_rows(self) -> None:
        """Each document is a row with its place, name and text as they are."""
        (rows,) = documents(iter([("a", " One "), ("b", ""), ("c", "Three")]), 0.0)
        DOCUMENTS.validate(rows)
        assert rows.drop_columns("held_out").to_pylist() == [
            {"document": 0, "name": "a", "text": " One "},
            {"document": 1, "name": "b", "text": ""},
            {"document": 2, "name": "c", "text": "Three"},
        ]

    def test_rows_come_a_row_group_at_a_time(self) -> None:
        """A long source comes in groups of a thousand, numbered on from group to group."""
        groups = list(documents(((f"d{n}", "text") for n in range(2_001)), 0.5))
        assert [group.num_rows for group in groups] == [1_000, 1_000, 1]
        assert [n for group in groups for n in group["document"].to_pylist()] == list(range(2_001))

    def test_the_share_held_out_is_kept(self) -> None:
        """About the share asked for is held out; 0 holds out none and 1 all."""
        names = [(f"document {n}", "text") for n in range(1_000)]

        def share(of: float) -> float:
            return float(np.mean([flag for rows in documents(iter(names), of) for flag in rows["held_out"].to_pylist()]))

        assert share(0.0) == 0
        assert share(1.0) == 1
        assert share(0.2) == pytest.approx(0.2, abs=0.05)  # four standard errors

    @given(st.sets(st.text(max_size=5), min_size=2, max_size=20), st.randoms())
    def test_a_document_keeps_its_side(self, names: set[str], random: Any) -> None:
        """Whether a document is held out depends on its name alone, whatever comes before or after it."""

        def sides(order: list[str]) -> dict[str, bool]:
            (rows,) = documents(iter([(name, "text") for name in order]), 0.5)
            return dict(zip(rows["name"].to_pylist(), rows["held_out"].to_pylist(), strict=True))

        whole = sides(sorted(names))
        fewer = random.sample(sorted(names), len(names) - 1)
        assert sides(fewer) == {name: whole[name] for name in fewer}

    @pytest.mark.parametrize("source", [[], [("a", " \n"), ("b", "")]])
    def test_no_text_at_all_is_an_error(self, source: list[tuple[str, str]]) -> None:
        """A source of no documents, or of blank ones, is refused with their number."""
        with pytest.raises(UserError, match=f"{len(source)} documents hold no text"):
            list(documents(iter(source), 0.1))


class TestEncode:
    """Documents to ids."""

    def test_documents_keep_their_numbers_and_sides(self, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """Each document's ids come with its number and side; no BOS or EOS is added."""
        encoded = list(encode(texts("the mill", "", "the"), tiny_tokenizer))
        assert [(document, held_out) for document, held_out, _ in encoded] == [(0, False), (1, True), (2, False)]
        assert encoded[1][2] == []
        assert tiny_tokenizer.decode(encoded[0][2]) == "the mill"
        assert encoded[2][2] == encoded[0][2][: len(encoded[2][2])]

    def test_text_that_spells_a_special_token_is_text(self, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """A document that contains the text `</s>` becomes ordinary tokens: it gets no special token."""
        ((_, _, ids),) = encode(texts("the tag </s> ends it"), tiny_tokenizer)
        assert set(ids).isdisjoint(tiny_tokenizer.all_special_ids)
        assert tiny_tokenizer.decode(ids) == "the tag </s> ends it"


CORPORA = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 99), max_size=12)), max_size=8).map(
    lambda drawn: [(document, held_out, ids) for document, (held_out, ids) in enumerate(drawn)]
)
PACKINGS = st.builds(Packing, st.integers(2, 6), st.sampled_from(["row", "none"]), st.booleans(), st.booleans())


THREE: list[Encoded] = [(0, False, [1, 2, 3, 4, 5]), (1, False, [6]), (2, False, [7, 8, 9])]


def packed(corpus: list[Encoded], **choices: Any) -> list[Encoded]:
    """Return the rows of *corpus* by a packing of length 4 with *choices*."""
    usual = {"length": 4, "bos": "none", "join": False, "keep_partial": True}
    return list(pack(corpus, SPECIALS, Packing(**{**usual, **choices})))


class TestPack:
    """Ids to rows."""

    def test_documents_kept_apart(self) -> None:
        """A row never holds two documents; the rest of each is a short row."""
        assert packed(THREE) == [(0, False, [1, 2, 3, 4]), (0, False, [5]), (1, False, [6]), (2, False, [7, 8, 9])]

    def test_short_rows_dropped(self) -> None:
        """Without partial rows only full rows are kept."""
        assert packed(THREE, keep_partial=False) == [(0, False, [1, 2, 3, 4])]

    def test_bos_takes_a_place_in_every_row(self) -> None:
        """BOS stands before every row and counts towards its length."""
        assert packed(THREE, bos="row") == [
            (0, False, [BOS, 1, 2, 3]),
            (0, False, [BOS, 4, 5]),
            (1, False, [BOS, 6]),
            (2, False, [BOS, 7, 8, 9]),
        ]

    def test_joined_documents_carry_over(self) -> None:
        """Joined documents end with EOS and the next one follows in the same row; a row names the document of its first token."""
        assert packed(THREE, join=True) == [(0, False, [1, 2, 3, 4]), (0, False, [5, EOS, 6, EOS]), (2, False, [7, 8, 9, EOS])]

    def test_joined_rows_with_bos(self) -> None:
        """Joined rows also begin with BOS, and a last row that is too short is dropped with the partial rows."""
        rows = [(0, False, [BOS, 1, 2, 3]), (0, False, [BOS, 4, 5, EOS]), (1, False, [BOS, 6, EOS, 7]), (2, False, [BOS, 8, 9, EOS])]
        assert packed(THREE, join=True, bos="row") == rows
        assert packed(THREE[:2], join=True, bos="row", keep_partial=False) == rows[:2]

    def test_a_row_belongs_to_the_document_it_begins_in(self) -> None:
        """A row that begins with a document's last token, or with its EOS, names that document."""
        corpus: list[Encoded] = [(5, False, [1, 2, 3, 4]), (6, False, [7, 8, 9, 9, 9])]
        assert packed(corpus, join=True) == [(5, False, [1, 2, 3, 4]), (5, False, [EOS, 7, 8, 9]), (6, False, [9, 9, EOS])]

    def test_joined_sides_stay_apart(self) -> None:
        """Held-out documents are joined only with each other, even if other documents stand between them."""
        corpus: list[Encoded] = [(0, False, [1, 2]), (1, True, [6, 7]), (2, False, [3]), (3, True, [8])]
        assert packed(corpus, join=True) == [(0, False, [1, 2, EOS, 3]), (1, True, [6, 7, EOS, 8]), (2, False, [EOS]), (3, True, [EOS])]

    @given(CORPORA, PACKINGS)
    def test_every_token_is_there_once_and_in_order(self, corpus: list[Encoded], packing: Packing) -> None:
        """With partial rows kept, the rows of a side hold exactly its tokens in order; without them, less than one row is lost."""
        rows = list(pack(corpus, SPECIALS, packing))
        bos = [BOS] if packing.bos == "row" else []
        size = packing.length - len(bos)
        for side in (False, True):
            of_side = [(document, [*ids, EOS] if packing.join else ids) for document, held_out, ids in corpus if held_out is side]
            stream = [token for _, ids in of_side for token in ids]
            got = [(document, ids) for document, held_out, ids in rows if held_out is side]
            assert all(ids[: len(bos)] == bos for _, ids in got)
            tokens = [token for _, ids in got for token in ids[len(bos) :]]
            if packing.keep_partial:
                assert tokens == stream
            elif packing.join:
                assert tokens == stream[: len(stream) // size * size]
            else:
                assert tokens == [token for _, ids in of_side for token in ids[: len(ids) // size * size]]

    @given(CORPORA, PACKINGS)
    def test_rows_have_their_length_and_document(self, corpus: list[Encoded], packing: Packing) -> None:
        """Rows are never empty or too long, only a last one is short, and each names the document of its first token."""
        rows = list(pack(corpus, SPECIALS, packing))
        bos = packing.bos == "row"
        for side in (False, True):
            got = [(document, ids[bos:]) for document, held_out, ids in rows if held_out is side]
            size = packing.length - bos
            owners = [document for document, held_out, ids in corpus if held_out is side for _ in [*ids, *([EOS] if packing.join else [])]]
            starts = [start for start, owner in enumerate(owners) if starts_row(owners, start, size, packing.join)]
            full = [start for start in starts if packing.keep_partial or run_length(owners, start, packing.join) >= size]
            assert [document for document, _ in got] == [owners[start] for start in full]
            assert all(0 < len(ids) <= size for _, ids in got)
            assert packing.keep_partial or all(len(ids) == size for _, ids in got)

    @given(CORPORA, st.booleans())
    def test_held_out_never_mixes(self, corpus: list[Encoded], join: bool) -> None:
        """Every row holds tokens of one side only (held out or not), however documents are packed."""
        marked = [(document, held_out, [token + 100 * held_out for token in ids]) for document, held_out, ids in corpus]
        for _, held_out, ids in packed(marked, join=join):
            assert {token >= 100 for token in ids if token != EOS} <= {held_out}

    @pytest.mark.parametrize(
        ("choices", "said"),
        [({"bos": "row"}, r"tokens\.bos is `row` but .* no BOS token"), ({"join": True}, "`joined` but .* no EOS token")],
    )
    def test_a_missing_special_token_is_named(self, choices: dict[str, Any], said: str) -> None:
        """A packing that needs a token which the tokenizer lacks says which setting to change."""
        packing = Packing(**{"length": 4, "bos": "none", "join": False, "keep_partial": True, **choices})
        with pytest.raises(UserError, match=said):
            list(pack(THREE, NO_SPECIALS, packing))

    @pytest.mark.parametrize("join", [False, True])
    def test_a_row_needs_room_for_text(self, join: bool) -> None:
        """A row of length one, which only BOS fills, is refused before any row is made."""
        with pytest.raises(UserError, match="length"):
            next(pack(THREE, SPECIALS, Packing(1, "row", join, keep_partial=True)), None)


def starts_row(owners: list[int], start: int, size: int, join: bool) -> bool:
    """Return whether a row begins at token *start* of a side whose tokens belong to *owners*."""
    return (start if join else start - owners.index(owners[start])) % size == 0


def run_length(owners: list[int], start: int, join: bool) -> int:
    """Return how many tokens there are from *start* for its row."""
    return len(owners) - start if join else owners[start:].count(owners[start])


class TestTokenRows:
    """Rows with their text."""

    def test_rows_say_what_they_cover(self, tiny_tokenizer: PreTrainedTokenizerBase, pieces: list[bytes]) -> None:
        """A row holds its ids, which of them are special, and the bytes and text of the others."""
        ids = tiny_tokenizer("the café", add_special_tokens=False)["input_ids"]
        (rows,) = token_rows([(7, True, [0, *ids, 1])], "tiny", tiny_tokenizer, pieces)
        TOKENS.validate(rows)
        assert rows.to_pylist() == [
            {
                "subject": "tiny",
                "row": 0,
                "document": 7,
                "held_out": True,
                "ids": [0, *ids, 1],
                "special": [True, *[False] * len(ids), True],
                "bytes": len("the café".encode()),
                "text": "the café",
            }
        ]

    def test_a_character_cut_in_two_counts_its_bytes(self, tiny_tokenizer: PreTrainedTokenizerBase, pieces: list[bytes]) -> None:
        """If a cut between rows splits a character, the bytes still add up, and the text shows a replacement character."""
        ids = tiny_tokenizer("字", add_special_tokens=False)["input_ids"]
        assert len(ids) == 3
        (rows,) = token_rows([(0, False, ids[:2]), (0, False, ids[2:])], "tiny", tiny_tokenizer, pieces)
        assert rows["bytes"].to_pylist() == [2, 1]
        assert all("\ufffd" in text for text in rows["text"].to_pylist())

    def test_rows_come_a_row_group_at_a_time(self, tiny_tokenizer: PreTrainedTokenizerBase, pieces: list[bytes]) -> None:
        """Many rows come in groups of the table's size, numbered on."""
        groups = list(token_rows(((0, False, [5]) for _ in range(TOKENS.row_group + 3)), "tiny", tiny_tokenizer, pieces))
        assert [group.num_rows for group in groups] == [TOKENS.row_group, 3]
        assert groups[1]["row"].to_pylist() == [TOKENS.row_group + n for n in range(3)]

    @given(contents=st.lists(st.text(max_size=20), min_size=1, max_size=4), packing=PACKINGS)
    def test_bytes_add_up_to_the_text(
        self, contents: list[str], packing: Packing, tiny_tokenizer: PreTrainedTokenizerBase, pieces: list[bytes]
    ) -> None:
        """From text to rows no byte is lost or counted twice, however rows are packed, as long as partial rows are kept."""
        kept = Packing(packing.length, packing.bos, packing.join, keep_partial=True)
        rows = token_rows(pack(encode(texts(*contents), tiny_tokenizer), tiny_tokenizer, kept), "tiny", tiny_tokenizer, pieces)
        covered = sum(count for group in rows for count in group["bytes"].to_pylist())
        assert covered == sum(len(text.encode()) for text in contents)


class TestPadded:
    """Rows of different lengths as a matrix."""

    @given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6), st.data())
    def test_short_rows_are_filled_up_on_the_right(self, lists: list[list[int]], data: st.DataObject) -> None:
        """Each row of the matrix is a list and then the padding, also for a slice of a table in several chunks."""
        cut = data.draw(st.integers(0, len(lists)))
        start = data.draw(st.integers(0, len(lists)))
        of_ints = pa.list_(pa.int32())
        rows = pa.table({"ids": pa.chunked_array([pa.array(lists[:cut], of_ints), pa.array(lists[cut:], of_ints)])}).slice(start)
        longest = max((len(ids) for ids in lists[start:]), default=0)
        matrix = padded(rows, "ids", -1)
        assert matrix.dtype == np.int32
        assert matrix.shape == (len(lists) - start, longest)
        assert matrix.tolist() == [[*ids, *[-1] * (longest - len(ids))] for ids in lists[start:]]

    def test_flags_are_filled_too(self) -> None:
        """A list of booleans keeps its type."""
        rows = pa.table({"special": [[True, False], [False]]})
        matrix = padded(rows, "special", True)
        assert matrix.dtype == np.bool_
        assert matrix.tolist() == [[True, False], [False, True]]
