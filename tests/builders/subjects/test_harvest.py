from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.subjects.checkpoints import load
from builders.subjects.harvest import harvest, read_rows, row_batches, shuffled
from builders.subjects.hookpoints import capture
from builders.subjects.places import Source
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    """Return the tiny model."""
    return load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")


def rows(*ids: list[int], first: int = 0) -> pa.Table:
    """Return TOKENS rows of *ids*, numbered from *first*, in which ids below 2 are special."""
    plain: dict[str, Any] = {"subject": "tiny", "document": 0, "held_out": False, "bytes": 0, "text": ""}
    return TOKENS.build(
        {
            **plain,
            "row": [first + number for number in range(len(ids))],
            "ids": list(ids),
            "special": [[token < 2 for token in row] for row in ids],
        }
    )


def numbered(count: int, part: int) -> Iterator[dict[str, Tensor]]:
    """Yield vectors [n, 1] of two hookpoints that hold the numbers up to *count*, and the same below zero, *part* at a time."""
    for numbers in torch.arange(count).float()[:, None].split(part):
        yield {"layers.0": numbers, "layers.1": -numbers}


def drawn(batches: Iterator[dict[str, Tensor]]) -> list[int]:
    """Return the numbers in *batches*, in order."""
    return [int(number) for batch in batches for number in batch["layers.0"].flatten()]


def at(model: PreTrainedModel, hookpoint: str, batch: pa.Table) -> Tensor:
    """Return the vectors of one hookpoint."""
    return harvest(model, [hookpoint], batch, "cpu").vectors[hookpoint]


def generator(seed: int = 0) -> torch.Generator:
    """Return a source of chance."""
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 7), st.integers(1, 9))
def test_batches_hold_every_row_in_order(count: int, size: int) -> None:
    """Batches have the given size, except that the last one holds the rest, and together hold the table's rows."""
    table = rows(*[[5]] * count)
    batches = [batch["row"].to_pylist() for batch in row_batches(table, size)]
    assert [number for batch in batches for number in batch] == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batches)


def test_rows_are_read_with_what_is_text() -> None:
    """Ids are padded on the right; neither padding nor special tokens are text."""
    ids, text = read_rows(rows([0, 5, 6], [7], [8, 1]), "cpu")
    assert ids.tolist() == [[0, 5, 6], [7, 0, 0], [8, 1, 0]]
    assert ids.dtype == torch.int64
    assert text.tolist() == [[False, True, True], [True, False, False], [True, False, False]]


def test_every_text_token_gives_one_vector(model: PreTrainedModel) -> None:
    """Vectors come in order with their place in the batch, row number and position; special tokens give none."""
    batch = rows([0, 5, 6, 7], [8, 1, 9], first=40)
    found = harvest(model, ["layers.1"], batch, "cpu")
    flow = capture(model, ["layers.1"], torch.tensor([[0, 5, 6, 7], [8, 1, 9, 0]]))["layers.1"]
    assert found.place.tolist() == [0, 0, 0, 1, 1]
    assert found.row.tolist() == [40, 40, 40, 41, 41]
    assert found.position.tolist() == [1, 2, 3, 0, 2]
    assert list(found.vectors) == ["layers.1"]
    assert torch.equal(found.vectors["layers.1"], flow[found.place, found.position])


def test_several_hookpoints_are_read_in_one_pass(model: PreTrainedModel) -> None:
    """Outputs and inputs of several modules are captured in one run of the model, each as if captured alone."""
    names = ["layers.1", "layers.0.mlp.down_proj.input", "layers.1.mlp.input", "layers.0"]
    batch = rows([0, 5, 6, 7], [8, 1, 9])
    runs: list[None] = []
    handle = model.base_model.layers[0].register_forward_pre_hook(lambda *_: runs.append(None))
    found = harvest(model, names, batch, "cpu")
    handle.remove()
    assert len(runs) == 1
    assert list(found.vectors) == names
    assert [tuple(found.vectors[name].shape) for name in names] == [(5, 32), (5, 64), (5, 32), (5, 32)]
    assert all(torch.equal(found.vectors[name], at(model, name, batch)) for name in names)


def test_special_tokens_are_read_though_not_kept(model: PreTrainedModel) -> None:
    """BOS gives no vector, but the tokens after it have read it."""
    behind = at(model, "layers.1", rows([0, 5, 6]))
    alone = at(model, "layers.1", rows([5, 6]))
    assert behind.shape == alone.shape
    assert not torch.allclose(behind, alone, atol=1e-4)


def test_a_slice_of_a_table_is_read_as_itself(model: PreTrainedModel) -> None:
    """A batch cut out of a larger table gives its own rows' vectors."""
    table = rows([5, 6], [7, 8, 9], [10, 0, 11])
    cut = harvest(model, ["layers.0"], table.slice(1), "cpu")
    own = harvest(model, ["layers.0"], rows([7, 8, 9], [10, 0, 11], first=1), "cpu")
    assert cut.row.tolist() == own.row.tolist() == [1, 1, 1, 2, 2]
    assert torch.equal(cut.vectors["layers.0"], own.vectors["layers.0"])


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4))
def test_company_does_not_change_a_row(lengths: list[int], model: PreTrainedModel) -> None:
    """A row's vectors equal, up to rounding, those that it has alone, whatever longer rows it is padded to."""
    table = rows(*[[2 + (7 * place + 3 * number) % 380 for place in range(length)] for number, length in enumerate(lengths)])
    alone = torch.cat([at(model, "layers.2", table.slice(number, 1)) for number in range(len(lengths))])
    torch.testing.assert_close(at(model, "layers.2", table), alone, rtol=0, atol=1e-5)


def test_vectors_are_single_precision(tiny_checkpoint: Path) -> None:
    """A model in half precision gives vectors that SAEs can compute with."""
    half = load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "bfloat16", "cpu")
    assert at(half, "layers.1", rows([5, 6])).dtype == torch.float32


def test_harvesting_warns_of_nothing(model: PreTrainedModel) -> None:
    """A pass over ordinary rows gives no warning."""
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = harvest(model, ["layers.1"], rows([5, 6]), "cpu")
    finally:
        torch.set_warn_always(False)
    assert found.position.tolist() == [0, 1]


@given(st.integers(0, 60), st.integers(1, 7), st.integers(4, 20), st.integers(1, 3), st.integers(1, 4))
def test_no_vector_is_used_more_than_the_passes(count: int, part: int, size: int, passes: int, batch: int) -> None:
    """Batches are whole, each pass over a buffer uses a vector at most once, and only remainders are left out."""
    batches = list(shuffled(numbered(count, part), size, passes, batch, generator()))
    assert all(vectors.shape == (batch, 1) for held in batches for vectors in held.values())
    uses = Counter(drawn(iter(batches)))
    assert set(uses) <= set(range(count))
    assert all(times <= passes for times in uses.values())
    buffers = -(-count // size)
    assert passes * count - uses.total() <= buffers * passes * (batch - 1)


def test_the_vectors_of_a_token_stay_together() -> None:
    """In every batch, a token's vectors stand in the same place at both hookpoints."""
    batches = list(shuffled(numbered(40, 7), 16, 2, 4, generator()))
    assert len(batches) >= 2 * 8
    assert all(list(batch) == ["layers.0", "layers.1"] for batch in batches)
    assert all(torch.equal(batch["layers.1"], -batch["layers.0"]) for batch in batches)


def test_every_vector_is_used_where_batches_fit() -> None:
    """If the batch size divides the buffers, every vector is used exactly once per pass."""
    batches = drawn(shuffled(numbered(24, 4), 8, 3, 4, generator()))
    assert sorted(batches) == sorted(3 * list(range(24)))
    assert {number // 8 for number in batches[:24]} == {0}
    assert sorted(batches[:8]) == list(range(8))  # a pass is over before the next begins
    assert batches[:8] != batches[8:16]


def test_order_is_the_generators() -> None:
    """The same generator draws the same batches, another one others, and neither follows torch's global state."""

    def order(seed: int) -> list[int]:
        return drawn(shuffled(numbered(32, 5), 16, 1, 4, generator(seed)))

    first = order(0)
    torch.rand(3)
    assert order(0) == first
    assert order(1) != first


def test_vectors_are_taken_as_they_are_needed() -> None:
    """The first batch comes as soon as the buffer is full: no more vectors are requested than fill it."""
    asked: list[int] = []

    def vectors() -> Iterator[dict[str, Tensor]]:
        for number in range(100):
            asked.append(number)
            yield {"layers.0": torch.full((4, 1), float(number))}

    batches = shuffled(vectors(), 8, 1, 4, generator())
    next(batches)
    assert asked == [0, 1]
