from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from builders.errors import UserError
from builders.lenses.accumulator import LENS_CONVERGENCE, STEP, Accumulator, Trace

D = 2
HALF = torch.tensor([0, 1])


def summed(jacobians: Tensor, half: Tensor = HALF) -> Accumulator:
    """Return the sums of *jacobians* [n, layers, d, d]."""
    sums = Accumulator.empty(*jacobians.shape[1:3])
    largest = max(sums.add(output, jacobians[:, :, output].transpose(0, 1), half) for output in range(D))
    sums.counted(half, largest)
    return sums


def same(one: Accumulator, other: Accumulator) -> bool:
    """Return whether both hold the same bits."""
    return all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))


def pairs(first: float, second: float) -> Tensor:
    """Return the Jacobians of two positions and one layer: multiples of the identity."""
    return torch.stack([torch.eye(D) * first, torch.eye(D) * second])[:, None]


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=24, max_size=24), st.permutations([0, 1, 2]))
def test_shards_merge_to_the_same_bits_in_any_order_and_grouping(values: list[float], order: list[int]) -> None:
    """Three shards of two positions merge to equal bits, whatever is merged first."""
    shards = [summed(part) for part in torch.tensor(values).view(3, 2, 1, D, D)]
    a, b, c = (shards[number] for number in order)
    assert same(a.merge(b).merge(c), shards[0].merge(shards[1].merge(shards[2])))


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=8, max_size=8))
def test_the_mean_is_at_most_half_a_step_off(values: list[float]) -> None:
    """Each entry of the mean is within half a step of the grid of the mean that float64 gives."""
    jacobians = torch.tensor(values).view(2, 1, D, D)
    assert (summed(jacobians).mean() - jacobians.double().mean(0)).abs().max() <= STEP / 2 + 1e-12


def test_rows_of_the_sums_are_dimensions_of_the_last_layer() -> None:
    """A gradient of the last layer's dimension 1 is row 1."""
    sums = Accumulator.empty(1, D)
    sums.add(1, torch.tensor([[[3.0, 4.0]]]), torch.tensor([0]))
    sums.counted(torch.tensor([0]), 4.0)
    assert sums.mean().tolist() == [[[0.0, 0.0], [3.0, 4.0]]]
    assert sums.positions == 1


def test_the_error_is_that_of_a_mean() -> None:
    """Halves of one position each that differ by 2 have a mean of 2 with standard error 1: half of it. With an empty half there is none."""
    error = summed(pairs(1.0, 3.0)).error()
    assert error is not None
    assert error.tolist() == pytest.approx([0.5])
    assert summed(pairs(1.0, 3.0), torch.tensor([0, 0])).error() is None


def test_sums_survive_a_file_of_tensors() -> None:
    """The named tensors make the same sums again."""
    sums = summed(pairs(1.0, 3.0))
    assert same(Accumulator(**sums.tensors()), sums)


def test_what_cannot_be_added_is_refused() -> None:
    """Shards of other sizes, entries that are not finite, and sums that could overflow are refused in one line."""
    sums = summed(pairs(1.0, 3.0))
    with pytest.raises(UserError, match=r"shapes, \[1, 2, 2\] and \[1, 3, 3\]; merge shards of one subject"):
        sums.merge(Accumulator.empty(1, 3))
    for bad in (math.nan, math.inf):
        with pytest.raises(UserError, match="not finite; load the subject in float32"):
            summed(pairs(1.0, bad))
    with pytest.raises(UserError, match="average fewer positions"):
        summed(pairs(1.0, 2.0**29))
    large = summed(pairs(1.0, 2.0**28))
    with pytest.raises(UserError, match="average fewer positions"):
        large.merge(large)


def test_a_trace_stops_once_the_mean_moves_less_than_the_tolerance() -> None:
    """The mean 2 I moves to 2.5 I and then stays; the trace notes it every two positions and stops at the third note."""
    trace, sums = Trace(every=2, tolerance=0.1), summed(pairs(1.0, 3.0))
    assert not trace.note(sums)
    assert not trace.note(sums)  # nothing is new
    sums = sums.merge(summed(pairs(2.0, 4.0)))
    assert not trace.note(sums)
    assert trace.note(sums.merge(summed(pairs(2.0, 3.0))))
    rows = trace.rows("subject", "jacobian")
    LENS_CONVERGENCE.validate(LENS_CONVERGENCE.rows(rows))
    assert [row["positions"] for row in rows] == [2, 4, 6]
    assert [row["norm"] for row in rows] == pytest.approx([2.0, 2.5, 2.5])
    assert rows[0]["change"] is None
    assert [row["change"] for row in rows[1:]] == pytest.approx([0.2, 0.0])


def test_a_trace_waits_for_enough_positions_and_notes_the_rest() -> None:
    """Two positions are fewer than three, so they are noted only as the last; such a note never says that the mean has settled."""
    trace, sums = Trace(every=3, tolerance=1.0), summed(pairs(1.0, 3.0))
    assert not trace.note(sums)
    assert not trace.records
    assert not trace.note(sums, last=True)
    assert [record["positions"] for record in trace.records] == [2]
