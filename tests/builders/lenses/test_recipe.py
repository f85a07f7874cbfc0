"""Which rows a lens learns from, and how gradients are scaled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import rows_of

from builders.errors import UserError
from builders.lenses.recipe import Recipe, clip, split
from builders.lenses.translators import TunedLens
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = Recipe(rows_per_step=4, check_rows=3)


def tokens(documents: list[int]) -> pa.Table:
    """Return a row of each of these documents."""
    return rows_of(TOKENS, *({"row": n, "document": document, "ids": [n]} for n, document in enumerate(documents)))


@given(st.lists(st.integers(0, 6), min_size=3, max_size=40))
def test_no_document_is_learnt_from_and_checked_on(documents: list[int]) -> None:
    """A split has the rows to check on that the recipe asks for, at least a step's rows to learn from, and no document in both."""
    try:
        found = split(tokens(documents), SMALL, "m", 0)
    except UserError:
        return
    learning, checking = (set(part["document"].to_pylist()) for part in (found.learning, found.checking))
    assert not learning & checking
    assert learning | checking <= set(documents)
    assert found.checking.num_rows == 3
    assert found.learning.num_rows >= 4


def test_a_split_has_an_address() -> None:
    """Seed and subject decide which documents are checked on, and the order of rows does not."""
    rows = tokens([n // 2 for n in range(40)])
    drawn = [set(split(rows, SMALL, subject, seed).checking["document"].to_pylist()) for subject, seed in (("m", 0), ("m", 1), ("k", 0))]
    again = split(rows.take(list(range(39, -1, -1))), SMALL, "m", 0)
    assert set(again.checking["document"].to_pylist()) == drawn[0]
    assert drawn[0] != drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(("documents", "check", "learn"), [([0] * 20, 3, 0), ([0, 1, 2], 3, 0), ([0, 0, 0, 1, 1, 1], 3, 3)])
def test_a_corpus_too_small_is_refused(documents: list[int], check: int, learn: int) -> None:
    """Too few rows on either side are one line with both numbers and what to lower."""
    with pytest.raises(UserError, match=rf"^m: {len(documents)} rows of .* {check} to check on .* leave {learn} to learn from .*; lower"):
        split(tokens(documents), SMALL, "m", 0)


def test_each_layer_is_clipped_by_its_own_norm() -> None:
    """A sum over tokens becomes a mean, and a layer whose norm is above the bound is scaled down to it; others stay."""
    slopes = TunedLens(torch.tensor([[[30.0]], [[3.0]]]), torch.tensor([[40.0], [4.0]]))
    clip(slopes, 1.0, 10)
    torch.testing.assert_close(slopes.weight.flatten(), torch.tensor([0.6, 0.3]))
    torch.testing.assert_close(slopes.bias.flatten(), torch.tensor([0.8, 0.4]))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_layer_that_overflowed_stands_still(broken: float) -> None:
    """A gradient that is no number becomes zeros in its own layer, and the others keep theirs."""
    slopes = TunedLens(torch.tensor([[[broken]], [[0.3]]]), torch.tensor([[1.0], [0.4]]))
    clip(slopes, 1.0, 1)
    assert slopes.weight.flatten().tolist() == pytest.approx([0, 0.3])
    assert slopes.bias.flatten().tolist() == pytest.approx([0, 0.4])


def test_each_optimiser_has_its_own_learning_rate() -> None:
    """Unless one is given, SGD starts at 1 and AdamW at 0.001."""
    assert [Recipe(optimiser=name).first_lr for name in ("sgd", "adamw")] == [1.0, 1e-3]
    assert replace(SMALL, lr=0.25).first_lr == 0.25
