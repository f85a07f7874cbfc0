"""A layer's lens on another layer's vectors: its own row is that of `lenses`, and known answers on toys."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from recurrent import ARCHITECTURES, LAYERS, VOCABULARY, tiny
from rows import rows_of

from builders.errors import UserError
from builders.lenses.lens import LogitLens
from builders.lenses.lenses import measure
from builders.lenses.transfer import LENS_TRANSFER, transfer
from builders.subjects.anatomy import anatomy_of
from builders.subjects.hookpoints import capture
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

pytestmark = pytest.mark.numeric

RNG = np.random.default_rng(0)
ROWS = [[0, *RNG.integers(1, VOCABULARY, length).tolist()] for length in (9, 3, 14, 6)]


def tokens(ids: list[list[int]]) -> pa.Table:
    """Return rows of these *ids*, in which 0 is special."""
    special = ([token == 0 for token in row] for row in ids)
    return rows_of(TOKENS, *({"row": n, "ids": row, "special": next(special), "bytes": 9} for n, row in enumerate(ids)))


@dataclass(frozen=True)
class Shifted:
    """A lens that adds another vector at each layer, which is as large as a model's stream."""

    name: str = "tuned"

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return *hidden* plus the layer's vector."""
        return hidden + torch.randn(hidden.shape[1], generator=torch.Generator().manual_seed(layer))


@dataclass(frozen=True)
class Same:
    """The logit lens by another name."""

    name: str = "tuned"

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return *hidden*."""
        return hidden


@dataclass(frozen=True)
class Noted:
    """A lens that keeps what it read, by the layer that it was made for."""

    name: str = "tuned"
    read: dict[int, list[Tensor]] = field(default_factory=dict)

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return *hidden*."""
        self.read.setdefault(layer, []).append(hidden)
        return hidden


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_lens_on_its_own_layer_is_its_row_of_lenses(name: str) -> None:
    """Each layer's lens on the vectors of the same layer has the figures of `lenses`."""
    model = tiny(name)
    anatomy, rows = anatomy_of(model), tokens(ROWS)
    found = {(row["layer"], row["vectors_layer"]): row for row in transfer(model, anatomy, [Shifted()], "s", rows, 2, "cpu").to_pylist()}
    assert set(found) == {(layer, other) for layer in range(LAYERS) for other in range(LAYERS)}
    for row in measure(model, anatomy, [Shifted()], "s", rows, 2, "cpu").lenses.to_pylist()[:LAYERS]:
        own = found[row["layer"], row["layer"]]
        for column in ("kl", "kl_se", "ce", "ce_se"):
            assert own[column] == pytest.approx(row[column], rel=1e-5, abs=1e-6)
        assert (own["n"], own["rows"]) == (row["n"], row["rows"])


def test_a_lens_without_layers_transfers_to_the_logit_lens() -> None:
    """If a lens is the same at all layers, its transfer to layer j is the logit lens of layer j, whatever layer it was made for."""
    model = tiny("llama")
    anatomy, rows = anatomy_of(model), tokens(ROWS)
    logit = measure(model, anatomy, [LogitLens()], "s", rows, 2, "cpu").lenses.to_pylist()
    for row in transfer(model, anatomy, [Same()], "s", rows, 2, "cpu").to_pylist():
        assert row["kl"] == pytest.approx(logit[row["vectors_layer"]]["kl"], rel=1e-5)
        assert row["ce"] == pytest.approx(logit[row["vectors_layer"]]["ce"], rel=1e-5)


def test_the_lens_of_one_layer_is_another_lens_on_another_layer() -> None:
    """The figures of layer i's lens on layer j differ from those of layer j's lens on layer i."""
    model = tiny("llama")
    found = transfer(model, anatomy_of(model), [Shifted()], "s", tokens(ROWS), 2, "cpu").to_pylist()
    by_pair = {(row["layer"], row["vectors_layer"]): row["kl"] for row in found}
    assert by_pair[0, 2] != pytest.approx(by_pair[2, 0], rel=1e-3)


def test_streams_of_other_sizes_are_brought_to_one() -> None:
    """Vectors of a layer that keeps the stream at half the size are doubled for lenses of whole layers, and whole ones are halved."""
    model = tiny("llama")
    halved = replace(anatomy_of(model), scales=[1, 1, 0.5, 0.5])
    lens = Noted()
    transfer(model, halved, [lens], "s", tokens(ROWS[:1]), 2, "cpu")
    for other, (first, second, third) in enumerate(zip(*(lens.read[layer] for layer in range(LAYERS)), strict=True)):
        assert torch.equal(first, second)
        assert torch.equal(third, 0.5 * first)
        seen = capture(model, [halved.layers[other]], torch.tensor(ROWS[:1]))[halved.layers[other]][0, :-1]
        torch.testing.assert_close(first, seen / halved.scales[other])


def test_the_logit_lens_is_left_out() -> None:
    """The logit lens has no rows, and the table without rows is whole."""
    model = tiny("llama")
    found = transfer(model, anatomy_of(model), [LogitLens()], "s", tokens(ROWS), 2, "cpu")
    assert found.num_rows == 0
    LENS_TRANSFER.validate(found)


def test_rows_of_nothing_are_one_line() -> None:
    """Rows without a token to predict are refused with the next step."""
    model = tiny("llama")
    with pytest.raises(UserError, match="has a token to predict; make rows longer") as caught:
        transfer(model, anatomy_of(model), [Shifted()], "s", tokens([[4], [0, 0]]), 2, "cpu")
    assert "\n" not in str(caught.value)
