"""Models' memories of what they have read. The reference is each row read alone and in one piece, without a memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recurrent import ARCHITECTURES, HYBRIDS, LAYERS, RECURRENT, UNKNOWN, VOCABULARY, WIDTH, changed, held, tiny, whole
from torch import Tensor

from builders.errors import UserError
from builders.subjects.hookpoints import capture
from builders.subjects.states import Family, Memory, Parts, advance, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.numeric

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8], [3, 1, 4, 1, 5, 9, 2, 7]])
ROWS, LENGTH = IDS.shape
CUT, EVERYONE = 5, torch.arange(ROWS)
STATEFUL, EVERY = (*RECURRENT, *HYBRIDS), (*ARCHITECTURES, *HYBRIDS)
TEXTS = st.lists(st.tuples(st.integers(0, ROWS - 1), *[st.integers(0, VOCABULARY - 1)] * 2), min_size=1, max_size=5)  # a row and two tokens
SOME_ROWS = st.lists(st.integers(0, ROWS - 1), min_size=1, unique=True).map(torch.tensor)
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
exactly = partial(torch.testing.assert_close, rtol=0, atol=0)


@pytest.fixture(scope="module", params=EVERY)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a random model of one of the architectures."""
    return tiny(request.param)


@pytest.fixture(scope="module", params=STATEFUL)
def stateful(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a random model of one of the architectures that have a recurrent state."""
    return tiny(request.param)


def mixes(model: PreTrainedModel) -> bool:
    """Return whether some layer is a mixture of experts."""
    return getattr(model.config, "num_experts", 1) > 1


def read(model: PreTrainedModel, ids: Tensor = IDS[:, :CUT]) -> tuple[Family, Memory]:
    """Return the family of *model*, and its memory after reading *ids*."""
    return family_of(model), advance(model, ids)[1]


def parts_of(family: Family, memory: Memory) -> list[Parts]:
    """Return the recurrent state as it is now, layer by layer."""
    return [{name: part.clone() for name, part in family.parts(memory, layer).items()} for layer in range(LAYERS)]


def noise(parts: Parts, rows: int = ROWS, seed: int = 0) -> Parts:
    """Return random values to add to *rows* rows of each of *parts*."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, *part.shape[1:], generator=draw) for name, part in parts.items()}


def add_everywhere(family: Family, memory: Memory, where: Tensor = EVERYONE, times: float = 1.0) -> None:
    """Add noise to rows *where* of every part of every layer."""
    for layer in range(LAYERS):
        change = noise(family.parts(memory, layer), len(where), seed=layer)
        family.add(memory, layer, where, {name: times * some for name, some in change.items()})


class TestReading:
    """Reading on from a memory."""

    @pytest.mark.parametrize("cut", range(1, LENGTH))
    def test_a_prefix_and_the_rest_are_the_whole(self, cut: int, model: PreTrainedModel) -> None:
        """Wherever a text is cut, reading its prefix, then one token, then the rest predicts what reading the whole text predicts."""
        expected = whole(model, IDS)
        logits, memory = advance(model, IDS[:, :cut])
        close(logits, expected[:, cut - 1])
        copy = family_of(model).rows(memory, EVERYONE)
        close(advance(model, IDS[:, cut : cut + 1], copy)[0], expected[:, cut])
        rest, same = advance(model, IDS[:, cut:], memory)
        close(rest, expected[:, -1])
        assert same is memory

    @given(TEXTS, st.integers(1, 6))
    @settings(max_examples=8)
    def test_a_batch_is_its_rows(self, model: PreTrainedModel, rows: list[tuple[int, int, int]], cut: int) -> None:
        """Rows that are picked (in any order, also twice) and continued with different tokens predict what each predicts alone."""
        index, tokens = torch.tensor(rows).split([1, 2], dim=1)
        texts = torch.cat([IDS[index[:, 0], :cut], tokens], dim=1)
        expected = whole(model, texts)
        close(advance(model, texts[:, :cut])[0], expected[:, cut - 1])
        family, memory = read(model, IDS[:, :cut])
        picked = family.rows(memory, index[:, 0])
        for place in range(2):
            close(advance(model, tokens[:, place : place + 1], picked)[0], expected[:, cut + place])

    def test_copies_do_not_leak(self, model: PreTrainedModel) -> None:
        """Reading on from a copy, or adding to it, changes neither the original memory nor another copy; and vice versa."""
        expected = whole(model, IDS)[:, -1]
        family, memory = read(model)
        copy, other, last = (family.rows(memory, EVERYONE) for _ in range(3))
        before = held(memory)
        assert not changed(before, held(copy))
        add_everywhere(family, copy)
        advance(model, IDS[:, CUT:], copy)
        assert changed(before, held(copy))
        assert not changed(before, held(memory)) | changed(before, held(other))
        close(advance(model, IDS[:, CUT:], other)[0], expected)
        assert not changed(before, held(memory))
        close(advance(model, IDS[:, CUT:], memory)[0], expected)
        add_everywhere(family, memory)
        assert not changed(before, held(last))

    @pytest.mark.parametrize("name", UNKNOWN)
    def test_an_unknown_memory_is_one_line(self, name: str) -> None:
        """A model that returns no memory, or one of an unknown kind, is refused by name."""
        made = tiny(name)
        with pytest.raises(UserError, match=rf"^{type(made).__name__}: no known kind of memory; add its family to \S+$"):
            advance(made, IDS)


class TestAdding:
    """Adding to the recurrent state."""

    def test_adding_nothing_changes_nothing(self, model: PreTrainedModel) -> None:
        """Zeros added to every part of every layer leave the logits that follow exactly as they are."""
        family, memory = read(model)
        expected = advance(model, IDS[:, CUT:], family.rows(memory, EVERYONE))[0]
        add_everywhere(family, memory, times=0.0)
        assert torch.equal(advance(model, IDS[:, CUT:], memory)[0], expected)

    def test_every_part_of_every_layer_matters(self, stateful: PreTrainedModel) -> None:
        """Adding to any single part of any layer changes what every row predicts next."""
        family, memory = read(stateful)
        plain = advance(stateful, IDS[:, CUT : CUT + 1], family.rows(memory, EVERYONE))[0]
        for layer, parts in enumerate(parts_of(family, memory)):
            for name, change in noise(parts).items():
                copy = family.rows(memory, EVERYONE)
                family.add(copy, layer, EVERYONE, {name: change})
                pushed = advance(stateful, IDS[:, CUT : CUT + 1], copy)[0]
                assert ((pushed - plain).abs().amax(1) > 1e-3).all(), (layer, name)

    @given(st.integers(0, LAYERS - 1), SOME_ROWS, st.sets(st.integers(0, 3)), st.integers(0, 99))
    @example(2, torch.tensor([2, 0]), {2}, 0)  # RWKV's value alone
    @example(0, torch.tensor([1]), {3}, 0)  # its weight alone
    @settings(max_examples=8)
    def test_only_what_is_named_changes(self, stateful: PreTrainedModel, layer: int, where: Tensor, names: set[int], seed: int) -> None:
        """Adding changes only the named parts of the named rows of the layer, by what is added; subtracting it restores them."""
        family, memory = read(stateful)
        before = parts_of(family, memory)
        change = {name: some for place, (name, some) in enumerate(noise(before[layer], len(where), seed).items()) if place in names}
        family.add(memory, layer, where, change)
        after = parts_of(family, memory)
        for name, some in change.items():
            close(after[layer][name][where], before[layer][name][where] + some)
            after[layer][name][where] = before[layer][name][where]
        assert not changed(held(before), held(after))
        family.add(memory, layer, where, {name: -some for name, some in change.items()})
        for old, new in zip(before, parts_of(family, memory), strict=True):
            close(new, old)

    def test_rows_beside_say_the_same(self, stateful: PreTrainedModel) -> None:
        """Adding to some rows leaves the predictions of the others unchanged, also those of another copy of the same row.

        To the bit where a row's arithmetic is the same whatever its company; experts read together the rows that chose them, so there
        another row's choice is another shape of matrix, and with it another order of sums.
        """
        family, memory = read(stateful)
        index = torch.tensor([0, 0, 1, 2])
        plain = advance(stateful, IDS[index, CUT:], family.rows(memory, index))[0]
        copy = family.rows(memory, index)
        add_everywhere(family, copy, where=torch.tensor([1, 2]))
        pushed = advance(stateful, IDS[index, CUT:], copy)[0]
        (close if mixes(stateful) else exactly)(pushed[[0, 3]], plain[[0, 3]])
        assert ((pushed - plain)[[1, 2]].abs().amax(1) > 1e-3).all()

    @pytest.mark.parametrize("name", ["llama", *HYBRIDS])
    def test_keys_and_values_stay(self, name: str) -> None:
        """Adding never changes attention's keys and values by a bit, and changes nothing in layers without a state."""
        family, memory = read(tiny(name))
        before = held(memory)
        attention = {path for path in before if path.endswith((".keys", ".values")) and before[path] is not None}
        assert attention
        for layer in range(LAYERS):
            family.add(memory, layer, EVERYONE, {"keys": torch.ones(1), "values": torch.ones(1), **noise(family.parts(memory, layer))})
        stirred = changed(before, held(memory))
        assert not stirred & attention
        assert len(stirred) == sum(len(parts) for parts in parts_of(family, memory))


Shapes = dict[str, tuple[int, ...]]
MAMBA: Shapes = {"conv": (ROWS, 32, 4), "ssm": (ROWS, 32, 6)}
SHAPES: dict[str, list[Shapes]] = {
    "mamba": [MAMBA] * LAYERS,
    "mamba2": [{"conv": (ROWS, 56, 4), "ssm": (ROWS, 4, 8, 6)}] * LAYERS,  # the SSM's heads, their width, their state
    "falcon_mamba": [MAMBA] * LAYERS,
    "rwkv": [dict.fromkeys(("feed_forward", "attention", "value", "weight"), (ROWS, WIDTH))] * LAYERS,
    "llama": [{}] * LAYERS,
    "jamba": [MAMBA, {}, MAMBA],
    "falcon_h1": [{"conv": (ROWS, 44, 4), "ssm": (ROWS, 4, 8, 6)}] * LAYERS,
    "lfm2": [{"conv": (ROWS, WIDTH, 3)}, {}, {"conv": (ROWS, WIDTH, 3)}],
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_parts_of_each_family(name: str) -> None:
    """Every layer has the parts that its family has, one row for each that was read, and a picked row brings all of them along."""
    family, memory = read(tiny(name))
    assert [{part: tuple(some.shape) for part, some in parts.items()} for parts in parts_of(family, memory)] == SHAPES[name]
    index = torch.tensor([2, 0, 2, 1])
    for parts, picked in zip(parts_of(family, memory), parts_of(family, family.rows(memory, index)), strict=True):
        assert not changed({part: some[index] for part, some in parts.items()}, dict(picked))


class TestRwkv:
    """RWKV's mean of values, which the library keeps as a numerator and a denominator times e^-scale."""

    def test_parts_by_hand(self) -> None:
        """Value is the mean of all values by weights e^(key − age · decay), weight the log of their sum; the others are normed inputs."""
        rwkv = tiny("rwkv")
        family, memory = read(rwkv)
        assert [tuple(tensor.shape) for tensor in memory] == [(ROWS, WIDTH, LAYERS)] * 5
        for layer, parts in enumerate(parts_of(family, memory)):
            block: Any = rwkv.get_submodule(f"rwkv.blocks.{layer}")
            names = [f"blocks.{layer}.{module}" for module in ("ln1", "ln2", "attention.key", "attention.value")]
            first, second, key, value = capture(rwkv, names, IDS[:, :CUT]).values()
            age = torch.arange(CUT - 1, -1, -1)[:, None]
            weight = key - age * block.attention.time_decay.exp()
            expected = {"value": (weight.softmax(1) * value).sum(1), "weight": weight.logsumexp(1)}
            close(parts, {"feed_forward": second[:, -1], "attention": first[:, -1], **expected})

    def test_the_scale_is_free(self) -> None:
        """The same state stored with another scale has the same parts, and adding to it has the same effect."""
        rwkv = tiny("rwkv")
        family, memory = read(rwkv)
        shift = torch.randn(ROWS, WIDTH, LAYERS, generator=torch.Generator().manual_seed(1))
        other = family.rows(memory, EVERYONE)
        other[2:] = memory[2] * shift.exp(), memory[3] * shift.exp(), memory[4] - shift
        close(parts_of(family, other), parts_of(family, memory))
        for some in (memory, other):
            add_everywhere(family, some)
        close(parts_of(family, other), parts_of(family, memory))
        close(*(advance(rwkv, IDS[:, CUT:], some)[0] for some in (other, memory)))
