"""What lenses read in short texts: known answers of a model that echoes, and agreement with the model at the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from builders.errors import UserError
from builders.lenses.lens import Lens, LogitLens
from builders.lenses.trajectories import LONGEST, PROMPTS, TOP, TRAJECTORIES, trajectory_rows
from builders.subjects.anatomy import anatomy_of
from builders.text.vocabulary import token_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from torch import Tensor

TEXT = "the boats past the mill"
ONE = {"one": TEXT}


@dataclass(frozen=True)
class Constant:
    """A lens that sees the same vector everywhere, except at the last layer."""

    vector: Tensor
    last: int
    name: str = "constant"

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return the vector for each of *hidden* [n, d_model]."""
        return hidden if layer == self.last else self.vector.expand_as(hidden)


@dataclass(frozen=True)
class Opened:
    """A checkpoint with its tokenizer."""

    model: Any
    tokenizer: Any

    @staticmethod
    def of(folder: Path) -> Opened:
        """Open the checkpoint of *folder*."""
        return Opened(LlamaForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))

    @property
    def pieces(self) -> list[bytes]:
        """The bytes of each token id."""
        return token_bytes(self.tokenizer, self.model.config.vocab_size)

    def read(self, prompts: dict[str, str], *lenses: Lens, bos: str = "row") -> pa.Table:
        """Return what lenses, or else the logit lens, read in *prompts*."""
        used = lenses or (LogitLens(),)
        return trajectory_rows("s", self.model, anatomy_of(self.model), used, prompts, self.tokenizer, self.pieces, bos, "cpu")

    def frame(self, *lenses: Lens, bos: str = "row") -> pd.DataFrame:
        """Return the same of TEXT as a frame."""
        frame: pd.DataFrame = self.read(ONE, *lenses, bos=bos).to_pandas()
        return frame


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Opened:
    """Return a random Llama of three blocks."""
    return Opened.of(tiny_checkpoint)


@pytest.fixture(scope="module")
def echoing(echoing_checkpoint: Path) -> Opened:
    """Return a Llama of one block that expects whatever it has read."""
    return Opened.of(echoing_checkpoint)


def test_every_layer_and_position_has_five_tokens(tiny: Opened) -> None:
    """Rows are those of the table: two prompts, all layers from what enters the first block to the last, five ranks each."""
    rows = tiny.read({"one": TEXT, "two": "boats"})
    TRAJECTORIES.validate(rows)
    frame = rows.to_pandas()
    tokens = {name: len(tiny.tokenizer(text, add_special_tokens=False)["input_ids"]) for name, text in (("one", TEXT), ("two", "boats"))}

    assert frame.groupby("prompt", observed=True).size().to_dict() == {name: n * 4 * TOP for name, n in tokens.items()}
    assert sorted(frame["depth"].unique()) == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_likelier_tokens_come_first(tiny: Opened) -> None:
    """Probabilities fall with rank, and no token stands twice."""
    cells = tiny.frame().sort_values("rank").groupby(["position", "layer"])

    assert cells["probability"].apply(lambda some: some.is_monotonic_decreasing).all()
    assert (cells["token"].nunique() == TOP).all()


def test_the_last_layer_is_the_model(tiny: Opened) -> None:
    """At the last layer every lens gives the model's own distribution, whose likeliest token is `final`."""
    frame = tiny.frame(LogitLens(), Constant(torch.ones(32), last=3))
    ids = torch.tensor([[tiny.tokenizer.bos_token_id, *tiny.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        own = tiny.model(ids).logits[0].softmax(-1).max(-1)

    last = frame[(frame["layer"] == 3) & (frame["rank"] == 1)]
    assert len(last) == 2 * (ids.shape[1] - 1)
    assert last["probability"].tolist() == pytest.approx(own.values[last["position"].tolist()].tolist(), rel=1e-5)
    assert last["token"].tolist() == last["final"].tolist() == own.indices[last["position"].tolist()].tolist()
    assert last["final_probability"].tolist() == last["probability"].tolist()


def test_a_lens_carries_vectors(tiny: Opened) -> None:
    """What a lens makes of a vector is what is read: a lens that sees one vector only has one answer before the last layer."""
    frame = tiny.frame(Constant(torch.linspace(-1, 1, 32), last=3))
    early = frame[frame["layer"] < 3]

    assert (early.groupby("rank")["token"].nunique() == 1).all()
    assert frame[frame["layer"] == 3].groupby("rank")["token"].nunique().max() > 1


def test_what_has_been_read_stands_beside(echoing: Opened) -> None:
    """The texts of `read` join to the prompt, and before any block this model's embedding says the token that was read."""
    frame = echoing.frame()
    first = frame[(frame["layer"] == 0) & (frame["rank"] == 1)]

    assert "".join(first["read"]) == TEXT
    assert first["piece"].tolist() == first["read"].tolist()


def test_probability_of_the_final_token_is_told_at_all_ranks(echoing: Opened) -> None:
    """Where `final` is among the five, its own probability stands in `final_probability` of all five rows."""
    frame = echoing.frame()
    named = frame[frame["token"] == frame["final"]]

    assert named["final_probability"].tolist() == named["probability"].tolist()
    assert (frame.groupby(["position", "layer"])["final_probability"].nunique() == 1).all()


def test_positions_count_bos_and_leave_it_out(tiny: Opened) -> None:
    """With BOS the text begins at position 1, without it at 0; BOS itself has no row."""
    with_bos, without = tiny.frame(), tiny.frame(bos="none")

    assert with_bos["position"].min() == 1
    assert without["position"].min() == 0
    assert (with_bos["position"].unique() - 1).tolist() == without["position"].unique().tolist()


@pytest.mark.parametrize("text", ["", "a " * 200])
def test_a_prompt_has_a_readable_length(tiny: Opened, text: str) -> None:
    """A prompt without tokens, or with too many for a grid, is refused with its length and the limit."""
    with pytest.raises(UserError, match=rf"lenses\.prompts\.mine: it has \d+ tokens of s; give it 1 to {LONGEST}"):
        tiny.read({"mine": text})


def test_the_fixed_prompts_can_be_read(tiny: Opened) -> None:
    """The prompts of every release are short enough even for a tokenizer that knows few words."""
    assert set(tiny.read(PROMPTS)["prompt"].to_pylist()) == set(PROMPTS)
