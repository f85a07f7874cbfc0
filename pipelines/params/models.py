"""Sections about engines, the language models that answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import URL, Count, Device, Pinned, PinnedModel, Section


class PricesParams(Section):
    """US dollars per million tokens: *prompt* read, *cached* read from the server's cache, *output* written."""

    prompt: Annotated[float, Field(ge=0)] = 0.0
    cached: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0


class OpenAiEngineParams(Section):
    """A server that speaks OpenAI's API; its key is read from the environment variable *key_variable*.

    *extra* is sent with every conversation. A vLLM server samples by the checkpoint's generation_config unless it is told otherwise:
    `{top_k: 0, repetition_penalty: 1.0}` tells it.
    """

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=URL)]
    model: str
    key_variable: str | None = None
    concurrency: Count = 32
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    extra: dict[str, bool | int | float | str] = Field(default_factory=dict)
    price: PricesParams = PricesParams()


class VllmEngineParams(Pinned):
    """A model that vLLM loads into this process; *memory* is its share of the GPU's memory, *context* its longest input in tokens."""

    kind: Literal["vllm"]
    memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    context: Count | None = None
    tensor_parallel: Count = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = None
    price: PricesParams = PricesParams()


class SkippableParams(PinnedModel):
    """A model that is run in this process; where it is *missing*, the run may fail or skip it, and then rows say so."""

    missing: Literal["fail", "skip"] = "fail"


class TransformersEngineParams(SkippableParams):
    """A small model run by the transformers library; texts are scored *batch_tokens* at a time."""

    kind: Literal["transformers"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Device = "auto"
    batch_tokens: Count = 8192
    price: PricesParams = PricesParams()


class LlamaCppEngineParams(SkippableParams):
    """A GGUF file that llama.cpp runs in this process: *slots* requests at once, each of at most *context* tokens with its answer.

    *threads* compute, and prompts are read *batch* tokens at a time. Without *context* it is what the model was trained on, up to 4096;
    without *threads*, OMP_NUM_THREADS or all cores; without *slots*, one for every four threads.
    """

    kind: Literal["llamacpp"]
    slots: Annotated[int, Field(ge=1, le=64)] | None = None
    context: Count | None = None
    threads: Count | None = None
    batch: Count = 512
    price: PricesParams = PricesParams()


EngineParams = Annotated[
    OpenAiEngineParams | VllmEngineParams | TransformersEngineParams | LlamaCppEngineParams, Field(discriminator="kind")
]
