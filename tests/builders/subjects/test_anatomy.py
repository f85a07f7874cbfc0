from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconH1Config,
    FalconMambaConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    RecurrentGemmaConfig,
    RwkvConfig,
)

from builders.errors import UserError
from builders.subjects.anatomy import Anatomy, anatomy_of, require_whole
from builders.subjects.hookpoints import capture, watched

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

pytestmark = pytest.mark.numeric

SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 64}
GPT2: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 32}
GEMMA2: dict[str, Any] = {**SMALL, **HEADS, "head_dim": 8}
MAMBA2: dict[str, Any] = {"state_size": 6, "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 4}
FALCON_H1: dict[str, Any] = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_chunk_size": 4}
RWKV: dict[str, Any] = {**SMALL, "attention_hidden_size": 16, "context_length": 64}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL, **HEADS),
    "llama-tied": LlamaConfig(**SMALL, **HEADS, tie_word_embeddings=True),
    "gpt2": GPT2Config(**GPT2),
    "gpt2-untied": GPT2Config(**GPT2, tie_word_embeddings=False),
    "gpt-neox": GPTNeoXConfig(**SMALL, **HEADS),
    "gpt-j-bias": GPTJConfig(**GPT2, rotary_dim=4),
    "phi-bias": PhiConfig(**SMALL, **HEADS),
    "gemma2-capped": Gemma2Config(**GEMMA2, final_logit_softcapping=0.5),
    "gemma2-uncapped": Gemma2Config(**GEMMA2, final_logit_softcapping=None),
    "qwen2": Qwen2Config(**SMALL, **HEADS, tie_word_embeddings=True),
    "mamba": MambaConfig(**SMALL, state_size=6),
    "mamba2": Mamba2Config(**SMALL, **MAMBA2),
    "falcon-mamba": FalconMambaConfig(**SMALL, state_size=6),
    "rwkv": RwkvConfig(**RWKV, rescale_every=0),
    "rwkv-halved-at-the-end": RwkvConfig(**RWKV, rescale_every=2),
    "rwkv-halved-before": RwkvConfig(**RWKV, rescale_every=3),
    "cohere-multiplied": CohereConfig(**SMALL, **HEADS, logit_scale=0.25),
    "granite-divided": GraniteConfig(**SMALL, **HEADS, logits_scaling=4.0),
    "hyperclovax-multiplied": HyperCLOVAXConfig(**SMALL, **HEADS, logits_scaling=4.0),
    "falcon-h1-multiplied": FalconH1Config(**SMALL, **HEADS, **FALCON_H1, lm_head_multiplier=0.5),
    "recurrent-gemma-capped": RecurrentGemmaConfig(**SMALL, **HEADS, logits_soft_cap=0.5),
    "bloom": BloomConfig(vocab_size=50, hidden_size=16, n_layer=4, n_head=2),
    "opt": OPTConfig(**SMALL, num_attention_heads=2, ffn_dim=32, word_embed_proj_dim=16),
}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def random_model(config: PretrainedConfig) -> PreTrainedModel:
    """Return a model of random weights and biases, so that nothing starts as zeros or ones."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        random: Any = AutoModelForCausalLM.from_config(deepcopy(config), dtype=torch.float32)
        for weight in random.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    made: PreTrainedModel = random.eval().requires_grad_(False)
    return made


@torch.no_grad()
def flows(model: PreTrainedModel, layers: list[str]) -> tuple[list[Tensor], Tensor]:
    """Return the residual stream of each layer, and the model's own logits, of one pass."""
    with watched(model, layers) as seen:
        own = model(input_ids=IDS, use_cache=False).logits
    return [seen[layer] for layer in layers], own


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_layer_is_the_model(name: str) -> None:
    """In every architecture the last block's output, normed and unembedded, is the model's own logits to 1e-5 of the largest."""
    model = random_model(CONFIGS[name])
    anatomy = anatomy_of(model)
    hidden, own = flows(model, anatomy.layers)
    torch.testing.assert_close(anatomy.logits(hidden[-1]), own, rtol=0, atol=1e-5 * float(own.abs().max()))
    assert (anatomy.last, anatomy.d_model, anatomy.vocabulary) == (4, 16, 50)
    assert [tuple(flow.shape) for flow in hidden] == [(2, 8, 16)] * 5


@pytest.mark.parametrize("name", CONFIGS)
def test_every_earlier_layer_is_something_else(name: str) -> None:
    """The logits of any layer before the last differ from the model's own, so the comparison above can fail."""
    model = random_model(CONFIGS[name])
    anatomy = anatomy_of(model)
    hidden, own = flows(model, anatomy.layers)
    assert all(float((anatomy.logits(flow) - own).abs().max()) > 1e-3 * float(own.abs().max()) for flow in hidden[:-1])


def test_layers_count_the_blocks_gone_through() -> None:
    """Layer 0 is what enters the first block, and layer ℓ what block ℓ − 1 writes and block ℓ reads."""
    model = random_model(CONFIGS["gpt2"])
    anatomy = anatomy_of(model)
    assert anatomy.layers == ["h.0.input", "h.0", "h.1", "h.2", "h.3"]
    seen = capture(model, [*anatomy.layers, "h.3.input", "drop"], IDS)
    assert torch.equal(seen["h.0.input"], seen["drop"])
    assert torch.equal(seen["h.3.input"], seen["h.2"])


@pytest.mark.parametrize(("name", "cap"), [("gemma2-capped", 0.5), ("gemma2-uncapped", None), ("recurrent-gemma-capped", 0.5)])
def test_soft_caps(name: str, cap: float | None) -> None:
    """The soft cap comes from the config, and bounds the logits of any vector."""
    anatomy = anatomy_of(random_model(CONFIGS[name]))
    assert anatomy.cap == cap
    assert float(anatomy.logits(100 * torch.ones(1, 16)).abs().max()) <= (cap or 1e9)


def test_rwkv_halves_its_stream() -> None:
    """RWKV in eval mode halves the stream after every second block: divided by its scale, each layer is that of a model that does not."""
    halved, whole = (random_model(CONFIGS[name]) for name in ("rwkv-halved-at-the-end", "rwkv"))
    anatomy, plain = anatomy_of(halved), anatomy_of(whole)
    assert (anatomy.scales, anatomy.shrink) == ([1, 1, 1, 0.5, 0.5], 0.5)
    assert (plain.scales, plain.shrink) == ([1] * 5, 1)
    for scale, small, full in zip(anatomy.scales, flows(halved, anatomy.layers)[0], flows(whole, plain.layers)[0], strict=True):
        torch.testing.assert_close(small / scale, full, rtol=0, atol=1e-4)


def test_rwkv_that_is_trained_halves_nothing() -> None:
    """RWKV in train mode keeps the stream as it is."""
    anatomy = anatomy_of(random_model(CONFIGS["rwkv-halved-at-the-end"]).train())
    assert (anatomy.scales, anatomy.shrink) == ([1] * 5, 1)


def test_a_norm_that_is_named() -> None:
    """A name takes the place of what would be found: here it is the same module, and another one gives other logits."""
    model = random_model(CONFIGS["llama"])
    found, named, other = anatomy_of(model), anatomy_of(model, "norm"), anatomy_of(model, "layers.0.input_layernorm")
    hidden = torch.linspace(-1, 1, 32).view(2, 16)
    assert torch.equal(named.logits(hidden), found.logits(hidden))
    assert not torch.allclose(other.logits(hidden), found.logits(hidden))


def test_a_final_norm_that_cannot_be_found_is_one_line() -> None:
    """GPT-1 has no final norm: the error says what was looked for, how to name it, and what there is."""
    model = random_model(OpenAIGPTConfig(vocab_size=50, n_embd=16, n_layer=4, n_head=2))
    words = r"OpenAIGPTLMHeadModel: found no final norm; looked for .* class is called a norm; name it in params \(`norm`\).*: drop, h, "
    with pytest.raises(UserError, match=words) as caught:
        anatomy_of(model)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_final_norm() -> None:
    """With `none` for its norm, the last layer of a model without a final norm is the model."""
    model: Any = random_model(CONFIGS["llama"])
    model.model.norm = nn.Identity()
    with pytest.raises(UserError, match="found no final norm"):
        anatomy_of(model)
    anatomy = anatomy_of(model, "none")
    hidden, own = flows(model, anatomy.layers)
    torch.testing.assert_close(anatomy.logits(hidden[-1]), own)


@pytest.mark.parametrize("name", ["ln_f", "", "model.norm"])
def test_a_norm_that_does_not_exist_is_one_line(name: str) -> None:
    """A name that the base model does not have is refused with what it was, and with what stands beside the blocks."""
    with pytest.raises(UserError, match=rf"looked for a final norm called '{name}'; .*: embed_tokens, layers, norm, rotary_emb") as caught:
        anatomy_of(random_model(CONFIGS["llama"]), name)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_head_is_one_line() -> None:
    """A model that makes no logits has no unembedding."""
    model: Any = random_model(CONFIGS["llama"])
    with pytest.raises(UserError, match="choose a model with a language-modelling head"):
        anatomy_of(model.base_model)


def test_an_unembedding_of_another_size_is_one_line() -> None:
    """OPT-350m unembeds vectors of another size than its residual stream, which is refused with both sizes."""
    config = OPTConfig(**SMALL, num_attention_heads=2, ffn_dim=32, word_embed_proj_dim=8)
    with pytest.raises(UserError, match="its unembedding reads 8 dimensions, its residual stream has 16"):
        anatomy_of(random_model(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_whole_is_let_through(name: str) -> None:
    """Every architecture above passes the check that compares it with the model."""
    model = random_model(CONFIGS[name])
    anatomy = anatomy_of(model)
    hidden, own = flows(model, anatomy.layers)
    require_whole(anatomy, hidden[-1], own)


@pytest.mark.parametrize("name", ["llama", "gemma2-capped", "granite-divided"])
def test_half_precision_is_let_through(name: str) -> None:
    """A model of half precision passes, with a norm that is computed in float32; its own weights stay as they are."""
    model: Any = random_model(CONFIGS[name]).to(torch.bfloat16)  # type: ignore[arg-type]  # transformers hides its types
    anatomy = anatomy_of(model)
    hidden, own = flows(model, anatomy.layers)
    require_whole(anatomy, hidden[-1], own)
    assert anatomy.logits(hidden[-1]).dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


WRONG: dict[str, dict[str, Any]] = {
    "llama": {"norm": nn.Identity()},
    "granite-divided": {"factor": 1.0},
    "gemma2-capped": {"cap": None},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_whole_is_one_line(name: str) -> None:
    """A norm, a factor or a cap that is not the model's is found by comparing with it."""
    model = random_model(CONFIGS[name])
    right = anatomy_of(model)
    wrong = Anatomy(**{**vars(right), **WRONG[name]})
    hidden, own = flows(model, right.layers)
    with pytest.raises(UserError, match="are not this model's logits") as caught:
        require_whole(wrong, hidden[-1], own)
    assert "\n" not in str(caught.value)


def test_gradients_flow_through_logits() -> None:
    """Lenses are trained through the norm and the unembedding, whose own weights get no gradient."""
    model = random_model(CONFIGS["gemma2-capped"])
    hidden = torch.ones(3, 16, requires_grad=True)
    anatomy_of(model).logits(hidden).square().sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert all(weight.grad is None for weight in model.parameters())
