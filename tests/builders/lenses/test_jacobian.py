from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
from linear import VOCABULARY, D, LinearModel
from recurrent import tiny
from rows import rows_of
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from builders.errors import UserError
from builders.lenses.accumulator import Accumulator, Trace
from builders.lenses.jacobian import LATER, POSITION, JacobianLens, Reach, Sampling, fit, lens_of, of_batch
from builders.lenses.state_jacobian import STATE
from builders.subjects.hookpoints import blocks_of, capture, edited
from builders.text.tokens import TOKENS

pytestmark = pytest.mark.numeric

ALL = Sampling(seed=0, positions=100, skip=1)
NEVER = 10**9


def rows(number: int, length: int = 6, vocabulary: int = VOCABULARY, first: int = 0) -> pa.Table:
    """Return *number* rows of text that begin with a special token; the first of them has the number *first*."""
    ids = torch.randint(vocabulary, (first + number, length), generator=torch.Generator().manual_seed(0)).tolist()[first:]
    special = [True, *[False] * (length - 1)]
    return rows_of(TOKENS, *[{"row": first + row, "ids": some, "special": special} for row, some in enumerate(ids)])


def layers_of(model: nn.Module) -> list[str]:
    """Return the hookpoints of layers 0 … L."""
    blocks = blocks_of(model)
    return [f"{blocks[0]}.input", *blocks]


def means(model: nn.Module, some: pa.Table, reach: Reach = POSITION, sampling: Sampling = ALL) -> Tensor:
    """Return the mean Jacobians of one batch [layers, d, d]."""
    return of_batch(model, layers_of(model), some, reach, sampling, "cpu").mean()


def same(one: Accumulator, other: Accumulator) -> bool:
    """Return whether both hold the same bits."""
    return all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))


def product(model: LinearModel, since: int) -> Tensor:
    """Return Π (I + A_i) over the blocks from *since* on, the first block rightmost."""
    total = torch.eye(D)
    for block in model.blocks[since:]:
        total = (torch.eye(D) + block.a) @ total
    return total


@pytest.mark.parametrize("together", [1, 3])
def test_the_lens_of_a_linear_model_is_exact(together: int) -> None:
    """Where blocks are x + A x, J_ℓ = Π (I + A_i), and the lens gives the model's own logits at every layer."""
    model, some = LinearModel(), rows(4)
    sampling = Sampling(seed=0, positions=3, together=together, skip=1)
    lens = lens_of(of_batch(model, layers_of(model), some, POSITION, sampling, "cpu"), POSITION)
    ids = torch.tensor(some["ids"].to_pylist())
    flows = capture(model, layers_of(model), ids)
    for layer, hookpoint in enumerate(layers_of(model)):
        logits = model.head(lens.carried(layer, flows[hookpoint].flatten(0, 1)))
        torch.testing.assert_close(logits, model(ids).flatten(0, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lens.jacobians, torch.stack([product(model, layer) for layer in range(3)]), rtol=1e-5, atol=1e-6)


def test_a_position_is_told_from_later_ones() -> None:
    """What a model remembers of a position is no part of its Jacobian at the position, and is added in the sum over later positions."""
    model, some = LinearModel(1, remembers=True), rows(2)
    block = model.blocks[0]
    own = torch.eye(D) + block.a
    torch.testing.assert_close(means(model, some)[0].float(), own, rtol=1e-5, atol=1e-6)
    reads = [block.b @ torch.linalg.matrix_power(block.r, steps) @ block.c for steps in range(3)]
    # Positions 1 … 4 are eligible: position 1 has three later ones, position 4 has none.
    expected = own + (3 * reads[0] + 2 * reads[1] + reads[2]) / 4
    torch.testing.assert_close(means(model, some, LATER)[0].float(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reach", [POSITION, STATE, LATER])
def test_shards_merge_to_the_bits_of_one_run(reach: Reach) -> None:
    """Batches of two rows, merged in another order, give the bits of one run over all rows."""
    model, sampling = tiny("mamba2"), Sampling(seed=0, positions=2, skip=1, batch=2)
    whole, first, second = (
        fit(model, layers_of(model), some, reach, sampling, Trace(NEVER), "cpu") for some in (rows(6, 8), rows(2, 8), rows(4, 8, first=2))
    )
    assert same(second.merge(first), whole)


def neox() -> nn.Module:
    """Return a random GPT-NeoX."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPTNeoXConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    made: nn.Module = model.eval().requires_grad_(False)
    return made


def moved(model: nn.Module, layer: str, ids: Tensor, where: Tensor, step: Tensor) -> Tensor:
    """Return how the last layer [n, length, d] moves along *step* [d], added at *layer* at position where[i] of ids[i], to fourth order."""

    def last(times: int) -> Tensor:
        def edit(flow: Tensor) -> Tensor:
            return flow.index_put((torch.arange(len(ids)), where), times * step, accumulate=True)

        end = layers_of(model)[-1]
        with edited(model, layer, edit):
            return capture(model, [end], ids)[end].double()

    return (8 * (last(1) - last(-1)) - (last(2) - last(-2))) / 12


@pytest.mark.parametrize("reach", [POSITION, STATE, LATER])
@pytest.mark.parametrize("name", ["llama", "gpt-neox", "mamba", "mamba2", "falcon_mamba", "rwkv"])
def test_jacobians_are_what_finite_differences_say(name: str, reach: Reach) -> None:
    """J_ℓ v is how the last layer moves when a layer's vector moves along v, for every reach and architecture."""
    model = neox() if name == "gpt-neox" else tiny(name)
    some, last = rows(3, 8, 50), 6  # the last of six eligible positions
    jacobians = means(model, some, reach)
    where = torch.arange(1, last + 1).repeat(3)
    ids = torch.tensor(some["ids"].to_pylist()).repeat_interleave(last, 0)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(1))
    first = where + (reach.offset or 0)
    until = torch.full_like(where, last) if reach.offset is None else first
    counts = (torch.arange(8) >= first[:, None]) & (torch.arange(8) <= until[:, None])
    for layer, hookpoint in enumerate(layers_of(model)[:-1]):
        step = 0.003 * capture(model, [hookpoint], ids)[hookpoint].std()
        expected = moved(model, hookpoint, ids, where, step * direction)[counts].sum(0) / (step * len(ids))
        found = jacobians[layer] @ direction.double()
        assert float((found - expected).norm() / expected.norm()) < 1e-3


def test_signs_separate_positions_on_average() -> None:
    """With all positions in one backward pass, the mean over many rows comes close to that of one position at a time."""
    model, some = LinearModel(1, remembers=True), rows(400)
    exact = means(model, some)
    signed = means(model, some, sampling=Sampling(seed=0, positions=100, together=100, skip=1))
    assert not torch.equal(signed, exact)
    assert float((signed - exact).norm() / exact.norm()) < 0.03


def test_draws_have_an_address() -> None:
    """A row's positions and signs depend on its number and the seed, not on the batch; a larger draw holds the smaller one."""
    model = LinearModel(1, remembers=True)
    sampling = Sampling(seed=0, positions=2, together=2, skip=1)
    alone = of_batch(model, layers_of(model), rows(1, first=1), POSITION, sampling, "cpu")
    among = of_batch(model, layers_of(model), rows(2), POSITION, sampling, "cpu")
    before = of_batch(model, layers_of(model), rows(1), POSITION, sampling, "cpu")
    torch.testing.assert_close(before.merge(alone).mean(), among.mean(), rtol=1e-5, atol=1e-6)
    other = Sampling(seed=1, positions=2, together=2, skip=1)
    assert not torch.allclose(means(model, rows(2), sampling=other), among.mean(), rtol=1e-3)


def test_only_text_that_text_follows_is_averaged() -> None:
    """Positions 2, 3, 4 count in a row of six tokens without its first two: the last one has no next. Special tokens count nowhere."""
    model = LinearModel(1)
    sampling = Sampling(seed=0, positions=100, skip=2)
    assert of_batch(model, layers_of(model), rows(2), POSITION, sampling, "cpu").positions == 6
    short = Sampling(seed=0, positions=100, skip=2, length=4)
    assert of_batch(model, layers_of(model), rows(2), POSITION, short, "cpu").positions == 2  # position 2 of each row
    special = [False, False, False, True, False, False]
    some = rows_of(TOKENS, {"ids": [1] * 6, "special": special}, {"row": 2, "ids": [1, 2], "special": [False, False]})
    assert of_batch(model, layers_of(model), some, STATE, sampling, "cpu").positions == 1  # position 4


def test_rows_without_positions_are_refused() -> None:
    """If no row has an eligible position, the message says which rows would do; one batch without any is an empty shard."""
    model = LinearModel(1)
    assert of_batch(model, layers_of(model), rows(1), POSITION, Sampling(seed=0), "cpu").positions == 0
    with pytest.raises(UserError, match="after its first 16; take longer rows or skip fewer"):
        fit(model, layers_of(model), rows(1), POSITION, Sampling(seed=0), Trace(1), "cpu")


def test_fit_stops_when_the_mean_has_settled() -> None:
    """The Jacobian of a linear model is the same everywhere, so the second note of the trace ends the run."""
    model, trace = LinearModel(), Trace(every=4, tolerance=2e-3)
    sampling = Sampling(seed=0, positions=4, skip=1, batch=1)
    assert fit(model, layers_of(model), rows(10), POSITION, sampling, trace, "cpu").positions == 8
    assert {row["positions"] for row in trace.records} == {4, 8}
    assert max(row["change"] for row in trace.records if row["positions"] == 8) < 1e-6


def test_the_last_layer_is_itself_and_reaches_no_later_position() -> None:
    """At the last layer the lens returns the vector, and zeros where it speaks about the next position."""
    hidden = torch.tensor([[1.0, 2.0]])
    nothing = torch.zeros(1, 2, 2)
    assert torch.equal(JacobianLens(POSITION, nothing).carried(1, hidden), hidden)
    assert torch.equal(JacobianLens(LATER, nothing).carried(1, hidden), hidden)
    assert torch.equal(JacobianLens(STATE, nothing).carried(1, hidden), torch.zeros(1, 2))
    assert JacobianLens(STATE, nothing).name == "jacobian-state"
