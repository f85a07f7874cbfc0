"""How good lenses are: known answers on toys, sums over rows read alone, standard errors and chance levels by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recurrent import ARCHITECTURES, LAYERS, VOCABULARY, WIDTH, tiny
from rows import rows_of

from builders.errors import UserError
from builders.lenses.comparison import QUANTITIES, Constant, Sums, compared
from builders.lenses.lens import Chunk, LogitLens
from builders.lenses.lenses import LENSES, bits_per_nat, measure
from builders.saes.fidelity import RowSums
from builders.subjects.anatomy import anatomy_of
from builders.subjects.hookpoints import capture
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from builders.lenses.lenses import Measured

pytestmark = pytest.mark.numeric

RNG = np.random.default_rng(0)
ROWS = [[0, *RNG.integers(1, VOCABULARY, length).tolist()] for length in (9, 3, 14, 6, 1)]
BYTES = 70


def tokens(ids: list[list[int]]) -> pa.Table:
    """Return rows of these *ids*, in which 0 is special, and each of which covers as many bytes."""
    special = ([token == 0 for token in row] for row in ids)
    return rows_of(TOKENS, *({"row": n, "ids": row, "special": next(special), "bytes": BYTES} for n, row in enumerate(ids)))


@dataclass(frozen=True)
class Blind:
    """A lens that says the same at every token: what these vectors of layer L say."""

    vector: Tensor
    name: str = "blind"

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return the same vector for each of *hidden*."""
        return self.vector.expand(len(hidden), -1)


@dataclass(frozen=True)
class Turned:
    """A lens that turns its vectors by another matrix at each layer, so that it has something to get wrong."""

    name: str = "turned"

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return *hidden* times a matrix."""
        matrix = torch.randn(hidden.shape[1], hidden.shape[1], generator=torch.Generator().manual_seed(layer))
        return hidden @ matrix


def measured(name: str, batch: int = 2, **more: Any) -> Measured:
    """Return what two lenses say of a tiny model."""
    model = tiny(name)
    return measure(model, anatomy_of(model), [LogitLens(), Turned()], "s", tokens(ROWS), batch, "cpu", **more)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_logit_lens_of_the_last_layer_is_the_model(name: str) -> None:
    """At layer L the logit lens has KL 0, agrees with the model everywhere, and has the model's own cross-entropy."""
    last = measured(name).lenses.to_pylist()[LAYERS]
    assert (last["lens"], last["layer"], last["depth"]) == ("logit", LAYERS, 1.0)
    assert last["kl"] == pytest.approx(0, abs=1e-5)
    assert last["ce"] == pytest.approx(last["baseline_ce"], rel=1e-5)
    assert (last["top1"], last["top5"]) == (1, 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_figures_equal_those_of_rows_read_alone(name: str) -> None:
    """Each mean and standard error is that of single tokens, from logits of rows read one by one, in double precision."""
    model = tiny(name)
    anatomy = anatomy_of(model)
    found = {(row["lens"], row["layer"]): row for row in measured(name).lenses.to_pylist()}
    assert set(found) == {(lens, layer) for lens in ("logit", "turned") for layer in range(LAYERS + 1)}
    for lens in (LogitLens(), Turned()):
        for layer in range(LAYERS + 1):
            values = [_values(model, anatomy, lens, layer, ids) for ids in ROWS]
            row = found[lens.name, layer]
            for quantity in QUANTITIES:
                sums = RowSums(torch.stack([v[quantity].sum() for v in values]), torch.tensor([len(ids) - 1.0 for ids in ROWS]).double())
                assert row[quantity] == pytest.approx(sums.mean, rel=1e-4, abs=2e-5)
                assert row[f"{quantity}_se"] == pytest.approx(sums.se, rel=1e-3, abs=2e-5)
            assert (row["n"], row["rows"]) == (sum(len(ids) - 1 for ids in ROWS), len(ROWS))


def _values(model: Any, anatomy: Any, lens: Any, layer: int, ids: list[int]) -> dict[str, Tensor]:
    """Return each quantity of each token of one row, the plain way."""
    place = anatomy.layers[layer]
    hidden = capture(model, [place], torch.tensor([ids]))[place][0, :-1]
    p = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].double().softmax(-1)
    q = anatomy.logits(lens.carried(layer, hidden.float())).double().softmax(-1)
    rank = (q > q.gather(1, p.argmax(-1, keepdim=True))).sum(-1)
    return {
        "ce": -q[torch.arange(len(q)), torch.tensor(ids[1:])].log(),
        "kl": (p * (p / q).log()).sum(-1),
        "entropy": -(q * q.log()).sum(-1),
        "top1": (rank == 0).double(),
        "top5": (rank < 5).double(),
    }


def test_figures_do_not_depend_on_the_batch() -> None:
    """Rows read in padded batches give the figures and the top tokens of rows read one by one."""
    one, all_ = (measured("mamba2", batch) for batch in (1, 5))
    for row, other in zip(one.lenses.to_pylist(), all_.lenses.to_pylist(), strict=True):
        numbers = [name for name, value in row.items() if isinstance(value, float)]
        assert {name: row[name] for name in numbers} == pytest.approx({name: other[name] for name in numbers}, rel=1e-4, abs=2e-5)
        assert {name: value for name, value in row.items() if name not in numbers}.items() <= other.items()
    assert np.array_equal(one.tops.model, all_.tops.model)
    assert np.array_equal(one.tops.row, all_.tops.row)


def test_bits_per_byte() -> None:
    """Bits per byte are nats per token, times text tokens per byte, divided by ln 2, for the lens and for the model."""
    ratio = sum(len(ids) - 1 for ids in ROWS) / (BYTES * len(ROWS)) / math.log(2)
    assert bits_per_nat(tokens(ROWS)) == pytest.approx(ratio)
    for row in measured("llama").lenses.to_pylist():
        assert row["bits_per_nat"] == pytest.approx(ratio)
        for name in ("ce", "kl", "entropy", "baseline_ce"):
            assert row[f"{name}_bits"] == pytest.approx(row[name] * ratio)


def test_a_text_of_known_bits() -> None:
    """A model that gives each of 2⁸ equally likely bytes a token has 8 bits per byte, by whatever route."""
    rows = rows_of(TOKENS, {"ids": [1, 2, 3, 4], "special": [False] * 4, "bytes": 4})
    assert math.log(256) * bits_per_nat(rows) == pytest.approx(8)


def test_top_tokens_are_kept() -> None:
    """Of every counted token its row, the model's top token and each lens's top token of each layer are kept."""
    found = measured("llama")
    assert found.tops.row.tolist() == [row for row, ids in enumerate(ROWS) for _ in ids[1:]]
    assert {name: top.shape for name, top in found.tops.lenses.items()} == dict.fromkeys(("logit", "turned"), (33, LAYERS + 1))
    assert np.array_equal(found.tops.lenses["logit"][:, -1], found.tops.model)
    shares = {(row["lens"], row["layer"]): row["top1"] for row in found.lenses.to_pylist()}
    for lens, top in found.tops.lenses.items():
        for layer in range(LAYERS + 1):
            assert shares[lens, layer] == pytest.approx((top[:, layer] == found.tops.model).mean())


def test_chance_is_the_best_blind_lens() -> None:
    """No lens that says the same everywhere is better than chance in cross-entropy, KL or agreement, and the columns are bounds by hand."""
    model = tiny("llama")
    blind = [Blind(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)), f"blind-{seed}") for seed in range(20)]
    for row in measure(model, anatomy_of(model), blind, "s", tokens(ROWS), 2, "cpu").lenses.to_pylist():
        assert row["ce"] >= row["ce_chance"]
        assert row["kl"] >= row["kl_chance"]
        assert row["top1"] <= row["top1_chance"] + 1e-6
        assert row["top5"] <= row["top5_chance"] + 1e-6


def chunk_of(final: Tensor, target: list[int]) -> Chunk:
    """Return a chunk in which the model says *final* (logits [n, vocabulary]), and *target* follows."""
    return Chunk(torch.zeros(len(target), dtype=torch.int64), torch.tensor(target), final.log_softmax(-1), [])


def test_quantities_by_hand() -> None:
    """Of two equally likely tokens among four, a lens that says all four alike has KL ln 2, cross-entropy and entropy ln 4."""
    certain = torch.tensor([[0.0, 0.0, -100.0, -100.0]])
    values, leaders = compared(chunk_of(certain, [1]), torch.zeros(1, 4))
    assert values[:3, 0].tolist() == pytest.approx([math.log(4), math.log(2), math.log(4)])
    assert leaders.shape == (1,)


@pytest.mark.parametrize(("better", "top1", "top5"), [(0, 1, 1), (1, 0, 1), (4, 0, 1), (5, 0, 0), (7, 0, 0)])
def test_agreement_by_rank(better: int, top1: int, top5: int) -> None:
    """The model's top token is among a lens's five top tokens if fewer than five tokens are above it."""
    logits = torch.zeros(1, 9)
    logits[0, 1 : 1 + better] = 2.0
    logits[0, 0] = 1.0
    values, leaders = compared(chunk_of(torch.eye(9)[:1], [3]), logits)
    assert values[3:, 0].tolist() == [top1, top5]
    assert (int(leaders[0]) == 0) == bool(top1)


def test_a_vocabulary_of_fewer_than_five() -> None:
    """Where there are four tokens, all of them are among the top five."""
    values, _ = compared(chunk_of(torch.eye(4), [0, 1, 2, 3]), torch.eye(4).flip(0))
    assert values[4].tolist() == [1, 1, 1, 1]


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 20))
def test_divergences_are_what_they_must_be(seed: int, vocabulary: int, n: int) -> None:
    """KL is not negative and 0 of the model itself; entropy lies between 0 and ln of the vocabulary; top-5 agreement includes top-1."""
    own, lens = 5 * torch.randn(2, n, vocabulary, generator=torch.Generator().manual_seed(seed))
    chunk = chunk_of(own, [seed % vocabulary] * n)
    (ce, kl, entropy, top1, top5), _ = compared(chunk, lens)
    assert float(kl.min()) >= 0
    assert 0 <= float(entropy.min()) <= float(entropy.max()) <= math.log(vocabulary) + 1e-5
    assert bool((top5 >= top1).all())
    same, _ = compared(chunk, own)
    assert float(same[1].max()) <= 1e-5
    torch.testing.assert_close(same[0], chunk.loss)
    assert bool((same[3] == 1).all())
    assert bool((ce >= 0).all())


def test_chance_by_hand() -> None:
    """Two tokens that the model is sure of, each half of the time, and what follows three times of four, give the entropies of these."""
    constant = Constant(4)
    sure = 200 * torch.eye(4)[[0, 1]]
    constant.add(chunk_of(sure, [2, 2]))
    constant.add(chunk_of(sure, [2, 3]))
    assert constant.levels() == {
        "ce_chance": pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))),
        "kl_chance": pytest.approx(math.log(2)),
        "top1_chance": 0.5,
        "top5_chance": 1.0,
    }


def test_a_model_that_always_says_the_same_has_no_kl_by_chance() -> None:
    """If the model's distribution is the same everywhere, a blind lens has it."""
    constant = Constant(3)
    constant.add(chunk_of(torch.tensor([[0.3, 1.0, 2.0]]).expand(5, 3), [0, 1, 2, 1, 0]))
    assert constant.levels()["kl_chance"] == pytest.approx(0, abs=1e-6)


def test_sums_by_row() -> None:
    """Values are summed in their rows over batches; a row without counted tokens is no unit."""
    sums = Sums(4)
    for rows, values in (([0, 0, 1], [[1.0, 2.0, 3.0]]), ([3], [[5.0]])):
        sums.count(torch.tensor(rows))
        sums.add("x", torch.tensor(rows), torch.tensor(values))
    (found,) = sums.means("x")
    assert found.total.tolist() == [3, 3, 5]
    assert found.tokens.tolist() == [2, 1, 1]


def test_one_row_has_no_standard_error() -> None:
    """A single row has means, and nothing where errors would be."""
    model = tiny("llama")
    found = measure(model, anatomy_of(model), [LogitLens()], "s", tokens(ROWS[:1]), 2, "cpu").lenses
    LENSES.validate(found)
    assert found["ce_se"].to_pylist() == [None] * (LAYERS + 1)


def test_rows_without_a_token_to_predict_change_nothing() -> None:
    """Rows of special tokens, alone in their batch or not, leave means and errors as they were."""
    model = tiny("llama")
    anatomy = anatomy_of(model)
    more = tokens([ROWS[0], [0, 0], [0], *ROWS[1:], [0, 0, 0]])
    one = measure(model, anatomy, [LogitLens()], "s", tokens(ROWS), 1, "cpu").lenses.to_pylist()
    other = measure(model, anatomy, [LogitLens()], "s", more, 1, "cpu").lenses.to_pylist()
    bits = ("bits_per_nat", "ce_bits", "kl_bits", "entropy_bits", "baseline_ce_bits")  # the added rows claim bytes
    for row, with_it in zip(one, other, strict=True):
        assert {k: v for k, v in row.items() if k not in bits} == {k: v for k, v in with_it.items() if k not in bits}


def test_ahead_compares_with_the_next_position() -> None:
    """One token ahead, what the model says one position later is the measure, and each row has one token fewer."""
    found = measured("llama", ahead=1)
    assert {(row["ahead"], row["n"], row["rows"]) for row in found.lenses.to_pylist()} == {(1, 33 - 5, 4)}
    last = found.lenses.to_pylist()[LAYERS]
    assert last["kl"] > 1e-3
    assert last["baseline_ce"] != pytest.approx(last["ce"], rel=1e-3)


@pytest.mark.parametrize(("ids", "words"), [([[0, 0], [0]], "hold no text"), ([[4], [0, 0]], "has a token to predict")])
def test_rows_of_nothing_are_one_line(ids: list[list[int]], words: str) -> None:
    """Rows without text, or without a token to predict, are refused with the next step."""
    model = tiny("llama")
    with pytest.raises(UserError, match=words) as caught:
        measure(model, anatomy_of(model), [LogitLens()], "s", tokens(ids), 2, "cpu")
    assert "\n" not in str(caught.value)
