"""How faithful a dictionary is: known answers, plain sums over rows read alone, and standard errors by hand."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from coders import dense, random_coder, random_transcoder
from torch.nn import functional as F

from builders.errors import UserError
from builders.saes.coder import JumpReLU, Mounted, ReLU, SparseCode, SparseCoder, TopK
from builders.saes.fidelity import RowSums, fidelity, require_width, sparsity
from builders.saes.neurons import neurons
from builders.subjects.checkpoints import load
from builders.subjects.hookpoints import capture, module_at, spliced
from builders.subjects.places import Source
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from builders.saes.coder import Coder

pytestmark = pytest.mark.numeric

BLOCK, MLP, NEURONS = "layers.1", "layers.1.mlp", "layers.1.mlp.down_proj"
LENGTHS = (9, 3, 14, 6, 2)
LOSSES = ("ce_clean", "ce_spliced", "ce_zeroed")
ROUNDING = 2e-7  # of a cross-entropy: ten times what other shapes or kernels were seen to change, in float32 sums over rows of some 80 nats


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    """Return the tiny model."""
    return load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")


@pytest.fixture(scope="module")
def rows(model: PreTrainedModel) -> pa.Table:
    """Return token rows of unequal length, each beginning with a special token."""
    rng = np.random.default_rng(0)
    return tokens([[0, *rng.integers(2, model.config.vocab_size, length).tolist()] for length in LENGTHS])


def tokens(ids: list[list[int]]) -> pa.Table:
    """Return rows of these *ids*, in which the first is special."""
    fixed = {"subject": "tiny", "document": 0, "held_out": True, "bytes": 0, "text": ""}
    return TOKENS.rows([{**fixed, "row": n, "ids": row, "special": [True] + [False] * (len(row) - 1)} for n, row in enumerate(ids)])


def signed(d: int, written: Tensor) -> SparseCoder:
    """Return a coder with a latent for each coordinate and sign; it writes what it reads, times the matrix *written* [d, d_out]."""
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    rows = torch.cat([written, -written])
    zeros = torch.zeros(written.shape[1])
    return SparseCoder(both, torch.zeros(2 * d), rows, zeros, JumpReLU(torch.zeros(2 * d)), torch.zeros(d))


class Oracle:
    """A coder of vectors of size *d* that fires one latent for each vector, and decodes with a module of its own."""

    activation = TopK(1)

    def __init__(self, module: nn.Module, d: int) -> None:
        self.module, self.width, self.d_in, self.d_out = module, 4, d, d

    def encode(self, x: Tensor) -> SparseCode:
        """Return a code in which latent 2 fires on every vector."""
        n = len(x)
        return SparseCode(torch.arange(n), torch.full((n,), 2), torch.ones(n), n)

    def decode(self, code: SparseCode, x: Tensor) -> Tensor:
        """Return the module's output for *x*."""
        written: Tensor = self.module(x[: code.n])
        return written

    def directions(self, low: int, high: int) -> Tensor:
        """Return nothing of use."""
        return torch.zeros(high - low, self.d_out)

    def to(self, device: str) -> Oracle:
        """Return it on *device*."""
        return Oracle(self.module.to(device), self.d_in)


def weight_of(model: PreTrainedModel) -> Tensor:
    """Return the matrix [64, 32] that neurons are sent through into the residual stream."""
    weight: Tensor = module_at(model, NEURONS).weight.T.contiguous()  # type: ignore[union-attr,operator]  # a Linear
    return weight


def skipping(model: PreTrainedModel) -> SparseCoder:
    """Return a transcoder in which nothing fires, and whose skip connection does all that the projection does."""
    nothing = torch.zeros(3, 64), torch.zeros(3), torch.zeros(3, 32), torch.zeros(32), ReLU(torch.zeros(3)), torch.zeros(64)
    return SparseCoder(*nothing, w_skip=weight_of(model).T, transcodes=True)


def assert_the_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare FVU and losses with those of the same arithmetic in other shapes, up to rounding."""
    assert {name: found[name] for name in LOSSES} == pytest.approx({name: expected[name] for name in LOSSES}, rel=ROUNDING)
    assert found["fvu"] == pytest.approx(expected["fvu"], rel=1e-5)
    # A difference of losses has their rounding, however small it is itself, and a quotient of two differences near 0 has no digits
    # left to compare. Both follow from the losses that were compared.
    clean, spliced, zeroed = (found[name] for name in LOSSES)
    assert found["loss_added"] == pytest.approx(spliced - clean, abs=1e-12)
    assert found["loss_recovered"] == pytest.approx((zeroed - spliced) / (zeroed - clean), rel=1e-9)


# Coders that rebuild what is written exactly, with the number of latents that fire on every token.
EXACT: dict[str, tuple[Callable[[PreTrainedModel], Coder], str, str, float]] = {
    "identity of a block": (lambda _: signed(32, torch.eye(32)), BLOCK, BLOCK, 32),
    "identity of neurons": (lambda _: signed(64, torch.eye(64)), f"{NEURONS}.input", f"{NEURONS}.input", 64),
    "the MLP itself": (lambda model: Oracle(copy.deepcopy(module_at(model, MLP)), 32), f"{MLP}.input", MLP, 1),
    "a linear transcoder": (lambda model: signed(64, weight_of(model)), f"{NEURONS}.input", NEURONS, 64),
    "a skip connection": (skipping, f"{NEURONS}.input", NEURONS, 0),
}


@pytest.mark.parametrize("case", EXACT)
def test_an_exact_coder_loses_nothing(case: str, model: PreTrainedModel, rows: pa.Table) -> None:
    """An exact reconstruction, within one hookpoint or between two, has FVU 0, adds no loss and recovers all of it."""
    make, reads, writes, firing = EXACT[case]
    found = fidelity(model, Mounted(make(model), reads, writes), rows, 2, "cpu")
    assert found["measured_tokens"] == sum(LENGTHS)
    assert found["fvu"] == pytest.approx(0, abs=1e-10)
    slack = 2 * ROUNDING * found["ce_clean"]  # of a difference of two losses
    assert found["loss_added"] == pytest.approx(0, abs=slack)
    assert found["loss_added_se"] == pytest.approx(0, abs=slack)
    assert found["loss_recovered"] == pytest.approx(1, abs=slack / abs(found["ce_zeroed"] - found["ce_clean"]))
    assert (found["l0"], found["l0_se"]) == (pytest.approx(firing), pytest.approx(0, abs=1e-9))
    assert found["ce_zeroed"] != pytest.approx(found["ce_clean"], rel=1e-6)


@pytest.mark.parametrize(("reads", "writes", "d", "d_out"), [(BLOCK, BLOCK, 32, 32), (f"{NEURONS}.input", MLP, 64, 32)])
def test_a_coder_of_zeros_is_the_zeroed_model(reads: str, writes: str, d: int, d_out: int, model: PreTrainedModel, rows: pa.Table) -> None:
    """A coder that reconstructs zeros has the cross-entropy of zeroed activations; it recovers and explains nothing."""
    found = fidelity(model, Mounted(signed(d, torch.zeros(d, d_out)), reads, writes), rows, 2, "cpu")
    assert found["ce_spliced"] == pytest.approx(found["ce_zeroed"], rel=1e-6)
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-6)
    assert found["fvu"] >= 1


@pytest.mark.parametrize("rotated", [False, True])
def test_all_neurons_lose_what_is_below_zero(rotated: bool, model: PreTrainedModel, rows: pa.Table) -> None:
    """With k the full width, the neuron basis keeps every positive coordinate, so its error is the negative part."""
    place = f"{NEURONS}.input"
    basis = neurons(64, 64, rotated, seed=3)
    found = fidelity(model, Mounted(basis, place, place), rows, 3, "cpu")
    x = torch.cat([capture(model, [place], torch.tensor([ids]))[place][0, 1:] for ids in rows["ids"].to_pylist()])
    seen = x @ basis.directions(0, 64).T
    lost = seen.clamp(max=0).square().sum() / (x - x.mean(0)).square().sum()
    assert found["fvu"] == pytest.approx(float(lost), rel=1e-4)
    assert found["l0"] == pytest.approx(float((seen > 0).sum() / len(x)))
    assert found["dead_share"] == pytest.approx(1 - float((seen > 0).any(0).double().mean()))


def losses_of(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Return the loss of every token but the first."""
    return F.cross_entropy(model(torch.tensor([ids])).logits[0, :-1], torch.tensor(ids[1:]), reduction="none")


COMPARED: dict[str, tuple[SparseCoder, str, str]] = {
    "an SAE of a block": (random_coder(3, 48, 32, TopK(5)), BLOCK, BLOCK),
    "a transcoder of an MLP": (random_transcoder(3, 48, 32, 32, TopK(5)), f"{MLP}.input", MLP),
    "a transcoder of neurons": (random_transcoder(3, 48, 64, 32, TopK(5)), f"{NEURONS}.input", BLOCK),
    "a normalising SAE of an input": (random_coder(3, 48, 32, TopK(5), "layer_norm"), "layers.2.input", "layers.2.input"),
}


@pytest.mark.parametrize("case", COMPARED)
def test_figures_equal_those_of_rows_read_alone(case: str, model: PreTrainedModel, rows: pa.Table) -> None:
    """L0, FVU, dead share and the three losses equal sums over each row read alone, token by token."""
    coder, reads, writes = COMPARED[case]
    edits: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ce_clean": lambda _, written: written,
        "ce_spliced": lambda x, written: torch.cat([written[:, :1], coder.decode(coder.encode(x[0, 1:]), x[0, 1:])[None]], dim=1),
        "ce_zeroed": lambda _, written: torch.cat([written[:, :1], torch.zeros_like(written[:, 1:])], dim=1),
    }
    flows: list[tuple[Tensor, Tensor]] = []
    losses: dict[str, list[Tensor]] = {name: [] for name in edits}
    for ids in rows["ids"].to_pylist():
        seen = capture(model, [reads, writes], torch.tensor([ids]))
        flows.append((seen[reads][0, 1:], seen[writes][0, 1:]))
        for name, edit in edits.items():
            with spliced(model, reads, writes, edit):
                losses[name].append(losses_of(model, ids))
    x, y = (torch.cat(parts) for parts in zip(*flows, strict=True))
    code = coder.encode(x)
    fired = dense(code, 48) > 0
    found = fidelity(model, Mounted(coder, reads, writes), rows, 2, "cpu")
    assert found["l0"] == pytest.approx(float(fired.sum() / len(x)))
    assert found["dead_share"] == pytest.approx(1 - float(fired.any(0).double().mean()))
    error, variance = (y - coder.decode(code, x)).square().sum(), (y - y.mean(0)).square().sum()
    means = {name: float(torch.cat(parts).double().mean()) for name, parts in losses.items()}
    assert_the_same(found, {**means, "fvu": float(error / variance)})


@pytest.mark.parametrize("case", COMPARED)
def test_figures_do_not_depend_on_the_batch(case: str, model: PreTrainedModel, rows: pa.Table) -> None:
    """Rows read in padded batches give the same figures as rows read one by one."""
    one, all_ = (fidelity(model, Mounted(*COMPARED[case]), rows, batch, "cpu") for batch in (1, 5))
    assert_the_same(all_, one)
    exact = ("measured_tokens", "l0", "l0_se", "dead_share")
    assert {name: all_[name] for name in exact} == pytest.approx({name: one[name] for name in exact})
    assert all_["loss_added_se"] == pytest.approx(one["loss_added_se"], abs=2 * ROUNDING * one["ce_clean"])


def test_a_row_without_text_changes_no_mean(model: PreTrainedModel, rows: pa.Table) -> None:
    """A row of nothing but special tokens, read in a batch of its own, leaves every figure but the standard errors as it was."""
    more = tokens([*rows["ids"].to_pylist(), [0]])
    mounted = Mounted(random_coder(3, 48, 32, TopK(5)), BLOCK, BLOCK)
    plain, with_it = (fidelity(model, mounted, table, 1, "cpu") for table in (rows, more))
    spread = ("l0_se", "loss_added_se")
    assert {k: v for k, v in with_it.items() if k not in spread} == pytest.approx({k: v for k, v in plain.items() if k not in spread})


def test_the_model_is_left_as_it_was(model: PreTrainedModel, rows: pa.Table) -> None:
    """Measuring an SAE leaves no hook, and the model answers as before."""
    ids = rows["ids"].to_pylist()[0]
    before = losses_of(model, ids)
    fidelity(model, Mounted(*COMPARED["a transcoder of an MLP"]), rows, 2, "cpu")
    assert torch.equal(losses_of(model, ids), before)


def test_a_standard_error_over_rows_by_hand() -> None:
    """Rows of 2, 4 and 6 tokens with sums 4, 4 and 10: mean 1.5, residuals 1, −2, 1, hence √3 · √3 / 12."""
    sums = RowSums(torch.tensor([4.0, 4.0, 10.0]), torch.tensor([2.0, 4.0, 6.0]))
    assert sums.mean == pytest.approx(1.5)
    assert sums.se == pytest.approx(3 / 12)


def test_one_row_has_no_standard_error() -> None:
    """A single row has no spread over rows."""
    assert math.isnan(RowSums(torch.tensor([4.0]), torch.tensor([2.0])).se)


def test_sparsity_by_hand() -> None:
    """Firings of rows give tokens, mean and standard error of L0, and the share of latents that never fire."""
    found = sparsity(torch.tensor([4, 4, 10]), torch.tensor([2, 4, 6]), 0.75)
    assert found == {"measured_tokens": 12, "l0": pytest.approx(1.5), "l0_se": pytest.approx(0.25), "dead_share": 0.25}


FITS = [(64, 32), (None, 32), (64, None), (None, None)]


@pytest.mark.parametrize(("reads", "writes"), FITS)
def test_a_dictionary_of_the_right_widths_is_taken(reads: int | None, writes: int | None) -> None:
    """Sizes that fit, or cannot be compared, are accepted; a size that does not fit at either end is refused."""
    mounted = Mounted(random_transcoder(0, 8, 64, 32, TopK(2)), f"{NEURONS}.input", MLP)
    require_width(mounted, "mine", reads, writes)
    for other in ((65, writes), (reads, 31)):
        with pytest.raises(UserError):
            require_width(mounted, "mine", *other)
    assert mounted.coder.width == 8


@pytest.mark.parametrize(
    ("sizes", "words"),
    [((32, 32), rf"saes\.mine: reads .*64.*{NEURONS}\.input gives 32"), ((64, 16), rf"saes\.mine: writes .*32.*{MLP} gives 16")],
)
def test_a_dictionary_of_another_width_is_one_line(sizes: tuple[int, int], words: str) -> None:
    """The error for a dictionary that does not fit names the end that does not, both sizes and its hookpoint."""
    mounted = Mounted(random_transcoder(0, 8, 64, 32, TopK(2)), f"{NEURONS}.input", MLP)
    with pytest.raises(UserError, match=words) as caught:
        require_width(mounted, "mine", *sizes)
    assert "\n" not in str(caught.value)
