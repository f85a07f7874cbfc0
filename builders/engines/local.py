"""A small model run by the transformers library, one request at a time: where there is neither a server nor vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from builders import subjects
from builders.engines.reading import Reader, token_of
from builders.engines.requests import Answer, Chat, Failure, Outcome, Request
from builders.errors import UserError


@dataclass(frozen=True)
class LocalSettings:
    """Where the checkpoint lies (as for a subject), and what it runs on."""

    source: subjects.Source
    dtype: str = "auto"
    device: str = "auto"


class LocalEngine:
    """A causal language model in this process."""

    kind = "transformers"

    def __init__(self, settings: LocalSettings) -> None:
        folder = subjects.fetch(settings.source)
        config = subjects.config_of(settings.source, folder)
        self.settings = settings
        self._revision = settings.source.revision or subjects.fingerprint(folder)
        self.device = subjects.resolve_device(settings.device)
        self.dtype = subjects.resolve_dtype(settings.dtype, self.device, config)
        self._model: Any = subjects.load(settings.source, folder, self.dtype, self.device)
        self._reader = Reader(subjects.tokenizer_of(settings.source, folder), self.model, subjects.context_of(config))

    @property
    def model(self) -> str:
        """The model, without the way to it on this machine."""
        source = self.settings.source
        return source.repo or Path(str(source.path)).name

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on."""
        return {"kind": self.kind, "model": self.model, "revision": self._revision, "dtype": self.dtype}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place."""
        for number, request in enumerate(requests):
            read = self._reader.read(request)
            if isinstance(read, Failure):
                yield number, read
            elif isinstance(request, Chat):
                if request.form is not None:
                    raise UserError(f"{self.model}: the transformers engine cannot hold an answer to a form; use vllm or openai")
                yield number, self._chat(request, read.ids)
            else:
                yield number, self._score(request.continuation, request.top_logprobs, read.ids, read.start)

    @torch.no_grad()
    def _chat(self, request: Chat, ids: list[int]) -> Outcome:
        sampling = {"do_sample": True, "temperature": request.temperature} if request.temperature else {"do_sample": False}
        prompt = torch.tensor([ids], device=self.device)
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            made = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=request.max_tokens,
                return_dict_in_generate=True,
                output_logits=bool(request.top_logprobs),
                pad_token_id=self._model.config.eos_token_id or 0,
                **sampling,
            )
        written = made.sequences[0, len(ids) :].tolist()
        text = self._reader.text_of(written)
        if not text.strip():
            return Failure("empty", "the model answered without text")
        logits = torch.cat(made.logits).float().log_softmax(-1) if request.top_logprobs else torch.zeros(0, 1)
        tokens = [self._token(token, row, request.top_logprobs) for token, row in zip(written, logits, strict=False)]
        finish = "length" if len(written) == request.max_tokens else "stop"
        return Answer(text, finish, tuple(tokens), len(ids), 0, len(written))

    @torch.no_grad()
    def _score(self, continuation: str, most: int, ids: list[int], start: int) -> Outcome:
        logits = self._model(torch.tensor([ids], device=self.device), use_cache=False).logits[0].float().log_softmax(-1)
        tokens = [self._token(ids[place], logits[place - 1], most) for place in range(start, len(ids))]
        return Answer(continuation, "stop", tuple(tokens), len(ids), 0, 0)

    def _token(self, token: int, row: torch.Tensor, most: int) -> Any:
        top = row.topk(most) if most else None
        listed = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top is not None else {}
        return token_of(self._reader.tokenizer, token, {**listed, token: float(row[token])}, most)
