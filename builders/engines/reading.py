"""Reading: how an engine in this process turns requests into token ids, and which requests are too long for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.requests import Chat, Failure, Request, Token
from builders.errors import UserError


@dataclass(frozen=True)
class Read:
    """A request as token ids; those from *start* on are the continuation to be scored."""

    ids: list[int]
    start: int


def require_template(tokenizer: Any, model: str) -> None:
    """Raise UserError if the tokenizer has no chat template, without which a conversation cannot become text."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise no_template(model)


def no_template(model: str) -> UserError:
    """Return the error of a model without a chat template."""
    return UserError(f"{model}: its tokenizer has no chat template; choose an instruction-tuned model")


def too_long(tokens: int, room: int, model: str, limit: int) -> Failure:
    """Return the failure of a prompt of so many *tokens*, with *room* for its answer, where *model* reads *limit* tokens together."""
    needed = f"{tokens} tokens and {room} for the answer"
    return Failure("too long", f"the prompt has {needed}, but {model} reads {limit} together; show fewer examples")


@dataclass(frozen=True)
class Reader:
    """The tokenizer of *model*, and the *limit* of tokens for prompt and answer together (None: no limit)."""

    tokenizer: Any
    model: str
    limit: int | None

    def read(self, request: Request) -> Read | Failure:
        """Return a request as token ids, or a failure with both numbers if it is too long."""
        if isinstance(request, Chat):
            ids = self._conversation(request)
            found, room = Read(ids, len(ids)), request.max_tokens
        else:
            found, room = self._text(request.prompt, request.continuation), 1
        if self.limit is not None and len(found.ids) + room > self.limit:
            return too_long(len(found.ids), room, self.model, self.limit)
        return found

    def _conversation(self, request: Chat) -> list[int]:
        require_template(self.tokenizer, self.model)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _text(self, prompt: str, continuation: str) -> Read:
        encoded = self.tokenizer(prompt + continuation, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        # A token that straddles the border counts as prompt: its probability is not the continuation's alone.
        start = next((place for place, (low, high) in enumerate(offsets) if low >= len(prompt) and high > low), len(offsets))
        return Read(encoded["input_ids"], max(start, 1))

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def token_of(tokenizer: Any, chosen: int, logprobs: dict[int, float], most: int) -> Token:
    """Return the token *chosen* with its log-probability and the *most* likeliest tokens in its place."""
    top = sorted(logprobs.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    return Token(tokenizer.decode([chosen]), logprobs[chosen], tuple((tokenizer.decode([token]), value) for token, value in top))
