"""Log-probabilities of given continuations, in batches: what prompts share is read once, and no text sees another."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from builders.engines.reading import Read

FEW = 8  # a prompt with at least so many requests gets a group of its own; all other requests form one group


class Continuations:
    """The log-probabilities that a causal language model gives to continuations.

    At most *tokens* tokens are in memory at a time; a shared prompt counts once for each text that shares it. A text that is longer than
    that is read by itself.
    """

    def __init__(self, model: Any, tokens: int) -> None:
        self._model, self._tokens = model, tokens
        self._cuts = "logits_to_keep" in inspect.signature(model.forward).parameters

    @cached_property
    def shares(self) -> bool:
        """Whether the model keeps what it read token by token, so that several texts can continue it; a recurrent state cannot."""
        kept = getattr(self._run([[0]], 1, use_cache=True), "past_key_values", None)
        return type(kept) is DynamicCache and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in kept.layers)

    def logprobs(self, reads: Sequence[Read], prompts: Sequence[str]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the place of every text and the log-probabilities [tokens of its continuation, vocabulary], batch by batch.

        Every text must have a token to be scored. The last bits of a number depend on what else was in the batch.
        """
        for places in _groups(prompts):
            longest_first = sorted(places, key=lambda place: -len(reads[place].ids))
            shared = self._shared([reads[place] for place in places])
            prefix = self._run([reads[places[0]].ids[:shared]], 1, use_cache=True).past_key_values if shared else None
            while longest_first:
                most = max(1, self._tokens // len(reads[longest_first[0]].ids))
                batch, longest_first = longest_first[:most], longest_first[most:]
                yield from zip(batch, self._scored([reads[place] for place in batch], shared, prefix), strict=True)

    def _shared(self, reads: Sequence[Read]) -> int:
        """Return how many tokens all texts begin with, without any prompt's last token, which predicts the first scored one."""
        if len(reads) == 1 or not self.shares:
            return 0
        texts = [read.ids for read in reads]
        pairs = zip(min(texts), max(texts), strict=False)  # what the first and the last in sorted order share, all share
        return min(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), *(read.start - 1 for read in reads))

    def _scored(self, reads: Sequence[Read], shared: int, prefix: DynamicCache | None) -> list[torch.Tensor]:
        """Return log-probabilities for texts whose first *shared* tokens are in *prefix*; the longest text comes first."""
        more: dict[str, Any] = {"use_cache": False}
        if prefix is not None:
            more = {"past_key_values": deepcopy(prefix), "use_cache": True}  # a copy, since the model appends to it
            more["past_key_values"].batch_repeat_interleave(len(reads))
        first = min(read.start for read in reads) - 1  # the first token whose logits are needed
        kept = len(reads[0].ids) - 1 - first
        logits = self._run([read.ids[shared:-1] for read in reads], kept, **more).logits[:, -kept:]
        spans = [slice(read.start - 1 - first, len(read.ids) - 1 - first) for read in reads]
        return [row[span].float().log_softmax(-1) for row, span in zip(logits, spans, strict=True)]

    @torch.no_grad()
    def _run(self, texts: Sequence[Sequence[int]], kept: int, **more: Any) -> Any:
        """Return the model's output for *texts*, the longest first, with logits of at least the last *kept* tokens.

        Padding stands on the right: in a causal model nothing looks at it, and it shifts no position.
        """
        width = len(texts[0])
        ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=self._model.device)
        return self._model(ids, **({"logits_to_keep": kept} if self._cuts else {}), **more)


def _groups(prompts: Sequence[str]) -> list[list[int]]:
    """Return groups of places: one group for each prompt that many requests share, and one for all other requests."""
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(place)
    own = [group for group in places.values() if len(group) >= FEW]
    rest = [place for group in places.values() if len(group) < FEW for place in group]
    return [*own, rest] if rest else own
