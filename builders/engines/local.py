"""An engine in this process: a small model run by the transformers library, conversations one at a time, continuations in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from builders.engines.continuations import Continuations
from builders.engines.reading import Read, Reader, token_of
from builders.engines.requests import Answer, Chat, Failure, Outcome, Request, Score, Token
from builders.engines.schemas import continuations, values
from builders.errors import UserError
from builders.library import transformers
from builders.subjects import checkpoints, places
from builders.subjects.sampling import stops_of

TOGETHER = 4096  # requests read at a time; what these have in common is read once
ANSWERS = 4096  # a JSON schema may allow so many answers: all of them are tokenized


@dataclass(frozen=True)
class LocalSettings:
    """Which checkpoint is run (as for a subject), on what, and how many tokens of continuations are in memory at a time."""

    source: places.Source
    dtype: str = "auto"
    device: str = "auto"
    batch_tokens: int = 8192


class LocalEngine:
    """A causal language model in this process."""

    kind = "transformers"

    def __init__(self, settings: LocalSettings) -> None:
        folder = places.fetch(settings.source)
        config = checkpoints.config_of(settings.source, folder)
        self.settings = settings
        self._revision = settings.source.revision or places.fingerprint(folder)
        self.device = checkpoints.resolve_device(settings.device)
        self.dtype = checkpoints.resolve_dtype(settings.dtype, self.device, config)
        self._model: Any = checkpoints.load(settings.source, folder, self.dtype, self.device)
        # Of the checkpoint's own generation settings (penalties, top-k, limits) only the ends of an answer stay: else a request would
        # not be answered as it asks, and answers would disagree with log-probabilities, which know no penalties.
        ends = sorted(stops_of(self._model))
        self._ends = ends
        self._allowed: dict[str, dict[tuple[int, ...], list[int]]] = {}
        self._model.generation_config = transformers().GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0)
        self._continuations = Continuations(self._model, settings.batch_tokens)
        self._reader = Reader(checkpoints.tokenizer_of(settings.source, folder), self.model, checkpoints.context_of(config))

    @property
    def model(self) -> str:
        """The model's name, without its path on this machine."""
        source = self.settings.source
        return source.label if source.repo or source.package else Path(str(source.path)).name

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on beside the request."""
        return {"kind": self.kind, "model": self.model, "revision": self._revision, "dtype": self.dtype}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place, part by part: in each part conversations first, then continuations."""
        for start in range(0, len(requests), TOGETHER):
            scores: list[tuple[int, Score, Read]] = []
            for number, request in enumerate(requests[start : start + TOGETHER], start):
                read = self._reader.read(request)
                if isinstance(read, Failure):
                    yield number, read
                elif isinstance(request, Chat):
                    yield number, self._chat(request, read.ids)
                elif read.start < len(read.ids):
                    scores.append((number, request, read))
                else:  # the continuation has no token to be scored
                    yield number, Answer(request.continuation, prompt_tokens=len(read.ids))
            found = self._continuations.logprobs([read for _, _, read in scores], [request.prompt for _, request, _ in scores])
            for place, logprobs in found:
                number, request, read = scores[place]
                tokens = self._tokens(read.ids[read.start :], logprobs, request.top_logprobs)
                yield number, Answer(request.continuation, "stop", tokens, len(read.ids), 0, 0)

    @torch.no_grad()
    def _chat(self, request: Chat, ids: list[int]) -> Outcome:
        allowed = None if request.form is None else self._following(request.form)
        drawn = {"do_sample": True, "temperature": request.temperature, "top_k": 0, "top_p": 1.0}
        sampling = drawn if request.temperature else {"do_sample": False}
        prompt = torch.tensor([ids], device=self.device)
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            made = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=request.max_tokens,
                return_dict_in_generate=True,
                output_logits=bool(request.top_logprobs),
                prefix_allowed_tokens_fn=allowed and (lambda _, read: allowed[tuple(read[len(ids) :].tolist())]),
                **sampling,
            )
        written = made.sequences[0, len(ids) :].tolist()
        text = self._reader.text_of(written)
        if not text.strip():
            return Failure("empty", "the model answered without text")
        most = request.top_logprobs
        tokens = self._tokens(written, torch.cat(made.logits).float().log_softmax(-1), most) if most else ()
        finish = "length" if len(written) == request.max_tokens else "stop"
        return Answer(text, finish, tokens, len(ids), 0, len(written))

    def _following(self, form: str) -> dict[tuple[int, ...], list[int]]:
        """Return the tokens that may follow each beginning of an answer that fits the JSON schema *form*.

        Raises UserError where it allows more than ANSWERS answers, or where the model knows no end of an answer.
        """
        if form not in self._allowed:
            try:
                texts = [json.dumps(value) for value in islice(values(json.loads(form)), ANSWERS + 1)]
            except ValueError:
                texts = []
            if not self._ends or not 0 < len(texts) <= ANSWERS:
                what = f"with more than {ANSWERS} answers" if self._ends else "without a token that ends an answer"
                raise UserError(f"{self.model}: the transformers engine cannot keep to a JSON schema {what}; use engine vllm or openai")
            self._allowed[form] = continuations(self._reader.tokenizer(texts, add_special_tokens=False)["input_ids"], self._ends)
        return self._allowed[form]

    def _tokens(self, ids: list[int], logprobs: torch.Tensor, most: int) -> tuple[Token, ...]:
        """Return each token of *ids* with its log-probability and the *most* likeliest in its place; *logprobs*: [ids, vocabulary]."""
        own = logprobs.gather(1, torch.tensor(ids, device=logprobs.device)[:, None])[:, 0].tolist()
        best = logprobs.topk(min(most, logprobs.shape[1]))
        listed = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows = [dict(zip(names, values, strict=True)) for names, values in listed]
        pairs = zip(ids, own, rows, strict=True)
        return tuple(token_of(self._reader.tokenizer, token, {**row, token: value}, most) for token, value, row in pairs)
