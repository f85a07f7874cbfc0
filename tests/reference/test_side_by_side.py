"""The readers and writers beside the packages whose files they read: the same latents, values and reconstructions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from coders import dense, noise
from dictionaries import D as SMALL
from dictionaries import K as SMALL_K
from dictionaries import saelens as old_saelens
from torch.nn import functional as F

from builders.saes import formats
from builders.saes.coder import JumpReLU, ReLU, SparseCoder, TopK
from builders.saes.train import Recipe, Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from builders.saes.coder import Activation

WHERE = "it lives in an environment of its own: `make test-reference`"
sparsify: Any = pytest.importorskip("sparsify", reason=WHERE)
sae_lens: Any = pytest.importorskip("sae_lens", reason=WHERE)
registry: Any = pytest.importorskip("sae_lens.registry", reason=WHERE)

D, WIDTH, K, N, STEPS, EXACT = 16, 32, 4, 200, 60, 1e-5
TOPK = Recipe(activation="topk", width=WIDTH, k=K, lr=5e-3, dead_after=10_000)
RECIPES = {
    "topk": TOPK,
    "multi_topk": replace(TOPK, multi_topk=True),
    "jumprelu": replace(TOPK, activation="jumprelu"),
    "relu": replace(TOPK, activation="relu", k=0, l1=0.1),
}
origins = pytest.mark.parametrize("origin", ["random", "trained"])


def planted(seed: int, n: int) -> Tensor:
    """Return sums of three of 24 unit vectors, between 1 and 2 long each, shifted by a constant."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(n, 24, generator=generator).topk(3, dim=1).indices
    lengths = 1 + torch.rand(n, 3, generator=generator)
    return (F.normalize(noise(100, 24, D), dim=1)[chosen] * lengths[..., None]).sum(1) + 0.2


@cache
def trained(kind: str) -> SparseCoder:
    """Return an SAE trained here for a few dozen steps."""
    trainer = Trainer(RECIPES[kind], planted(0, 128), STEPS, torch.Generator().manual_seed(1))
    for step in range(STEPS):
        trainer.step(planted(step, 128))
    return trainer.coder()


@cache
def random(kind: str) -> SparseCoder:
    """Return an SAE of random weights."""
    activations: dict[str, Activation] = {
        "topk": TopK(K),
        "multi_topk": TopK(K),
        "jumprelu": JumpReLU(noise(5, WIDTH).abs()),
        "relu": ReLU(torch.zeros(WIDTH)),
    }
    b_dec = noise(3, D) / 4
    weights = F.normalize(noise(1, WIDTH, D), dim=1), noise(2, WIDTH) / 4, F.normalize(noise(4, WIDTH, D), dim=1) * 1.3
    return SparseCoder(*weights, b_dec, activations[kind], b_dec)


def vectors() -> Tensor:
    """Return vectors that none was trained on."""
    return planted(999, N)


def assert_same(ours: SparseCoder, latents: Tensor, written: Tensor, x: Tensor) -> None:
    """Check that *ours* fires the same *latents* on *x*, as strongly, and writes the same; and that some fire, and not all."""
    code = ours.encode(x)
    assert 0 < len(code.value) < latents.numel()
    assert torch.equal(dense(code, ours.width) != 0, latents != 0)
    torch.testing.assert_close(dense(code, ours.width), latents, rtol=0, atol=EXACT)
    torch.testing.assert_close(ours.decode(code, x), written, rtol=0, atol=EXACT)


def of_sparsify(theirs: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents and the reconstruction of one of sparsify's own coders."""
    with torch.no_grad():
        values, latents, _ = theirs.encode(x)
        written = theirs.decode(values, latents)
        if not theirs.cfg.multi_topk:  # with that loss, what it returns is the wider code
            whole = theirs(x)
            written, values, latents = whole.sae_out, whole.latent_acts, whole.latent_indices
    return torch.zeros(len(x), theirs.num_latents).scatter(1, latents, values), written


def of_sae_lens(theirs: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents and the reconstruction of one of SAELens' own dictionaries."""
    with torch.no_grad():
        return theirs.encode(x), theirs(x)


# What is written here, read there


@origins
@pytest.mark.parametrize("kind", RECIPES)
def test_what_is_written_here_is_read_there(kind: str, origin: str, tmp_path: Path) -> None:
    """A dictionary made here computes in the package of its format, loaded by that package itself, what it computes here."""
    coder = (trained if origin == "trained" else random)(kind)
    formats.write(coder, tmp_path)
    x = vectors()
    if "topk" in kind:
        found = of_sparsify(sparsify.SparseCoder.load_from_disk(tmp_path), x)
    else:
        found = of_sae_lens(sae_lens.SAE.load_from_disk(tmp_path), x)
    assert_same(coder, *found, x)
    assert_same(formats.read(tmp_path), *found, x)


# What is written there, read here

SPARSIFY: dict[str, dict[str, Any]] = {
    "topk": {},
    "multi_topk": {"multi_topk": True},
    "groupmax": {"activation": "groupmax"},
    "transcode": {"transcode": True},
    "skip_connection": {"skip_connection": True},
    "transcode with skip": {"transcode": True, "skip_connection": True},
    "groupmax transcode with skip": {"activation": "groupmax", "transcode": True, "skip_connection": True},
}


@origins
@pytest.mark.parametrize("kind", SPARSIFY)
def test_what_sparsify_writes_is_read_here(kind: str, origin: str, tmp_path: Path) -> None:
    """A coder of every kind of sparsify's, saved by itself, fires and rebuilds here what it does there."""
    theirs = sparsify.SparseCoder(D, sparsify.SparseCoderConfig(k=K, num_latents=WIDTH, **SPARSIFY[kind]))
    coder = trained("multi_topk" if kind == "multi_topk" else "topk") if origin == "trained" else random("topk")
    with torch.no_grad():
        theirs.encoder.weight.copy_(coder.w_enc)
        theirs.encoder.bias.copy_(coder.b_enc)
        theirs.W_dec.copy_(coder.w_dec)
        theirs.b_dec.copy_(coder.b_dec)
        if theirs.W_skip is not None:
            theirs.W_skip.copy_(noise(8, D, D) / 4)
    theirs.save_to_disk(tmp_path)
    x = vectors()
    assert_same(formats.read(tmp_path), *of_sparsify(sparsify.SparseCoder.load_from_disk(tmp_path), x), x)


TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
SAES = ("standard", "gated", "jumprelu", "topk")
SAE_LENS: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name} for name in SAES},
    **{f"{name} not centred": {"architecture": name, "apply_b_dec_to_input": False} for name in SAES},
    **{
        f"{name} {norm}": {"architecture": name, "normalize_activations": norm}
        for name in (*SAES, *TRANSCODERS)
        for norm in ("layer_norm", "constant_norm_rescale")
    },
    "topk rescaled": {"architecture": "topk", "rescale_acts_by_decoder_norm": True},
    "topk rescaled, not centred": {"architecture": "topk", "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False},
    **{name: {"architecture": name} for name in TRANSCODERS},
    **{f"{name} to another size": {"architecture": name, "d_out": 5} for name in TRANSCODERS},
}


def sae_of(architecture: str, origin: str, d_out: int = D, **settings: Any) -> Any:
    """Return a dictionary of SAELens' own class with weights that are random or were trained here."""
    made, config = registry.get_sae_class(architecture)
    if architecture in TRANSCODERS:
        settings |= {"d_out": d_out, "apply_b_dec_to_input": False}
    if architecture == "topk":
        settings |= {"k": K}
    theirs = made(config(d_in=D, d_sae=WIDTH, **settings))
    kind = "jumprelu" if "jumprelu" in architecture else "topk" if architecture == "topk" else "relu"
    coder = (trained if origin == "trained" else random)(kind)
    fill(theirs, replace(coder, w_dec=coder.w_dec[:, :d_out], b_dec=coder.b_dec[:d_out]))
    return theirs


def fill(theirs: Any, coder: SparseCoder) -> None:
    """Put the weights of *coder* into a dictionary of SAELens', and random ones where it has more."""
    weights = {"W_enc": coder.w_enc.T, "b_enc": coder.b_enc, "b_gate": coder.b_enc, "W_dec": coder.w_dec, "b_dec": coder.b_dec}
    if isinstance(coder.activation, JumpReLU):
        weights["threshold"] = coder.activation.threshold
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(weights[name] if name in weights else noise(len(name), *parameter.shape) / 4)


@origins
@pytest.mark.parametrize("kind", SAE_LENS)
def test_what_sae_lens_writes_is_read_here(kind: str, origin: str, tmp_path: Path) -> None:
    """A dictionary of every kind of SAELens', saved by itself, fires and rebuilds here what it does there."""
    sae_of(origin=origin, **SAE_LENS[kind]).save_model(tmp_path)
    x = vectors()
    assert_same(formats.read(tmp_path), *of_sae_lens(sae_lens.SAE.load_from_disk(tmp_path), x), x)


@origins
@pytest.mark.parametrize("settings", [{}, {"rescale_acts_by_decoder_norm": False}, {"apply_b_dec_to_input": False}], ids=str)
def test_batchtopk_is_read_as_it_is_used(settings: dict[str, Any], origin: str, tmp_path: Path) -> None:
    """A BatchTopK SAE, saved for inference or in the midst of training, computes here what SAELens' own inference does."""
    theirs = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(d_in=D, d_sae=WIDTH, k=K, **settings))
    fill(theirs, trained("topk") if origin == "trained" else random("topk"))
    theirs.topk_threshold.fill_(0.6)
    theirs.save_model(tmp_path / "training")
    theirs.save_inference_model(tmp_path / "inference")
    x = vectors()
    inference, training = (formats.read(tmp_path / name) for name in ("inference", "training"))
    latents, written = of_sae_lens(sae_lens.SAE.load_from_disk(tmp_path / "inference"), x)
    assert_same(inference, latents, written, x)
    assert_same(training, latents, written, x)


@origins
@pytest.mark.parametrize("architecture", SAES)
def test_the_scale_of_training_is_folded_in_as_there(architecture: str, origin: str, tmp_path: Path) -> None:
    """Told the factor that activations were scaled by, the reader folds it in as SAELens does."""
    theirs = sae_of(architecture, origin, normalize_activations="expected_average_only_in")
    theirs.save_model(tmp_path)
    theirs.fold_activation_norm_scaling_factor(0.4)
    x = vectors()
    assert_same(formats.read(tmp_path, 0.4), *of_sae_lens(theirs, x), x)


OLD: dict[str, dict[str, Any]] = {
    "relu": {"activation_fn_str": "relu", "normalize_activations": None},
    "topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": SMALL_K}},
    "topk under a newer name": {"activation_fn": "topk", "activation_fn_kwargs": {"k": SMALL_K}, "normalize_activations": "layer_norm"},
}


@pytest.mark.parametrize("kind", OLD)
def test_old_files_of_sae_lens_are_read_as_there(kind: str, tmp_path: Path) -> None:
    """Configs from before SAELens' version 6 mean here what its own loader takes them for."""
    old_saelens(tmp_path, **OLD[kind])
    x = noise(6, N, SMALL)
    assert_same(formats.read(tmp_path), *of_sae_lens(sae_lens.SAE.load_from_disk(tmp_path), x), x)


@origins
def test_gemma_scope_is_the_jumprelu_of_sae_lens(origin: str, tmp_path: Path) -> None:
    """A params.npz computes what SAELens computes from the same tensors, and what the paper's equations say."""
    coder = trained("jumprelu") if origin == "trained" else random("jumprelu")
    assert isinstance(coder.activation, JumpReLU)
    tensors = {
        "w_enc": coder.w_enc.T,
        "b_enc": coder.b_enc,
        "w_dec": coder.w_dec,
        "b_dec": coder.b_dec,
        "threshold": coder.activation.threshold,
    }
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(tmp_path / "params.npz", **arrays)  # type: ignore[arg-type]  # names of arrays, not of options
    ours, theirs, x = formats.read(tmp_path), sae_of("jumprelu", origin, apply_b_dec_to_input=False), vectors()
    assert_same(ours, *of_sae_lens(theirs, x), x)
    pre = x.numpy() @ arrays["w_enc"] + arrays["b_enc"]
    f = np.where(pre > arrays["threshold"], np.maximum(pre, 0), 0)
    assert_same(ours, torch.from_numpy(f), torch.from_numpy(f @ arrays["w_dec"] + arrays["b_dec"]), x)
