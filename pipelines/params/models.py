"""Sections about language models that answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import Count, Pinned, Section


class Prices(Section):
    """US dollars per million tokens: read anew, read before, written."""

    prompt: Annotated[float, Field(ge=0)] = 0.0
    cached: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0


class OpenAiEngine(Section):
    """A server that speaks OpenAI's API; its key is read from the environment variable *key_variable*."""

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: str
    key_variable: str | None = None
    concurrency: Count = 32
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    price: Prices = Prices()


class VllmEngineSpec(Pinned):
    """A model that vLLM loads into this process; *memory* is the share of GPU memory, *context* in tokens."""

    kind: Literal["vllm"]
    memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    context: Count | None = None
    tensor_parallel: Count = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = None
    price: Prices = Prices()


class TransformersEngine(Pinned):
    """A small model run by the transformers library; texts are scored *batch_tokens* at a time."""

    kind: Literal["transformers"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    batch_tokens: Count = 8192
    price: Prices = Prices()


EngineSpec = Annotated[OpenAiEngine | VllmEngineSpec | TransformersEngine, Field(discriminator="kind")]
