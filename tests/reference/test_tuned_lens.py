"""Our tuned lenses in the tuned-lens package: it loads the files and gives the same logits, and its own files are read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Mamba2Config, MambaConfig, Qwen2Config, RwkvConfig

from builders.lenses.formats import PARAMS, SAFE, Origin, read, write
from builders.lenses.translators import TunedLens
from builders.subjects.anatomy import anatomy_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

WHERE = "it lives in an environment of its own: `make test-reference`"
lenses: Any = pytest.importorskip("tuned_lens.nn.lenses", reason=WHERE)
unembed: Any = pytest.importorskip("tuned_lens.nn.unembed", reason=WHERE)

LAYERS, D, VOCABULARY = 3, 16, 300
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": D, "num_hidden_layers": LAYERS}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
KNOWN = {
    "llama": LlamaConfig(**SIZES, **HEADS),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=D, n_layer=LAYERS, n_head=2, n_positions=64),
    "gpt_neox": GPTNeoXConfig(**SIZES, num_attention_heads=2, intermediate_size=32),
}
UNKNOWN = {
    "mamba": MambaConfig(**SIZES, state_size=4),
    "mamba2": Mamba2Config(**SIZES, state_size=4, num_heads=4, head_dim=8, n_groups=2),
    "rwkv": RwkvConfig(**SIZES, attention_hidden_size=D, context_length=64),
    "qwen2": Qwen2Config(**SIZES, **HEADS),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model_of(config: Any) -> PreTrainedModel:
    """Return a model of noise, also where weights start as zeros or ones."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    made: PreTrainedModel = model.requires_grad_(False)
    return made


def written(model: PreTrainedModel, folder: Path) -> tuple[TunedLens, Origin]:
    """Write a lens of noise, and return it with its origin."""
    lens = TunedLens(noise(LAYERS, D, D, seed=1) / 4, noise(LAYERS, D, seed=2))
    origin = Origin("a/model", "abc", LAYERS, model.get_output_embeddings().weight)
    write(lens, folder, origin)
    return lens, origin


def handed(model: PreTrainedModel) -> Any:
    """Return the package's unembedding of a model that the package does not know: its final norm and its unembedding, as we find them."""
    own = unembed.Unembed.__new__(unembed.Unembed)
    torch.nn.Module.__init__(own)
    own.final_norm, own.unembedding = anatomy_of(model).norm, model.get_output_embeddings()
    return own


def require_same_logits(theirs: Any, lens: TunedLens, model: PreTrainedModel) -> None:
    """Assert that both give the same logits at every layer."""
    anatomy, hidden = anatomy_of(model), noise(20, D, seed=3)
    for layer in range(LAYERS):
        torch.testing.assert_close(theirs(hidden, layer), anatomy.logits(lens.carried(layer, hidden)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KNOWN)
def test_the_package_reads_our_files(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It loads a lens written here without a warning, and gives the same logits."""
    model = model_of(KNOWN[name])
    lens, origin = written(model, tmp_path)
    theirs = lenses.TunedLens.from_model_and_pretrained(model, str(tmp_path))
    assert not caplog.records
    assert theirs.config.unembed_hash == origin.unembed_hash
    assert theirs.config.base_model_revision == "abc"
    require_same_logits(theirs, lens, model)


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_package_reads_lenses_of_models_that_it_does_not_know(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It refuses the model, but loads the lens once it is handed the final norm and the unembedding."""
    model = model_of(UNKNOWN[name])
    lens, _ = written(model, tmp_path)
    with pytest.raises(NotImplementedError):
        lenses.TunedLens.from_model_and_pretrained(model, str(tmp_path))
    theirs = lenses.TunedLens.from_unembed_and_pretrained(handed(model), str(tmp_path))
    assert not caplog.records
    require_same_logits(theirs, lens, model)


@pytest.mark.parametrize("name", KNOWN)
def test_files_of_the_package_are_read_here(name: str, tmp_path: Path) -> None:
    """A lens that the package saved is the same lens here, to the bit, and its hash of the unembedding is ours."""
    model = model_of(KNOWN[name])
    theirs = lenses.TunedLens.from_model(model, model_revision="abc")
    for number, weight in enumerate(theirs.layer_translators.parameters()):
        weight.data = noise(*weight.shape, seed=number)
    theirs.save(tmp_path)
    lens = read(tmp_path, Origin("a/model", "abc", LAYERS, model.get_output_embeddings().weight))
    assert not (tmp_path / SAFE).exists()
    assert (tmp_path / PARAMS).exists()
    for layer in range(LAYERS):
        assert torch.equal(lens.weight[layer], theirs[layer].weight)
        assert torch.equal(lens.bias[layer], theirs[layer].bias)
    require_same_logits(theirs, lens, model)


@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0, 300.0])
@pytest.mark.parametrize("shape", [(5, 4), (40, 25), (40, 26), (3000, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_hash_is_the_package_s(shape: tuple[int, int], scale: float, dtype: torch.dtype) -> None:
    """Printed whole or in part, with small or large numbers, an unembedding has the same hash there and here."""
    own = unembed.Unembed.__new__(unembed.Unembed)
    torch.nn.Module.__init__(own)
    own.unembedding = torch.nn.Linear(shape[1], shape[0], bias=False)
    own.unembedding.weight.data = (noise(*shape) * scale).to(dtype)
    assert Origin("a/model", None, LAYERS, own.unembedding.weight).unembed_hash == own.unembedding_hash()
