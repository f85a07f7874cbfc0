"""Continuations scored in batches, held against each text read by itself, for models that attend and models that recur."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.engines.continuations import FEW, Continuations
from builders.engines.reading import Read

if TYPE_CHECKING:
    from collections.abc import Sequence

VOCABULARY = 64
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 256}
GROUPED: dict[str, Any] = {**HEADS, "num_key_value_heads": 2, "head_dim": 8}
RECURRENT: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
ALTERNATING = ["sliding_attention", "full_attention"]
LINEAR: dict[str, Any] = {f"linear_{name}": 8 for name in ("key_head_dim", "value_head_dim")}
EXPERTS: dict[str, Any] = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}

ATTENDING = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**HEADS),
    "opt": lambda: transformers.OPTConfig(**{**HEADS, "ffn_dim": 64, "word_embed_proj_dim": 32}),  # positions from the mask
    "bloom": lambda: transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),  # no position ids
    "mistral, window 8": lambda: transformers.MistralConfig(**GROUPED, sliding_window=8),
    "gemma-3, window 8": lambda: transformers.Gemma3TextConfig(**GROUPED, sliding_window=8, layer_types=ALTERNATING),
}
RECURRING = {
    "mamba": lambda: transformers.MambaConfig(**RECURRENT),
    "mamba-2": lambda: transformers.Mamba2Config(**RECURRENT, num_heads=8, head_dim=8, n_groups=1, chunk_size=16),
    "rwkv": lambda: transformers.RwkvConfig(**SIZES, attention_hidden_size=32, context_length=256),
    "qwen-3-next": lambda: transformers.Qwen3NextConfig(**GROUPED, **LINEAR, **EXPERTS, layer_types=["linear_attention", "full_attention"]),
}
ARCHITECTURES = {**ATTENDING, **RECURRING}


@cache
def model_of(name: str) -> Any:
    """Return a random model whose predictions differ much from place to place."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval().requires_grad_(requires_grad=False)
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.copy_(0.2 * torch.randn_like(weights))
    return model


def ids(seed: int, n: int) -> list[int]:
    """Return *n* token ids."""
    return torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def texts(count: int, prompt: int = 40) -> list[Read]:
    """Return continuations of 1 to 9 tokens of one prompt."""
    return [Read(ids(0, prompt) + ids(1 + number, 1 + number * 5 % 9), prompt) for number in range(count)]


def alone(model: Any, read: Read) -> torch.Tensor:
    """Return what a plain forward pass over one text says of its continuation."""
    found: torch.Tensor = model(torch.tensor([read.ids]), use_cache=False).logits[0, read.start - 1 : -1].log_softmax(-1)
    return found


def scored(model: Any, reads: Sequence[Read], tokens: int = 8192, prompts: Sequence[str] | None = None) -> list[torch.Tensor]:
    """Return what comes of all texts, by place; all have one prompt unless *prompts* says otherwise."""
    pairs = list(Continuations(model, tokens).logprobs(reads, prompts or ["one"] * len(reads)))
    assert sorted(place for place, _ in pairs) == list(range(len(reads)))
    return [found for _, found in sorted(pairs, key=lambda pair: pair[0])]


def passes(model: Any, reads: Sequence[Read], tokens: int = 8192, prompts: Sequence[str] | None = None) -> list[tuple[int, int]]:
    """Return rows and width of every pass over the model that scoring takes, those that find out what it can do left out."""
    seen: list[tuple[int, int]] = []
    scorer = Continuations(model, tokens)
    assert scorer.shares in (True, False)
    hook = model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    list(scorer.logprobs(reads, prompts or ["one"] * len(reads)))
    hook.remove()
    return seen


@pytest.mark.parametrize("tokens", [1, 150, 8192])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_says_what_a_plain_forward_pass_says(name: str, tokens: int) -> None:
    """Each text alone, three at a time or all at once: every token has the log-probabilities of a pass over its text by itself."""
    model, reads = model_of(name), texts(20)

    found = scored(model, reads, tokens)

    for read, rows in zip(reads, found, strict=True):
        expected = alone(model, read)
        assert rows.shape == (len(read.ids) - read.start, VOCABULARY)
        assert rows.dtype == torch.float32
        assert float((rows - expected).abs().max()) < 1e-4
    assert max(float(rows.std()) for rows in found) > 0.1, "the model tells tokens apart"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_of_one_says_what_a_batch_of_sixteen_says(name: str) -> None:
    """Sixteen texts of different lengths at once give the numbers of each asked for by itself."""
    model, reads = model_of(name), texts(16)

    together = scored(model, reads)
    one_by_one = [scored(model, [read])[0] for read in reads]

    assert max(float((a - b).abs().max()) for a, b in zip(together, one_by_one, strict=True)) < 1e-4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_text_sees_another(name: str) -> None:
    """A text has the same numbers whatever stands before, beside and after it, in batches of the same shape."""
    model, reads = model_of(name), texts(12)
    kept = (0, 7)
    others = [read if n in kept else Read([*read.ids[:40], *ids(99 + n, len(read.ids) - 40)], 40) for n, read in enumerate(reads)]

    mine, theirs = (scored(model, some, 150) for some in (reads, others))
    changed = [float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)]

    assert all(changed[place] < 1e-5 for place in kept)
    assert all(changed[place] > 1e-3 for place, read in enumerate(reads) if place not in kept and len(read.ids) > 41)


@pytest.mark.parametrize("name", ATTENDING)
def test_a_prompt_is_read_once(name: str) -> None:
    """All but the last token of a shared prompt is one pass, and every batch holds the rest of its texts alone."""
    reads = texts(20)

    seen = passes(model_of(name), reads)

    assert seen == [(1, 39), (20, 9)]


@pytest.mark.parametrize("name", RECURRING)
def test_a_recurrent_model_reads_whole_texts(name: str) -> None:
    """A state is not shared: every text is read from its beginning, in one batch."""
    assert passes(model_of(name), texts(20)) == [(20, 48)]


def test_batches_are_bounded_by_tokens() -> None:
    """No batch holds more than the bound, the prompt counted for every text; a text that is longer is read by itself."""
    reads = texts(10)

    seen = passes(model_of("llama"), reads, 150)[1:]

    assert sum(rows for rows, _ in seen) == 10
    assert all(rows * (39 + width + 1) <= 150 for rows, width in seen)
    assert {rows for rows, _ in passes(model_of("llama"), reads, 10)} == {1}


def test_each_prompt_of_many_requests_is_read_once() -> None:
    """Requests that alternate between two prompts are two groups, whatever the order in which they come."""
    prompts = [ids(1, 30), ids(2, 20)]
    reads = [Read([*prompts[number % 2], *ids(5 + number, 3)], len(prompts[number % 2])) for number in range(2 * FEW)]

    seen = passes(model_of("llama"), reads, prompts=[str(number % 2) for number in range(2 * FEW)])

    assert seen == [(1, 29), (FEW, 3), (1, 19), (FEW, 3)]


def test_prompts_that_few_have_share_how_they_begin() -> None:
    """Texts with a prompt each are one group, whose common beginning is read once, and each is scored from its own place on."""
    model = model_of("llama")
    reads = [Read([*ids(1, 30), 60 + number, *ids(9 + number, number), *ids(20 + number, 2)], 31 + number) for number in range(4)]
    prompts = [str(number) for number in range(4)]

    found = scored(model, reads, prompts=prompts)

    assert passes(model, reads, prompts=prompts) == [(1, 30), (4, 5)]
    assert max(float((rows - alone(model, read)).abs().max()) for rows, read in zip(found, reads, strict=True)) < 1e-4


def test_a_text_by_itself_is_one_pass() -> None:
    """One request alone has nothing to share."""
    assert passes(model_of("llama"), texts(1)) == [(1, 40)]


def test_equal_texts_are_scored_each() -> None:
    """A text that comes twice has its numbers twice, though all of it is shared."""
    model, read = model_of("llama"), texts(1)[0]

    found = scored(model, [read] * 3)

    assert all(float((rows - alone(model, read)).abs().max()) < 1e-4 for rows in found)


reads = st.builds(
    lambda prompt, own, more: (str((prompt, own)), Read([*ids(prompt, 6), *own, *more], 6 + len(own))),
    st.integers(0, 1),
    st.lists(st.integers(0, 3), max_size=2),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=5),
)


@given(st.lists(reads, min_size=1, max_size=24), st.sampled_from([1, 20, 60, 8192]))
@settings(max_examples=40)
def test_any_mixture_of_prompts_is_scored_right(mixed: list[tuple[str, Read]], tokens: int) -> None:
    """Whatever texts have in common, and however few fit into a batch, each has the numbers of a pass by itself."""
    model = model_of("llama")

    found = scored(model, [read for _, read in mixed], tokens, [prompt for prompt, _ in mixed])

    assert max(float((rows - alone(model, read)).abs().max()) for rows, (_, read) in zip(found, mixed, strict=True)) < 1e-4
