from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from builders.text.vocabulary import VOCABULARY, texts, token_bytes, vocabulary_rows

if TYPE_CHECKING:
    from pathlib import Path


def words(vocabulary: dict[str, int]) -> PreTrainedTokenizerBase:
    """Return a tokenizer of whole words, which has no decoder of its own."""
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")  # noqa: S106


class TestByteLevel:
    """Tokenizers of the GPT-2 kind."""

    def test_every_byte_has_a_token(self, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """The alphabet's 256 letters stand for the 256 bytes, each once."""
        pieces = token_bytes(tiny_tokenizer, len(tiny_tokenizer))
        assert sorted(piece for piece in pieces if len(piece) == 1) == [bytes([byte]) for byte in range(256)]

    def test_special_tokens_are_written_as_they_are(self, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """BOS and EOS stand for their own names."""
        assert token_bytes(tiny_tokenizer, 2) == [b"<s>", b"</s>"]

    @given(text=st.text(max_size=30))
    def test_pieces_join_to_the_text(self, text: str, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """The bytes of a text's tokens join to the text's bytes, whatever its characters."""
        pieces = token_bytes(tiny_tokenizer, len(tiny_tokenizer))
        ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(pieces[token] for token in ids) == text.encode()

    def test_added_tokens_are_written_as_they_are(self, tiny_checkpoint: Path) -> None:
        """A token that was added later is its own text, though its letters may also stand for bytes."""
        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
        size = len(tokenizer)
        tokenizer.add_tokens(["    ", "日本語", "naïve"])
        assert token_bytes(tokenizer, len(tokenizer))[size:] == [b"    ", "日本語".encode(), "naïve".encode()]

    def test_ids_beyond_the_tokenizer_are_empty(self, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """Ids that the model has but the tokenizer never makes have no bytes; fewer ids than it has cut the list."""
        size = len(tiny_tokenizer)
        pieces = token_bytes(tiny_tokenizer, size + 3)
        assert pieces[size:] == [b"", b"", b""]
        assert all(pieces[:size])
        assert token_bytes(tiny_tokenizer, 5) == pieces[:5]


class TestSentencePiece:
    """Tokenizers of the Llama 2 kind."""

    def test_pieces_are_words_spaces_and_bytes(self, sentence_piece_tokenizer: PreTrainedTokenizerBase) -> None:
        """`▁` is a space, `<0xNN>` a byte, a special token its name, and any other piece its letters."""
        tokenizer = sentence_piece_tokenizer
        pieces = token_bytes(tokenizer, len(tokenizer))
        names = ["▁", "▁the", "cat", "é", "<0x00>", "<0xC3>", "<0xFF>", "<s>", "</s>", "<unk>"]
        vocabulary = tokenizer.get_vocab()
        found = [pieces[vocabulary[name]] for name in names]
        assert found == [b" ", b" the", b"cat", b"\xc3\xa9", b"\x00", b"\xc3", b"\xff", b"<s>", b"</s>", b"<unk>"]

    @given(text=st.text(alphabet=st.one_of(st.sampled_from(" atheceb"), st.characters(codec="utf-8", exclude_characters="▁")), max_size=20))
    def test_pieces_join_to_the_text(self, text: str, sentence_piece_tokenizer: PreTrainedTokenizerBase) -> None:
        """The bytes of a text's tokens join to the text, after the space that this kind of tokenizer puts before it."""
        pieces = token_bytes(sentence_piece_tokenizer, len(sentence_piece_tokenizer))
        ids = sentence_piece_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(pieces[token] for token in ids) == (f" {text}" if text else "").encode()


class TestOthers:
    """Tokenizers of neither kind."""

    def test_words_are_what_the_tokenizer_decodes(self) -> None:
        """Without a known alphabet a token's bytes are those of its decoded text."""
        assert token_bytes(words({"the": 0, "Ġcafé": 1, "[UNK]": 2}), 4) == [b"the", "Ġcafé".encode(), b"[UNK]", b""]

    def test_a_hole_in_the_ids_hides_nothing_behind_it(self) -> None:
        """Ids that the tokenizer skips have no bytes, and the ids after them keep theirs."""
        assert token_bytes(words({"a": 0, "[UNK]": 1, "b": 5}), 7) == [b"a", b"[UNK]", b"", b"", b"", b"b", b""]


def test_rows_say_what_each_id_is() -> None:
    """A row is an id with its bytes, a readable form of them, whether it is special and how often it occurs."""
    rows = vocabulary_rows("tiny", [b"<s>", b" caf\xc3\xa9", b"\xc3", b"a\xffb", b""], {0}, np.array([3, 0, 1, 0, 0]))
    VOCABULARY.validate(rows)
    assert rows["subject"].to_pylist() == ["tiny"] * 5
    assert rows.drop_columns("subject").to_pylist() == [
        {"token": 0, "piece": "<s>", "bytes": b"<s>", "special": True, "count": 3},
        {"token": 1, "piece": " café", "bytes": b" caf\xc3\xa9", "special": False, "count": 0},
        {"token": 2, "piece": "\\xc3", "bytes": b"\xc3", "special": False, "count": 1},
        {"token": 3, "piece": "a\\xffb", "bytes": b"a\xffb", "special": False, "count": 0},
        {"token": 4, "piece": "", "bytes": b"", "special": False, "count": 0},
    ]


class TestTexts:
    """Rows of ids as text."""

    @pytest.mark.parametrize(
        ("ids", "expected"),
        [
            pytest.param([[0, 1], [1, 0]], ["the cat", " catthe"], id="words"),
            pytest.param([[2, 3], [0, 4]], ["é", "the"], id="a-character-of-two-tokens"),
            pytest.param([[0, 2], [3, 1]], ["the\ufffd", "\ufffd cat"], id="a-character-cut-in-two"),
            pytest.param(np.zeros((0, 2), np.int32), [], id="no-rows"),
            pytest.param(np.zeros((2, 0), np.int32), ["", ""], id="no-columns"),
        ],
    )
    def test_ids_become_text(self, ids: list[list[int]], expected: list[str]) -> None:
        """The bytes of each row's ids join to one text; a character that a row cuts shows as a replacement character."""
        pieces = pa.array([b"the", b" cat", b"\xc3", b"\xa9", b""], pa.binary())
        found = texts(np.array(ids, np.int32), pieces)
        assert found.type == pa.string()
        assert found.to_pylist() == expected

    @given(contents=st.lists(st.text(max_size=6), min_size=1, max_size=4), length=st.integers(1, 30))
    def test_texts_are_what_was_tokenized(self, contents: list[str], length: int, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
        """For texts cut or padded to one length, each row's text is the bytes of its ids."""
        pieces = token_bytes(tiny_tokenizer, len(tiny_tokenizer) + 1)
        filler = len(tiny_tokenizer)
        rows = [tiny_tokenizer(text, add_special_tokens=False)["input_ids"][:length] for text in contents]
        ids = np.array([[*row, *[filler] * (length - len(row))] for row in rows], np.int32)
        expected = [b"".join(pieces[token] for token in row).decode("utf-8", "replace") for row in rows]
        assert texts(ids, pa.array(pieces, pa.binary())).to_pylist() == expected
