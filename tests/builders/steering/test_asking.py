"""Questions as token ids."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from builders.errors import UserError
from builders.steering.asking import Prompt, prompts
from builders.steering.behaviours import Pair, read_pairs
from builders.steering.orders import exchanged, numbered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION = "Would you go?\n\nChoices:\n (A) Yes\n (B) No"
PAIR = Pair(QUESTION, "A", "B", "pairs.json[0]")
TEMPLATE = "Ask: {question}\n\nReply: ("
REAL = "INTERPLAKE_REAL_DATA"
COUNTS = {
    "coordinate-other-ais": 360,
    "corrigible-neutral-HHH": 290,
    "hallucination": 1000,
    "myopic-reward": 950,
    "refusal": 408,
    "survival-instinct": 903,
    "sycophancy": 1000,
}


def byte_level(*merges: tuple[str, str]) -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer of all bytes, *merges* in this order, and `<|bos|>` and `<|eos|>`, which are ids 0 and 1."""
    names = ["<|bos|>", "<|eos|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<|bos|>", "<|eos|>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|bos|>", eos_token="<|eos|>")  # noqa: S106


def metaspace(*pieces: str) -> PreTrainedTokenizerBase:
    """Return a SentencePiece-like tokenizer: it puts `▁` before a text and knows *pieces* of one or two characters; all else is `<unk>`."""
    names = dict.fromkeys(["<unk>", *"".join(pieces), *pieces])
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(piece[0], piece[1]) for piece in pieces if len(piece) == 2]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=False))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")  # noqa: S106


@pytest.fixture(scope="module")
def plain() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer that merges nothing: one token a byte."""
    return byte_level()


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer trained as the lab's is, on questions."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|bos|>", "<|eos|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEMPLATE.replace("{question}", QUESTION)] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=specials[0], eos_token=specials[1])


@pytest.fixture(scope="module")
def real() -> dict[tuple[str, str], list[Pair]]:
    """Return the pairs of each file."""
    names = {"generate": "generate_dataset.json", "test": "test_dataset_ab.json"}
    folder = Path(os.environ[REAL]) / "caa"
    return {(split, behaviour): read_pairs(folder / split / behaviour / name) for split, name in names.items() for behaviour in COUNTS}


class TestPrompts:
    """Prompts as token ids."""

    def test_ids_are_known_bytes(self, plain: PreTrainedTokenizerBase) -> None:
        """A prompt ends with its template, and each answer is the token of its letter."""
        expected = plain.convert_tokens_to_ids(list("AB(1)("))
        letters = dict(zip("AB", plain.convert_tokens_to_ids(["A", "B"]), strict=True))
        (prompt,) = prompts([Pair("B(1)", "B", "A", "")], "A{question}(", plain, bos=False)
        assert prompt == Prompt(tuple(expected), letters["B"], letters["A"], "B(1)")
        assert len(prompt.ids) == 6

    def test_bos_comes_first_where_asked_for(self, trained: PreTrainedTokenizerBase) -> None:
        """BOS is one more id at the beginning and changes nothing else."""
        (without_bos,) = prompts([PAIR], TEMPLATE, trained, bos=False)
        (with_bos,) = prompts([PAIR], TEMPLATE, trained, bos=True)
        assert with_bos.ids == (trained.bos_token_id, *without_bos.ids)
        assert trained.bos_token_id not in without_bos.ids
        assert (with_bos.matching, with_bos.other) == (without_bos.matching, without_bos.other)

    def test_special_tokens_that_a_tokenizer_adds_are_left_out(self) -> None:
        """Tokenizers that put BOS before and EOS after every text put neither here: BOS comes once, and nothing after the prompt."""
        tokenizer = byte_level()
        added = processors.TemplateProcessing(single="<|bos|> $A <|eos|>", special_tokens=[("<|bos|>", 0), ("<|eos|>", 1)])
        tokenizer.backend_tokenizer.post_processor = added
        assert tokenizer("A")["input_ids"][::2] == [0, 1]
        (prompt,) = prompts([PAIR], TEMPLATE, tokenizer, bos=True)
        assert prompt == prompts([PAIR], TEMPLATE, byte_level(), bos=True)[0]

    def test_no_bos_where_there_is_none(self) -> None:
        """A tokenizer without BOS puts nothing first."""
        tokenizer = metaspace("(", "A", "B", "q")
        assert prompts([Pair("q", "A", "B", "")], "{question}(", tokenizer, True) == prompts(
            [Pair("q", "A", "B", "")], "{question}(", tokenizer, False
        )

    def test_a_template_that_begins_with_bos_has_one(self, plain: PreTrainedTokenizerBase) -> None:
        """BOS is not put before a template that spells it."""
        (prompt,) = prompts([PAIR], "<|bos|>{question}(", plain, bos=True)
        assert prompt.ids[0] == 0
        assert 0 not in prompt.ids[1:]
        assert prompt == prompts([PAIR], "{question}(", plain, bos=True)[0]

    def test_pairs_keep_their_order(self, trained: PreTrainedTokenizerBase) -> None:
        """Each pair has its own prompt, the same as if it came alone."""
        pairs = [PAIR, numbered(PAIR), Pair("Else?\n(C) x\n(D) y", "D", "C", "")]
        together = prompts(pairs, TEMPLATE, trained, bos=True)
        assert [prompt.question for prompt in together] == [pair.question for pair in pairs]
        assert together == [prompts([pair], TEMPLATE, trained, bos=True)[0] for pair in pairs]
        assert [trained.decode([prompt.matching, prompt.other]) for prompt in together] == ["AB", "12", "DC"]

    def test_no_pairs_make_no_prompts(self, plain: PreTrainedTokenizerBase) -> None:
        """An empty list is fine, which tokenizers themselves refuse."""
        assert prompts([], TEMPLATE, plain, bos=True) == []

    def test_special_tokens_in_questions_stay_text(self, plain: PreTrainedTokenizerBase) -> None:
        """A question that spells BOS or EOS holds their characters and not those tokens."""
        (prompt,) = prompts([Pair("<|eos|> or <|bos|>?", "A", "B", "")], TEMPLATE, plain, bos=True)
        assert [token for token in prompt.ids if token < 2] == [0]
        assert plain.decode(prompt.ids[1:]) == "Ask: <|eos|> or <|bos|>?\n\nReply: ("

    def test_special_tokens_in_the_template_are_tokens(self, plain: PreTrainedTokenizerBase) -> None:
        """Chat templates hold special tokens, which a model has only ever read as such."""
        (prompt,) = prompts([Pair("B", "A", "B", "")], "A{question}<|eos|>(", plain, bos=False)
        assert list(prompt.ids) == plain.convert_tokens_to_ids(["A", "B", "<|eos|>", "("])

    def test_special_tokens_in_both_are_refused(self, plain: PreTrainedTokenizerBase) -> None:
        """Where the template has special tokens, a question that spells one of any kind would not stay text."""
        with pytest.raises(UserError) as caught:
            prompts([PAIR, Pair("Is it <|bos|>?", "A", "B", "x[1]")], "{question}<|eos|>(", plain, bos=False)
        assert str(caught.value) == (
            "x[1]: the question spells <|bos|>, which would be a special token like the template's <|eos|>; "
            "take the row out, or the special tokens out of the template"
        )

    @pytest.mark.parametrize("question", ["{x}", "{question}", "{{}} {0!r} {", "%s $x \\1 \\g<0>"])
    def test_questions_are_put_in_literally(self, question: str, plain: PreTrainedTokenizerBase) -> None:
        """Braces and the like mean nothing in a question, not even the template's own place holder, nor do other braces in a template."""
        (prompt,) = prompts([Pair(question, "A", "B", "")], "{0} {question} {x}(", plain, bos=False)
        assert plain.decode(prompt.ids) == f"{{0}} {question} {{x}}("

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            ("Answer: (", "template 'Answer: (': it drops the question; put {question} where the question belongs"),
            ("{Question} (", "template '{Question} (': it drops the question; put {question} where the question belongs"),
            ("{question}\n{question} (", "template '{question}\\n{question} (': it asks the question 2 times; keep one {question}"),
        ],
    )
    def test_a_template_asks_once(self, template: str, said: str, plain: PreTrainedTokenizerBase) -> None:
        """A template without a place for the question, or with two, is refused, even where there is nothing to ask."""
        for pairs in ([PAIR], []):
            with pytest.raises(UserError) as caught:
                prompts(pairs, template, plain, bos=False)
            assert str(caught.value) == said

    def test_a_letter_is_found_where_it_stands(self) -> None:
        """A SentencePiece-like tokenizer has another token for a letter that begins a text; that one is never meant."""
        tokenizer = metaspace("▁A", "▁B", "(", "q", "▁q")
        alone = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB"]
        assert alone == [[tokenizer.convert_tokens_to_ids("▁A")], [tokenizer.convert_tokens_to_ids("▁B")]]
        (prompt,) = prompts([Pair("q", "A", "B", "")], "{question}(", tokenizer, bos=False)
        ids = dict(zip(["▁q", "(", "A", "B"], tokenizer.convert_tokens_to_ids(["▁q", "(", "A", "B"]), strict=True))
        assert prompt == Prompt((ids["▁q"], ids["("]), ids["A"], ids["B"], "q")

    @pytest.mark.parametrize("merged", [True, False])
    def test_a_space_before_the_letters_may_be_a_token(self, merged: bool) -> None:
        """A letter after a space is one token to some tokenizers and two to others; there the prompt ends with the space."""
        tokenizer = byte_level(*([("Ġ", "C"), ("Ġ", "D")] if merged else []))
        (prompt,) = prompts([Pair("q", " C", " D", "", said="A")], "{question}(", tokenizer, bos=False)
        tokens = tokenizer.convert_ids_to_tokens([*prompt.ids, prompt.matching, prompt.other])
        assert tokens == ["q", "(", "A", *(["ĠC", "ĠD"] if merged else ["Ġ", "C", "D"])]

    def test_what_is_said_already_stands_before_the_letter(self, plain: PreTrainedTokenizerBase) -> None:
        """A pair whose answer has begun asks for the letter that follows: its prompt ends with what is said."""
        (begun,) = prompts([replace(PAIR, said="(A, ")], TEMPLATE, plain, bos=False)
        (bare,) = prompts([PAIR], TEMPLATE + "(A, ", plain, bos=False)
        assert begun == bare

    def test_a_letter_that_merges_is_refused(self) -> None:
        """Where the template's end and a letter become one token, both are shown, and the other format is offered."""
        tokenizer = byte_level(("Ġ", "("), ("Ġ(", "B"))
        with pytest.raises(UserError) as caught:
            prompts([PAIR], TEMPLATE, tokenizer, bos=True)
        assert str(caught.value) == (
            "pairs.json[0]: the template's end ('Ġ(') and letter B become 'Ġ(B', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )
        (prompt,) = prompts([numbered(PAIR)], TEMPLATE, tokenizer, bos=True)
        assert tokenizer.convert_ids_to_tokens([prompt.ids[-1], prompt.matching, prompt.other]) == ["Ġ(", "1", "2"]

    def test_a_letter_that_divides_the_prompt_anew_is_refused(self) -> None:
        """One token more is not enough where the tokens before it are others than the prompt's."""
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], "{question}(", byte_level(("(", "A"), ("q", "(")), bos=False)
        assert str(caught.value) == (
            "x[2]: the template's end ('q(') and letter A become 'q' '(A', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )

    def test_a_number_that_merges_is_not_told_to_be_a_number(self) -> None:
        """What is numbered already is only told to change the template, which helps."""
        tokenizer = byte_level(("(", "2"))
        with pytest.raises(UserError) as caught:
            prompts([numbered(PAIR)], TEMPLATE, tokenizer, bos=False)
        assert str(caught.value) == (
            "pairs.json[0]: the template's end ('(') and letter 2 become '(2', where one token of its own is needed; "
            "end the template so that the letter stands alone"
        )
        assert len(prompts([numbered(PAIR)], "{question}\nReply: ", tokenizer, bos=False)) == 1

    def test_a_letter_of_several_tokens_is_refused(self) -> None:
        """A letter that brings a token with it, such as one for a space, is not one token."""
        tokenizer = metaspace("q", "A", "B", "(")
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split("A", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], "{question}(", tokenizer, bos=False)
        assert str(caught.value) == (
            "x[2]: letter A becomes '<unk>' 'A', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )

    @pytest.mark.parametrize("template", ["{question}(", "{question}"])
    def test_a_letter_that_vanishes_is_refused(self, template: str) -> None:
        """Where a tokenizer drops letters, they leave no trace after a prompt, be it empty or not."""
        tokenizer = byte_level()
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[a-zA-Z]"), "")
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], template, tokenizer, bos=False)
        assert "x[2]: letter A becomes nothing, where one token of its own is needed; end the" in str(caught.value)

    def test_an_unknown_letter_is_refused(self) -> None:
        """The token of all that is unknown is no letter's own, even where the other letter is known."""
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], "{question}(", metaspace("q", "(", "A"), bos=False)
        assert str(caught.value) == (
            "x[2]: letter B becomes '<unk>', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )

    @pytest.mark.parametrize(("letters", "more"), [("AB", ", or use format numbers"), ("12", "")])
    def test_letters_of_one_token_are_refused(self, letters: str, more: str) -> None:
        """A tokenizer that writes both letters alike cannot tell the answers apart."""
        tokenizer = byte_level()
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[AB12]"), "x")
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", *letters, "x[2]")], "{question}(", tokenizer, bos=False)
        said = f"the letters {letters[0]} and {letters[1]} are both 'x' to this tokenizer; take a subject whose tokenizer tells them apart"
        assert str(caught.value) == f"x[2]: {said}{more}"

    @given(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=30), st.sampled_from(["", "<|bos|>", "{question}", "\n(A) x\n(B) y"])
    )
    def test_ids_hold_the_question(self, trained: PreTrainedTokenizerBase, text: str, more: str) -> None:
        """Whatever a question holds, its prompt decodes to the template with the question in it."""
        pair = Pair(text + more, "A", "B", "")
        (prompt,) = prompts([pair], TEMPLATE, trained, bos=True)
        assert trained.decode(prompt.ids[1:], clean_up_tokenization_spaces=False) == f"Ask: {pair.question}\n\nReply: ("
        assert trained.decode([prompt.matching, prompt.other]) == "AB"


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no folder that holds caa/")
class TestRealData:
    """The published behaviours, where they are at hand."""

    def test_no_row_is_lost(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """There are as many pairs as in the published data (Rimsky et al. 2024)."""
        assert {behaviour: len(pairs) for (split, behaviour), pairs in real.items() if split == "generate"} == COUNTS
        assert {len(pairs) for (split, _), pairs in real.items() if split == "test"} == {50}

    def test_answers_beyond_b(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """In survival-instinct 88 and 4 rows are matched by C to H, never by B's stand-in, and 239 and 8 offer more than two options."""
        beyond = {key: [pair for pair in pairs if {pair.matching, pair.other} != {"A", "B"}] for key, pairs in real.items()}
        assert {key: len(pairs) for key, pairs in beyond.items() if pairs} == {
            ("generate", "survival-instinct"): 88,
            ("test", "survival-instinct"): 4,
        }
        assert {pair.other for pairs in beyond.values() for pair in pairs} == {"A"}
        assert {pair.matching for pairs in beyond.values() for pair in pairs} == set("CDEFGH")
        offered = {key: sum("\n (C)" in pair.question or "\n(C)" in pair.question for pair in pairs) for key, pairs in real.items()}
        assert {key: count for key, count in offered.items() if count} == {
            ("generate", "survival-instinct"): 239,
            ("test", "survival-instinct"): 8,
        }

    def test_all_can_be_numbered(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """Every pair has a numbered form with both answers among its options; 14 questions had a list of numbers of their own."""
        again = {key: [numbered(pair) for pair in pairs] for key, pairs in real.items()}
        clashes = 0
        for key, pairs in again.items():
            for old, new in zip(real[key], pairs, strict=True):
                assert (new.matching, new.other) == (str("ABCDEFGH".index(old.matching) + 1), str("ABCDEFGH".index(old.other) + 1))
                starts = [line.strip()[:3] for line in new.question.split("\n")]
                assert {f"({new.matching})", f"({new.other})"} <= set(starts)
                assert not {"(A)", "(B)", "(C)"} & set(starts)
                clashes += starts.count("(1)") > 1
        assert clashes == 14

    def test_all_become_prompts(self, real: dict[tuple[str, str], list[Pair]], trained: PreTrainedTokenizerBase) -> None:
        """Every pair, in both formats, is a prompt that ends before its letter."""
        for pairs in real.values():
            for some in (pairs, [numbered(pair) for pair in pairs]):
                made = prompts(some, TEMPLATE, trained, bos=True)
                assert [trained.decode([prompt.matching, prompt.other]) for prompt in made] == [pair.matching + pair.other for pair in some]
                assert trained.decode(made[-1].ids[1:]) == TEMPLATE.replace("{question}", some[-1].question)

    def test_all_can_be_exchanged(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """Every pair has both orders, and exchanged twice it is what it was."""
        for pairs in real.values():
            turned = [exchanged(pair) for pair in pairs]
            assert all(
                new.question != old.question and (new.matching, new.other) == (old.other, old.matching)
                for old, new in zip(pairs, turned, strict=True)
            )
            assert [exchanged(pair) for pair in turned] == pairs
