from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from linear import D, LinearModel
from recurrent import tiny
from rows import rows_of
from torch import Tensor, nn

from builders.lenses.accumulator import Accumulator
from builders.lenses.jacobian import POSITION, Reach, Sampling, of_batch
from builders.lenses.state_jacobian import STATE, through_state
from builders.subjects.hookpoints import blocks_of
from builders.text.tokens import TOKENS

pytestmark = pytest.mark.numeric

IDS = [[3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]]
ROWS: pa.Table = rows_of(TOKENS, *[{"row": row, "ids": ids, "special": [False] * 6} for row, ids in enumerate(IDS)])


def sums(model: nn.Module, reach: Reach) -> Accumulator:
    """Return the sums of the Jacobians at all positions but the last."""
    blocks = blocks_of(model)
    return of_batch(model, [f"{blocks[0]}.input", *blocks], ROWS, reach, Sampling(seed=0, positions=100, skip=0), "cpu")


def steps(model: LinearModel) -> tuple[list[Tensor], list[Tensor]]:
    """Return each block's Jacobians at the position, I + A, and at the next, B C."""
    return [torch.eye(D) + block.a for block in model.blocks], [block.b @ block.c for block in model.blocks]


def test_a_linear_recurrence_has_a_known_answer() -> None:
    """Either of two blocks hands the vector to the next position: J₀ = (I + A₂) B₁C₁ + B₂C₂ (I + A₁), and J₁ = B₂C₂."""
    model = LinearModel(2, remembers=True)
    here, following = steps(model)
    expected = torch.stack([here[1] @ following[0] + following[1] @ here[0], following[1]])
    torch.testing.assert_close(sums(model, STATE).mean().float(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_memory_nothing_reaches_the_next_position() -> None:
    """Blocks that only add A x have a Jacobian of zero through the state."""
    assert not sums(LinearModel(2), STATE).sums.any()


def test_the_share_through_the_state_compares_norms() -> None:
    """With one block, the share is ‖B C‖ / ‖I + A‖."""
    model = LinearModel(1, remembers=True)
    here, following = steps(model)
    share = through_state(sums(model, POSITION), sums(model, STATE))
    assert share.tolist() == pytest.approx([float(following[0].norm() / here[0].norm())], rel=1e-5)


@pytest.mark.parametrize("name", ["llama", "mamba", "mamba2", "falcon_mamba", "rwkv", "jamba"])
def test_every_architecture_reaches_the_next_position(name: str) -> None:
    """Attention, a recurrent state and a token shift all pass something on, so that transformers and recurrent models compare."""
    model = tiny(name)
    share = through_state(sums(model, POSITION), sums(model, STATE))
    assert len(share) == 3
    assert bool((share > 1e-4).all())
