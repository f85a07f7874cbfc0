"""Questions as token ids: in a subject's template, up to just before the letter of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from string import digits
from typing import TYPE_CHECKING

from builders.errors import UserError, one_of
from builders.steering.behaviours import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HOLE = "{question}"
SHOWN = 8  # at most so many tokens are shown in an error


@dataclass(frozen=True)
class Prompt:
    """The token ids of a question in its template, up to just before the answer's letter, and the token ids of both letters."""

    ids: tuple[int, ...]
    matching: int
    other: int
    question: str


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
