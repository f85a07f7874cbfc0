"""vLLM in this process: many requests at once, shared prefixes read once, and every request with its own sampling parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.reading import Read, Reader, token_of
from builders.engines.requests import Answer, Chat, Failure, Outcome, Request
from builders.errors import UserError, first_line
from builders.subjects import places

TOGETHER = 512  # requests handed over at a time; answers are kept after every such part


@dataclass(frozen=True)
class VllmSettings:
    """Which model is loaded, and how: *memory* is a share of the GPU's memory, *context* the most tokens of prompt and answer together."""

    model: str
    revision: str | None = None
    memory: float = 0.9
    context: int | None = None
    tensor_parallel: int = 1
    dtype: str = "auto"
    quantization: str | None = None


class VllmEngine:
    """A model loaded by vLLM."""

    kind = "vllm"

    def __init__(self, settings: VllmSettings) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError("vLLM is not installed; run `pip install 'interplake[vllm]'`, or use another engine") from error

        self.settings = settings
        try:
            self._llm = LLM(
                model=settings.model,
                revision=settings.revision,
                gpu_memory_utilization=settings.memory,
                max_model_len=settings.context,
                tensor_parallel_size=settings.tensor_parallel,
                dtype=settings.dtype,
                quantization=settings.quantization,
                enable_prefix_caching=True,
                seed=0,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{settings.model}: vLLM cannot load it: {first_line(error)}") from error
        local = Path(settings.model)
        self._revision = settings.revision or (places.fingerprint(local) if local.is_dir() else None)
        limit = int(self._llm.llm_engine.model_config.max_model_len)
        self._reader = Reader(self._llm.get_tokenizer(), self.model, limit)

    @property
    def model(self) -> str:
        """The model's name, without its path on this machine."""
        path = Path(self.settings.model)
        return path.name if path.is_absolute() else self.settings.model

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on beside the request."""
        settings = self.settings
        return {
            "kind": self.kind,
            "model": self.model,
            "revision": self._revision,
            "dtype": settings.dtype,
            "quantization": settings.quantization,
        }

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place, part by part."""
        ready: list[tuple[int, Request, Read]] = []
        for number, request in enumerate(requests):
            read = self._reader.read(request)
            if isinstance(read, Failure):
                yield number, read
            else:
                ready.append((number, request, read))
        for start in range(0, len(ready), TOGETHER):
            part = ready[start : start + TOGETHER]
            prompts = [{"prompt_token_ids": read.ids} for _, _, read in part]
            sampling = [self._sampling(request) for _, request, _ in part]
            for (number, request, read), output in zip(part, self._llm.generate(prompts, sampling, use_tqdm=False), strict=True):
                yield number, self._answer(request, read, output)

    def _sampling(self, request: Request) -> Any:
        """Return sampling parameters for this request alone; if requests shared one object, a setting would leak into the next request."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        if not isinstance(request, Chat):
            return SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=request.top_logprobs)
        return SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            logprobs=request.top_logprobs or None,
            structured_outputs=None if request.form is None else StructuredOutputsParams(json=json.loads(request.form)),
        )

    def _answer(self, request: Request, read: Read, output: Any) -> Outcome:
        counts = (len(output.prompt_token_ids), output.num_cached_tokens or 0)
        tokenizer = self._reader.tokenizer
        if not isinstance(request, Chat):
            scored = list(zip(read.ids, output.prompt_logprobs, strict=True))[read.start :]
            tokens = [token_of(tokenizer, token, _plain(found), request.top_logprobs) for token, found in scored]
            return Answer(request.continuation, "stop", tuple(tokens), *counts, 0)
        said = output.outputs[0]
        if not said.text.strip():
            return Failure("empty", f"the model answered without text (it stopped for {said.finish_reason!r})")
        pairs = zip(said.token_ids, said.logprobs or [], strict=False)
        tokens = [token_of(tokenizer, token, _plain(found), request.top_logprobs) for token, found in pairs]
        return Answer(said.text, str(said.finish_reason), tuple(tokens), *counts, len(said.token_ids))


def _plain(found: Any) -> dict[int, float]:
    return {token: entry.logprob for token, entry in found.items()}
