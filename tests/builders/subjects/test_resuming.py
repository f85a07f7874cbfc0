"""Going on in the middle of a model. The whole model, with the same edit, is the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from recurrent import ARCHITECTURES, LAYERS, tiny

from builders.subjects.hookpoints import blocks_of, edited
from builders.subjects.resuming import aside, recorded
from builders.subjects.states import advance, family_of

pytestmark = pytest.mark.numeric
PREFIX, LAST = torch.tensor([[3, 4, 5], [7, 8, 9]]), torch.tensor([[11], [12]])
INDEX = torch.tensor([1, 0, 1, 1])
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("begin", range(1, LAYERS + 1))
@pytest.mark.parametrize("name", [*ARCHITECTURES, "jamba", "lfm2"])
def test_the_rest_is_as_if_all_had_run(name: str, begin: int) -> None:
    """Rows that go on after any block, with a change there, say what the whole model says with that change."""
    model = tiny(name)
    family, blocks = family_of(model), blocks_of(model)
    memory = advance(model, PREFIX)[1]
    logits, flows = recorded(model, LAST, family.rows(memory, torch.arange(2)))
    close(logits, advance(model, LAST, family.rows(memory, torch.arange(2)))[0])
    assert flows is not None
    change = torch.randn(len(INDEX), 1, flows[0].shape[-1], generator=torch.Generator().manual_seed(0))
    with edited(model, blocks[begin - 1], lambda flow: flow + change):
        whole = advance(model, LAST[INDEX], family.rows(memory, INDEX))[0]
        with aside(model, blocks[:begin], flows[begin - 1][INDEX]):
            rest = advance(model, LAST[INDEX], family.rows(memory, INDEX, begin))[0]
    close(rest, whole)
    assert (whole - logits[INDEX]).abs().max() > 1e-2


def test_blocks_come_back() -> None:
    """After the context, and after an error inside it, every block runs again."""
    model = tiny("llama")
    blocks = blocks_of(model)
    _, flows = recorded(model, LAST, advance(model, PREFIX)[1])
    assert flows is not None
    before = model(input_ids=PREFIX).logits
    with pytest.raises(KeyboardInterrupt), aside(model, blocks[:2], flows[1]):
        raise KeyboardInterrupt
    assert torch.equal(model(input_ids=PREFIX).logits, before)


def test_blocks_that_hand_on_something_else_all_run() -> None:
    """Where a block gives more than a tensor, and nobody knows what, there is nothing to go on from."""
    model = tiny("falcon_h1")
    assert recorded(model, LAST, advance(model, PREFIX)[1])[1] is None
