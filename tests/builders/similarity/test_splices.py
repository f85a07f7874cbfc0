"""Partners in place of latents: copies lose nothing, others do, and all figures equal plain sums over rows read alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from coders import dense, noise, random_coder, random_transcoder
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from builders.errors import UserError
from builders.saes.coder import JumpReLU, Mounted, SparseCoder, TopK
from builders.saes.fidelity import RowSums, fidelity
from builders.saes.neurons import Neurons
from builders.seeds import seed_of
from builders.similarity.splices import VARIANTS, Splice, halves, splices
from builders.subjects.hookpoints import capture, edited
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel

    from builders.arrays import Ints
    from builders.saes.coder import Coder, Norm

pytestmark = pytest.mark.numeric

BLOCK, MLP = "layers.0", "layers.0.mlp"
LENGTHS = (14, 9, 20, 3, 12, 17, 1)
D = 32
ORDER = np.random.default_rng(5).permutation(2 * D)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """Return a random Llama whose weights are large, so that it expects some tokens more than others."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=D,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.4,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: PreTrainedModel = LlamaForCausalLM(config).eval()
    return made


@pytest.fixture(scope="module")
def rows(model: PreTrainedModel) -> pa.Table:
    """Return rows that begin with a special token and go on with what the model says: on such text a change of the model costs loss."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(len(LENGTHS), 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(max(LENGTHS)):
            chances = model(ids).logits[:, -1].softmax(1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], dim=1)
    fixed = {"subject": "tiny", "document": 0, "held_out": True, "bytes": 0, "text": ""}
    return TOKENS.rows(
        [
            {**fixed, "row": 7 * n, "ids": row[: length + 1], "special": [True] + [False] * length}
            for n, (row, length) in enumerate(zip(ids.tolist(), LENGTHS, strict=True))
        ]
    )


def identity(norm: Norm = "none") -> SparseCoder:
    """Return a coder with a latent for each coordinate and sign, which writes what it reads."""
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    zeros = torch.zeros(2 * D)
    return SparseCoder(both, zeros, both, torch.zeros(D), JumpReLU(zeros), torch.zeros(D), norm)


def permuted(coder: SparseCoder, scale: float = 1) -> SparseCoder:
    """Return *coder* with its latents in the order ORDER, their activations times *scale*, and their rows divided by it."""
    order, activation = torch.from_numpy(ORDER), coder.activation
    if isinstance(activation, JumpReLU):
        activation = replace(activation, threshold=activation.threshold[order] * scale)
    w_enc, b_enc, w_dec = coder.w_enc[order] * scale, coder.b_enc[order] * scale, coder.w_dec[order] / scale
    return replace(coder, w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, activation=activation)


def pairs(n: int = 2 * D) -> Ints:
    """Return *n* pairs of a latent and its copy in :func:`permuted`."""
    return np.stack([ORDER, np.arange(len(ORDER))], axis=1)[:n]


def measured(model: PreTrainedModel, a: Mounted, b: Mounted, of: Ints, rows: pa.Table, seed: int = 0, batch: int = 3) -> dict[str, Splice]:
    """Return the record of each variant."""
    found = splices(model, a, b, of, rows, batch, "cpu", seed)
    assert [record.variant for record in found] == list(VARIANTS)
    return {record.variant: record for record in found}


ORDER_D = np.random.default_rng(6).permutation(D)
SAE, NORMED = random_coder(3, 2 * D, D, TopK(9)), random_coder(4, 2 * D, D, TopK(9), "layer_norm")
TRANSCODER = random_transcoder(5, 2 * D, D, D, TopK(9))
CASES: dict[str, tuple[Coder, Coder, Ints, str, str]] = {
    "an identity": (identity(), permuted(identity()), pairs(), BLOCK, BLOCK),
    "an SAE": (SAE, permuted(SAE), pairs(), BLOCK, BLOCK),
    "some latents of an SAE": (SAE, permuted(SAE), pairs(20), BLOCK, BLOCK),
    "larger activations and shorter rows": (identity(), permuted(identity(), 8.0), pairs(), BLOCK, BLOCK),
    "an SAE that normalises": (NORMED, permuted(NORMED), pairs(), "layers.1.input", "layers.1.input"),
    "one that centres and one that normalises": (identity("centered"), permuted(identity("layer_norm")), pairs(), BLOCK, BLOCK),
    "a transcoder that skips": (TRANSCODER, permuted(TRANSCODER), pairs(), f"{MLP}.input", MLP),
    "neurons in another order": (
        Neurons(D, TopK(D)),
        Neurons(D, TopK(D), torch.eye(D)[ORDER_D]),
        np.stack([ORDER_D, np.arange(D)], axis=1),
        BLOCK,
        BLOCK,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_copy_stands_in_for_the_original(case: str, model: PreTrainedModel, rows: pa.Table) -> None:
    """Latents in another order, or of another scale, or in a dictionary that normalises, lose nothing as partners; others do."""
    a, b, of, reads, writes = CASES[case]
    found = measured(model, Mounted(a, reads, writes), Mounted(b, reads, writes), of, rows)

    assert found["partner"].ce == pytest.approx(found["original"].ce, abs=1e-5)
    assert found["partner"].added_se == pytest.approx(0, abs=1e-5)
    assert abs(found["random"].added) > 0.01
    assert abs(found["removed"].added) > 0.01
    assert {record.latents for record in found.values()} == {len(of)}
    assert {record.tokens for record in found.values()} == {sum(LENGTHS)}


@pytest.mark.parametrize("seed", range(3))
def test_others_cost_more_than_partners(seed: int, model: PreTrainedModel, rows: pa.Table) -> None:
    """In text of the model's own, partners of an exact dictionary's latents recover the whole loss, and others little of it."""
    mounted = Mounted(identity(), BLOCK, BLOCK)
    found = measured(model, mounted, Mounted(permuted(identity()), BLOCK, BLOCK), pairs(), rows, seed)

    assert found["original"].ce == pytest.approx(fidelity(model, mounted, rows, 3, "cpu")["ce_clean"], abs=1e-5)
    assert min(found["removed"].added, found["random"].added) > 1
    recovered = {name: record.recovered for name, record in found.items()}
    assert (recovered["original"], recovered["removed"]) == (1, 0)
    assert recovered["partner"] == pytest.approx(1, abs=1e-4)
    assert recovered["random"] is not None
    assert recovered["random"] < 0.5
    assert (found["original"].added, found["original"].added_se, found["original"].recovered_se) == (0, 0, 0)


def test_latents_that_write_nothing_are_not_missed(model: PreTrainedModel, rows: pa.Table) -> None:
    """Rows of zeros may be left out or replaced by one another at no cost, so that no share of a loss can be told."""
    silent = torch.isin(torch.arange(2 * D), torch.from_numpy(ORDER[:10]))
    a = replace(SAE, w_dec=SAE.w_dec.masked_fill(silent[:, None], 0))
    found = measured(model, Mounted(a, BLOCK, BLOCK), Mounted(permuted(a), BLOCK, BLOCK), pairs(10), rows)

    for record in found.values():
        assert record.ce == pytest.approx(found["original"].ce, abs=5e-6)
        assert (record.recovered, record.recovered_se) == (None, None)


def test_a_partner_brings_nothing_but_its_latents(model: PreTrainedModel, rows: pa.Table) -> None:
    """If nothing of B fires, its bias, mean and skip connection do not come in: partners and others are as good as none."""
    mute = replace(TRANSCODER, b_enc=torch.full((2 * D,), -1e4), b_dec=noise(8, D) * 10, w_skip=noise(9, D, D))
    found = measured(model, Mounted(TRANSCODER, f"{MLP}.input", MLP), Mounted(mute, f"{MLP}.input", MLP), pairs(), rows)

    for variant in ("partner", "random"):
        assert found[variant].ce == pytest.approx(found["removed"].ce, abs=1e-5)


# Plain sums


def loss_of(model: PreTrainedModel, ids: list[int], written: Tensor) -> float:
    """Return the summed loss of a row whose text tokens have the vectors *written*."""
    with torch.no_grad(), edited(model, BLOCK, lambda flow: torch.cat([flow[:, :1], written[None]], dim=1)):
        logits = model(torch.tensor([ids])).logits[0, :-1]
    return float(F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum"))


def test_figures_equal_those_of_rows_read_alone(model: PreTrainedModel, rows: pa.Table) -> None:
    """The loss of every variant follows from dense matrices: each dictionary's own norm scales what its own latents write."""
    a, b, seed = NORMED, random_coder(11, 50, D, TopK(7)), 3
    of = np.stack([np.arange(0, 60, 3), np.arange(49, 29, -1)], axis=1)
    half = halves(of[:, 0], seed_of(seed, "latents"))
    turns = halves(rows["row"].to_numpy(), seed_of(seed, "rows"), even=False)
    sums: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for ids, turn in zip(rows["ids"].to_pylist(), turns, strict=True):
        x = capture(model, [BLOCK], torch.tensor([ids]))[BLOCK][0, 1:]
        f, g = dense(a.encode(x), 64), dense(b.encode(x), 50)
        scale, mean = x.std(1, keepdim=True), x.mean(1, keepdim=True)
        here, there = of[half == turn], of[half == 1 - turn]
        rest = f.clone()
        rest[:, here[:, 0]] = 0
        removed = (rest @ a.w_dec + a.b_dec) * scale + mean
        written = {
            "original": (f @ a.w_dec + a.b_dec) * scale + mean,
            "partner": removed + g[:, here[:, 1]] @ b.w_dec[here[:, 1]],
            "random": removed + g[:, there[:, 1]] @ b.w_dec[there[:, 1]],
            "removed": removed,
        }
        for variant in VARIANTS:
            sums[variant].append(loss_of(model, ids, written[variant]))
    tokens = torch.tensor(LENGTHS, dtype=torch.float64)
    losses = {variant: torch.tensor(values, dtype=torch.float64) for variant, values in sums.items()}
    found = measured(model, Mounted(a, BLOCK, BLOCK), Mounted(b, BLOCK, BLOCK), of, rows, seed)

    for variant, loss in losses.items():
        ce, added = RowSums(loss, tokens), RowSums(loss - losses["original"], tokens)
        assert (found[variant].ce, found[variant].ce_se) == pytest.approx((ce.mean, ce.se), abs=1e-5)
        assert (found[variant].added, found[variant].added_se) == pytest.approx((added.mean, added.se), abs=1e-5)


def test_figures_do_not_depend_on_the_batch(model: PreTrainedModel, rows: pa.Table) -> None:
    """Rows read one by one or all together, and pairs in another order, give the same figures."""
    a, b = Mounted(SAE, BLOCK, BLOCK), Mounted(random_coder(12, 2 * D, D, TopK(5)), BLOCK, BLOCK)
    one, together = (measured(model, a, b, of, rows, batch=batch) for of, batch in ((pairs(), 1), (pairs()[::-1], 10)))

    for variant in VARIANTS:
        assert asdict(together[variant]) == pytest.approx(asdict(one[variant]), abs=1e-4)


def test_the_share_that_is_recovered(model: PreTrainedModel, rows: pa.Table) -> None:
    """A partner that writes 0.9 of what a latent writes recovers 1 − added / (added of removed), with an error of its own."""
    weak = permuted(identity())
    found = measured(model, Mounted(identity(), BLOCK, BLOCK), Mounted(replace(weak, w_dec=0.9 * weak.w_dec), BLOCK, BLOCK), pairs(), rows)
    partner = found["partner"]

    assert partner.recovered == pytest.approx(1 - partner.added / found["removed"].added)
    assert partner.recovered is not None
    assert 0.5 < partner.recovered < 1
    assert partner.recovered_se is not None
    assert 0 < partner.recovered_se < 0.3


def test_the_model_is_left_as_it_was(model: PreTrainedModel, rows: pa.Table) -> None:
    """Splicing leaves no hook, and the model answers as before."""
    ids = torch.tensor([rows["ids"].to_pylist()[0]])
    with torch.no_grad():
        before = model(ids).logits
        measured(model, Mounted(SAE, BLOCK, BLOCK), Mounted(permuted(SAE), BLOCK, BLOCK), pairs(), rows)
        assert torch.equal(model(ids).logits, before)


# Halves


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=40), st.integers(0, 2**60), st.randoms(use_true_random=False))
def test_halves_are_equal_and_depend_on_ids_only(ids: list[int], seed: int, random: object) -> None:
    """Both halves have as many ids, an odd one out is in neither, and the order of the ids does not matter."""
    shuffled = random.sample(ids, len(ids))  # type: ignore[attr-defined]
    found, again = (dict(zip(some, halves(np.array(some, dtype=np.int64), seed).tolist(), strict=True)) for some in (ids, shuffled))

    assert found == again
    assert [list(found.values()).count(half) for half in (0, 1, -1)] == [len(ids) // 2, len(ids) // 2, len(ids) % 2]


def test_all_rows_have_a_half() -> None:
    """Of an odd number of rows none is left out."""
    assert np.bincount(halves(np.arange(7), 0, even=False)).tolist() == [4, 3]


def test_an_odd_pair_is_left_out(model: PreTrainedModel, rows: pa.Table) -> None:
    """Of five pairs four take part, since each half must be able to stand for the other."""
    found = measured(model, Mounted(SAE, BLOCK, BLOCK), Mounted(permuted(SAE), BLOCK, BLOCK), pairs(5), rows)
    assert {record.latents for record in found.values()} == {4}


# Mistakes


def test_dictionaries_of_two_places_are_refused(model: PreTrainedModel, rows: pa.Table) -> None:
    """Latents of different hookpoints cannot stand in for one another, and the error names both hookpoints."""
    with pytest.raises(UserError, match=r"layers\.0 and layers\.1 .* one hookpoint") as caught:
        splices(model, Mounted(SAE, BLOCK, BLOCK), Mounted(SAE, "layers.1", "layers.1"), pairs(), rows, 3, "cpu", 0)
    assert "\n" not in str(caught.value)


def test_one_pair_has_no_other_partner(model: PreTrainedModel, rows: pa.Table) -> None:
    """A single pair is refused, since there is no other partner to compare its own with."""
    with pytest.raises(UserError, match=r"1 pairs .* at least two"):
        splices(model, Mounted(SAE, BLOCK, BLOCK), Mounted(SAE, BLOCK, BLOCK), pairs(1), rows, 3, "cpu", 0)


@pytest.mark.parametrize("side", [0, 1])
def test_a_latent_has_one_partner(side: int, model: PreTrainedModel, rows: pa.Table) -> None:
    """Pairs that are not one to one are an error of the caller."""
    twice = pairs(4).copy()
    twice[1, side] = twice[0, side]
    with pytest.raises(ValueError, match="several pairs"):
        splices(model, Mounted(SAE, BLOCK, BLOCK), Mounted(SAE, BLOCK, BLOCK), twice, rows, 3, "cpu", 0)
