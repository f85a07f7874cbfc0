"""Sparse coders: their equation, the file format, the trainer on a planted dictionary, and how faithful they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from builders.corpus import TOKENS
from builders.errors import UserError
from builders.hookpoints import capture, edited
from builders.saes import sparsify
from builders.saes.coder import Activation, JumpReLU, SparseCode, SparseCoder, TopK
from builders.saes.fidelity import Moments, fidelity, require_width
from builders.saes.train import Recipe, train
from builders.subjects import Source, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel


def random_coder(seed: int, width: int, d: int, activation: Activation) -> SparseCoder:
    """Return an SAE of random weights."""
    generator = torch.Generator().manual_seed(seed)
    w_enc, w_dec = (torch.randn(width, d, generator=generator) for _ in range(2))
    b_enc, b_dec = (torch.randn(n, generator=generator) for n in (width, d))
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, activation)


def dense(code: SparseCode, width: int) -> Tensor:
    """Return *code* as a matrix [n, width]."""
    matrix = torch.zeros(code.n, width)
    matrix[code.vector, code.latent] = code.value
    return matrix


def dense_topk(coder: SparseCoder, x: Tensor, k: int) -> Tensor:
    """Return the TopK code of *x* by sorting every vector's pre-activations."""
    pre = (x - coder.b_dec) @ coder.w_enc.T + coder.b_enc
    matrix = torch.zeros_like(pre)
    for row, values in enumerate(pre):
        for latent in values.argsort(descending=True)[:k]:
            matrix[row, latent] = max(values[latent], 0)
    return matrix


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: matrices this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The equation

sizes = st.integers(1, 12)


@given(st.integers(0, 999), sizes, sizes, st.integers(0, 6), st.integers(1, 15))
@settings(max_examples=100)
def test_topk_is_the_dense_formula(seed: int, width: int, d: int, n: int, k: int) -> None:
    """The sparse TopK code and its reconstruction equal those of the dense formula, also where k exceeds what fires."""
    coder = random_coder(seed, width, d, TopK(k))
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed + 1))
    code = coder.encode(x)
    expected = dense_topk(coder, x, k)
    torch.testing.assert_close(dense(code, width), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(coder.decode(code), expected @ coder.w_dec + coder.b_dec, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 999), sizes, sizes, st.integers(0, 6), st.floats(-1, 3))
@settings(max_examples=100)
def test_jumprelu_is_the_dense_formula(seed: int, width: int, d: int, n: int, shift: float) -> None:
    """The sparse JumpReLU code and its reconstruction equal z · H(z − θ) with θ at least 0, and W_dec times it."""
    threshold = torch.randn(width, generator=torch.Generator().manual_seed(seed + 2)) + shift
    coder = random_coder(seed, width, d, JumpReLU(threshold))
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed + 1))
    pre = (x - coder.b_dec) @ coder.w_enc.T + coder.b_enc
    expected = torch.where((pre > threshold) & (pre > 0), pre, torch.zeros(()))
    code = coder.encode(x)
    torch.testing.assert_close(dense(code, width), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(coder.decode(code), expected @ coder.w_dec + coder.b_dec, atol=1e-5, rtol=1e-5)


def test_a_code_holds_no_zero_and_is_in_order_of_vector() -> None:
    """Only what is above zero is kept, and the vectors of a code never fall."""
    coder = random_coder(0, 30, 6, TopK(20))
    code = coder.encode(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)))
    assert (code.value > 0).all()
    assert (code.vector.diff() >= 0).all()
    assert len(code.value) < 20 * 40


@pytest.mark.parametrize("silent", [[0], [3], [1, 2], [0, 3], [0, 1, 2, 3]])
def test_vectors_in_which_nothing_fires_decode_to_the_bias(silent: list[int]) -> None:
    """A vector without a firing latent, be it the first, the last or every one, is reconstructed as b_dec."""
    eye, bias = torch.eye(2), torch.tensor([0.5, -1.0])
    coder = SparseCoder(eye, torch.zeros(2), eye, bias, TopK(2))
    x = torch.tensor([[-1.0, -2.0] if row in silent else [3.0, 4.0 + row] for row in range(4)]) + bias
    code = coder.encode(x)
    assert sorted(set(range(4)) - set(code.vector.tolist())) == silent
    expected = torch.stack([bias if row in silent else x[row] for row in range(4)])
    torch.testing.assert_close(coder.decode(code), expected)


def test_half_precision_vectors_are_read_in_the_precision_of_the_weights() -> None:
    """A float32 dictionary encodes vectors of a bfloat16 model in float32."""
    coder = random_coder(0, 8, 4, TopK(2))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert coder.encode(x).value.dtype == torch.float32
    torch.testing.assert_close(dense(coder.encode(x), 8), dense(coder.encode(x.float()), 8))


# The file format


@pytest.mark.parametrize("activation", [TopK(3), JumpReLU(torch.tensor([0.1, 0.0, 2.5, 1e-7, 3.0]))], ids=lambda a: a.name)
def test_what_is_written_is_read_back_exactly(activation: Activation, tmp_path: Path) -> None:
    """Every tensor and the activation come back bit by bit, and nothing but the two files is left."""
    coder = random_coder(4, 5, 3, activation)
    files = sparsify.write(coder, tmp_path / "layers.1")
    assert sorted(files) == sorted((tmp_path / "layers.1").iterdir())
    again = sparsify.read(tmp_path / "layers.1")
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(again, name), getattr(coder, name))
    assert type(again.activation) is type(activation)
    if isinstance(activation, TopK):
        assert again.activation == activation
    else:
        assert torch.equal(again.activation.threshold, activation.threshold)  # type: ignore[union-attr]  # seen above


def test_equal_coders_are_equal_bytes(tmp_path: Path) -> None:
    """The same coder written twice gives the same bytes."""
    written = [sparsify.write(random_coder(4, 5, 3, TopK(2)), tmp_path / name) for name in "ab"]
    assert [file.read_bytes() for file in written[0]] == [file.read_bytes() for file in written[1]]


def test_a_tied_coder_can_be_written(tmp_path: Path) -> None:
    """A coder whose decoder is its encoder, as in an untrained baseline, is written like any other."""
    coder = random_coder(4, 5, 3, TopK(2))
    sparsify.write(replace(coder, w_dec=coder.w_enc), tmp_path)
    assert torch.equal(sparsify.read(tmp_path).w_dec, coder.w_enc)


def test_the_files_are_those_of_sparsify(tmp_path: Path) -> None:
    """Names, shapes and config are what sparsify's own loader looks for."""
    sparsify.write(random_coder(4, 6, 3, TopK(2)), tmp_path)
    shapes = {name: list(tensor.shape) for name, tensor in load_file(tmp_path / "sae.safetensors").items()}
    assert shapes == {"encoder.weight": [6, 3], "encoder.bias": [6], "W_dec": [6, 3], "b_dec": [3]}
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert {name: config[name] for name in ("d_in", "num_latents", "k", "activation")} == {
        "d_in": 3,
        "num_latents": 6,
        "k": 2,
        "activation": "topk",
    }


def test_a_file_in_half_precision_is_read_in_single(tmp_path: Path) -> None:
    """Published weights in bfloat16 become float32, their values unchanged; `activation` may be left out, as in old files."""
    coder = random_coder(4, 6, 3, TopK(2))
    sparsify.write(coder, tmp_path)
    save_file({name: t.bfloat16() for name, t in load_file(tmp_path / "sae.safetensors").items()}, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text('{"expansion_factor": 2, "k": 2, "d_in": 3}')
    again = sparsify.read(tmp_path)
    assert again.w_enc.dtype == torch.float32
    assert torch.equal(again.w_enc, coder.w_enc.bfloat16().float())
    assert again.activation == TopK(2)


def _without(name: str) -> dict[str, Tensor]:
    coder = random_coder(4, 6, 3, TopK(2))
    tensors = {"encoder.weight": coder.w_enc, "encoder.bias": coder.b_enc, "W_dec": coder.w_dec, "b_dec": coder.b_dec}
    return {own: tensor for own, tensor in tensors.items() if own != name}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / "cfg.json").unlink(),
    "no weights": lambda folder: (folder / "sae.safetensors").unlink(),
    "cut weights": lambda folder: _cut(folder / "sae.safetensors", 0.7),
    "cut header": lambda folder: _cut(folder / "sae.safetensors", 0.1),
    "empty weights": lambda folder: _cut(folder / "sae.safetensors", 0),
    "weights of another format": lambda folder: (folder / "sae.safetensors").write_bytes(b"PK\x03\x04" + bytes(500)),
    "cut config": lambda folder: _cut(folder / "cfg.json", 0.5),
    "empty config": lambda folder: _cut(folder / "cfg.json", 0),
    "config that is no text": lambda folder: (folder / "cfg.json").write_bytes(b'{"k": "\xff"}'),
    "config that is a list": lambda folder: (folder / "cfg.json").write_text("[1, 2]"),
    "config without k": lambda folder: (folder / "cfg.json").write_text('{"activation": "topk"}'),
    "k that is no number": lambda folder: (folder / "cfg.json").write_text('{"k": "many"}'),
    "k of zero": lambda folder: (folder / "cfg.json").write_text('{"k": 0}'),
    "no decoder": lambda folder: save_file(_without("W_dec"), folder / "sae.safetensors"),
    "decoder of another width": lambda folder: save_file({**_without(""), "W_dec": torch.zeros(7, 3)}, folder / "sae.safetensors"),
    "bias of another width": lambda folder: save_file({**_without(""), "encoder.bias": torch.zeros(5)}, folder / "sae.safetensors"),
    "unknown activation": lambda folder: (folder / "cfg.json").write_text('{"activation": "groupmax", "k": 2}'),
    "jumprelu without threshold": lambda folder: (folder / "cfg.json").write_text('{"activation": "jumprelu", "k": 2}'),
    "a transcoder": lambda folder: (folder / "cfg.json").write_text('{"k": 2, "transcode": true}'),
    "a skip connection": lambda folder: (folder / "cfg.json").write_text('{"k": 2, "skip_connection": true}'),
}


def _cut(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_cannot_be_read_is_one_line(damage: str, tmp_path: Path) -> None:
    """Whatever is missing, cut, damaged or of another kind is a UserError of one line that names the folder."""
    folder = tmp_path / "layers.1"
    sparsify.write(random_coder(4, 6, 3, TopK(2)), folder)
    DAMAGE[damage](folder)
    with pytest.raises(UserError) as caught:
        sparsify.read(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    """A folder that does not exist is named, with what should be in it."""
    with pytest.raises(UserError, match=r"nowhere.*cfg\.json"):
        sparsify.read(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.999])
def test_weights_cut_anywhere_are_never_read(share: float, tmp_path: Path) -> None:
    """No cut of the weights file passes for a whole one."""
    sparsify.write(random_coder(4, 40, 8, TopK(2)), tmp_path)
    _cut(tmp_path / "sae.safetensors", share)
    with pytest.raises(UserError, match="damaged or cut"):
        sparsify.read(tmp_path)


# The trainer, on vectors that are sums of a few planted directions

D, PLANTED, ACTIVE, BATCH, STEPS = 16, 24, 2, 256, 400
RECIPE = Recipe(activation="topk", width=32, k=ACTIVE, lr=5e-3, batch=BATCH, dead_after=10_000)


def directions() -> Tensor:
    """Return the planted dictionary: unit vectors."""
    return F.normalize(torch.randn(PLANTED, D, generator=torch.Generator().manual_seed(100)), dim=1)


def planted(seed: int, batches: int, scale: float = 1.0) -> Iterator[Tensor]:
    """Yield batches of sums of ACTIVE planted directions, each between 1 and 2 long, shifted by a constant."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = directions()
    for _ in range(batches):
        chosen = torch.rand(BATCH, PLANTED, generator=generator).topk(ACTIVE, dim=1).indices
        lengths = 1 + torch.rand(BATCH, ACTIVE, generator=generator)
        yield scale * ((dictionary[chosen] * lengths[..., None]).sum(1) + 0.3)


def fvu(coder: SparseCoder, x: Tensor) -> float:
    """Return the fraction of variance unexplained."""
    return float((x - coder.decode(coder.encode(x))).square().sum() / (x - x.mean(0)).square().sum())


@pytest.fixture(scope="module")
def trained() -> dict[str, SparseCoder]:
    """Return a TopK and a JumpReLU SAE trained on the planted dictionary."""
    kinds = ("topk", "jumprelu")
    recipes = {kind: replace(RECIPE, activation=kind) for kind in kinds}
    return {kind: train(planted(1, STEPS), STEPS, recipes[kind], torch.Generator().manual_seed(7)) for kind in kinds}


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_training_explains_what_random_directions_do_not(trained: dict[str, SparseCoder], kind: str) -> None:
    """On vectors never trained on, the trained SAE leaves far less variance unexplained than the one it started from."""
    x = torch.cat(list(planted(2, 4)))
    start = train(planted(1, 1), 1, replace(RECIPE, activation=kind, lr=0.0), torch.Generator().manual_seed(7))
    assert fvu(trained[kind], x) < 0.15 < 0.5 < fvu(start, x)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_training_finds_the_planted_directions(trained: dict[str, SparseCoder], kind: str) -> None:
    """Nearly every planted direction is nearly parallel to a decoder row."""
    cosine = (directions() @ trained[kind].w_dec.T).amax(1)
    assert (cosine > 0.9).double().mean() > 0.7


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_decoder_rows_stay_unit_norm(trained: dict[str, SparseCoder], kind: str) -> None:
    """Every decoder row has norm 1 after training."""
    torch.testing.assert_close(trained[kind].w_dec.norm(dim=1), torch.ones(RECIPE.width), atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", [2, 5])
def test_jumprelu_lands_near_its_target(target: int) -> None:
    """The mean number of firing latents on new vectors is within a quarter of the target."""
    recipe = replace(RECIPE, activation="jumprelu", k=target)
    coder = train(planted(1, STEPS), STEPS, recipe, torch.Generator().manual_seed(7))
    x = torch.cat(list(planted(3, 4)))
    assert len(coder.encode(x).value) / len(x) == pytest.approx(target, rel=0.25)
    assert isinstance(coder.activation, JumpReLU)
    assert (coder.activation.threshold > 0).all()


def test_topk_keeps_its_k(trained: dict[str, SparseCoder]) -> None:
    """The trained TopK SAE keeps the recipe's k."""
    assert trained["topk"].activation == TopK(ACTIVE)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_training_does_not_depend_on_the_scale_of_the_vectors(kind: str) -> None:
    """Vectors 64 times as large give the same SAE, 64 times as large where it meets them: it reads vectors as they are."""
    recipe = replace(RECIPE, activation=kind)
    small, large = (train(planted(1, 30, scale), 30, recipe, torch.Generator().manual_seed(7)) for scale in (1.0, 64.0))
    x = next(planted(4, 1))
    torch.testing.assert_close(large.decode(large.encode(64 * x)), 64 * small.decode(small.encode(x)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_the_same_seed_trains_the_same_weights(kind: str) -> None:
    """Equal vectors, recipe and seed give equal weights; another seed gives others."""
    recipe = replace(RECIPE, activation=kind)
    first, again, other = (train(planted(1, 20), 20, recipe, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.w_dec, other.w_dec)


def test_dead_latents_learn_from_what_the_living_leave_over() -> None:
    """Latents that never fire stay as they began without the auxiliary loss; with it, most of them move."""
    recipe = replace(RECIPE, width=128, k=1, dead_after=2_000)
    begun = train(planted(1, 1), 1, replace(recipe, lr=0.0), torch.Generator().manual_seed(7)).w_dec
    still = {}
    for weight in (0.0, 1 / 32):
        coder = train(planted(1, 60), 60, replace(recipe, aux_weight=weight), torch.Generator().manual_seed(7))
        still[weight] = int(((coder.w_dec - begun).norm(dim=1) < 1e-4).sum())
    assert still[1 / 32] < 0.5 * still[0.0]
    assert still[0.0] > 5


# How faithful it is

HOOKPOINT = "layers.1"


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    """Return the tiny model."""
    return load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")


@pytest.fixture(scope="module")
def rows(model: PreTrainedModel) -> pa.Table:
    """Return token rows of unequal length, each beginning with a special token."""
    rng = np.random.default_rng(0)
    ids = [[0, *rng.integers(2, model.config.vocab_size, length).tolist()] for length in (9, 3, 14, 6, 2)]
    fixed = {"subject": "tiny", "document": 0, "held_out": True, "bytes": 0, "text": ""}
    return TOKENS.rows([{**fixed, "row": n, "ids": row, "special": [True] + [False] * (len(row) - 1)} for n, row in enumerate(ids)])


def signed(d: int, scale: float) -> SparseCoder:
    """Return an SAE that reconstructs *scale* times any vector: one latent for each coordinate's sign."""
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return SparseCoder(both, torch.zeros(2 * d), scale * both, torch.zeros(d), JumpReLU(torch.zeros(2 * d)))


def test_a_lossless_coder_loses_nothing(model: PreTrainedModel, rows: pa.Table) -> None:
    """A coder that gives every vector back has FVU 0, adds no loss, recovers all of it, and fires once per dimension."""
    d = model.config.hidden_size
    found = fidelity(model, HOOKPOINT, signed(d, 1.0), rows, 2, "cpu")
    assert found["measured_tokens"] == 9 + 3 + 14 + 6 + 2
    assert found["fvu"] == pytest.approx(0, abs=1e-10)
    assert found["loss_added"] == pytest.approx(0, abs=1e-6)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-4)
    assert (found["l0"], found["l0_se"]) == (pytest.approx(d), pytest.approx(0, abs=1e-9))


def test_a_coder_of_zeros_is_the_zeroed_model(model: PreTrainedModel, rows: pa.Table) -> None:
    """A coder that reconstructs zeros has the cross-entropy of zeroed activations, recovers nothing, and explains nothing."""
    found = fidelity(model, HOOKPOINT, signed(model.config.hidden_size, 0.0), rows, 2, "cpu")
    assert found["ce_spliced"] == pytest.approx(found["ce_zeroed"], rel=1e-6)
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-6)
    assert found["fvu"] >= 1


def test_figures_equal_those_of_rows_read_alone(model: PreTrainedModel, rows: pa.Table) -> None:
    """L0, FVU, dead share and the three losses are those that reading each row alone, token by token, adds up to."""
    coder = random_coder(3, 48, model.config.hidden_size, TopK(5))
    flows: list[Tensor] = []
    losses: dict[str, list[Tensor]] = {"ce_clean": [], "ce_spliced": [], "ce_zeroed": []}
    edits = {
        "ce_clean": lambda flow: flow,
        "ce_spliced": lambda flow: torch.cat([flow[:, :1], coder.decode(coder.encode(flow[0, 1:]))[None]], dim=1),
        "ce_zeroed": lambda flow: torch.cat([flow[:, :1], torch.zeros_like(flow[:, 1:])], dim=1),
    }
    for ids in rows["ids"].to_pylist():
        flows.append(capture(model, [HOOKPOINT], torch.tensor([ids]))[HOOKPOINT][0, 1:])
        for name, edit in edits.items():
            with edited(model, HOOKPOINT, edit):
                logits = model(torch.tensor([ids])).logits[0]
            losses[name].append(F.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none"))
    x = torch.cat(flows)
    code = dense_topk(coder, x, 5)
    found = fidelity(model, HOOKPOINT, coder, rows, 2, "cpu")
    assert found["l0"] == pytest.approx(float((code > 0).sum() / len(x)))
    assert found["dead_share"] == pytest.approx(1 - float((code > 0).any(0).double().mean()))
    residual = x - code @ coder.w_dec - coder.b_dec
    assert found["fvu"] == pytest.approx(float(residual.square().sum() / (x - x.mean(0)).square().sum()), rel=1e-4)
    means = {name: float(torch.cat(parts).double().mean()) for name, parts in losses.items()}
    assert {name: found[name] for name in means} == pytest.approx(means, rel=1e-5)
    assert found["loss_added"] == pytest.approx(means["ce_spliced"] - means["ce_clean"], abs=1e-5)


def test_figures_do_not_depend_on_the_batch(model: PreTrainedModel, rows: pa.Table) -> None:
    """Rows read together, padded, give what rows read one by one give."""
    coder = random_coder(3, 48, model.config.hidden_size, TopK(5))
    one, all_ = (fidelity(model, HOOKPOINT, coder, rows, batch, "cpu") for batch in (1, 5))
    assert all_ == pytest.approx(one, rel=1e-4, abs=1e-6)


def test_a_standard_error_over_rows_by_hand() -> None:
    """Rows of 2, 4 and 6 tokens with sums 4, 4 and 10: mean 1.5, residuals 1, −2, 1, hence √3 · √3 / 12."""
    moments = Moments(torch.tensor([4.0, 4.0, 10.0]), torch.tensor([2.0, 4.0, 6.0]))
    assert moments.mean == pytest.approx(1.5)
    assert moments.se == pytest.approx(3 / 12)


def test_one_row_has_no_standard_error() -> None:
    """From a single row no spread over rows can be told."""
    assert math.isnan(Moments(torch.tensor([4.0]), torch.tensor([2.0])).se)


def test_an_sae_of_another_width_is_one_line() -> None:
    """An SAE that does not fit its hookpoint is named with both widths."""
    coder = random_coder(0, 8, 4, TopK(2))
    require_width(coder, "mine", "layers.1", 4)
    with pytest.raises(UserError, match=r"mine.*4.*layers\.1.*32"):
        require_width(coder, "mine", "layers.1", 32)
