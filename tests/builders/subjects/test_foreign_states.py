"""Models with code of their own whose `state` is not RWKV's list of five tensors, such as RWKV-5 and 6: they are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from own_code import make_recurrent, modules_in

from builders.errors import UserError
from builders.steering.steerer import Steerer
from builders.subjects.checkpoints import config_of, is_recurrent, load
from builders.subjects.places import Source
from builders.subjects.states import advance, family_of

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

IDS = torch.tensor([[3, 1, 4, 1], [2, 7, 1, 8]])
KINDS = ("three", "tuple", "object", "none")  # a list of three tensors, a tuple of five, an object, and nothing
REFUSED = r"^DeltaForCausalLM: no known kind of memory; add its family to \S+$"


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """Return a random model whose code comes with it, and whose `state` is of one of KINDS."""
    modules_in(tmp_path / "modules", monkeypatch)
    folder = make_recurrent(tmp_path / "delta", tiny_checkpoint, request.param)
    source = Source(path=str(folder), trust_remote_code=True)
    assert is_recurrent(config_of(source, folder))
    return load(source, folder, "float32", "cpu")


def test_a_state_of_another_kind_is_one_line(model: PreTrainedModel) -> None:
    """The model looks like RWKV by the name of its memory, and is refused by its class once the memory is seen."""
    assert family_of(model).argument == "state"
    for ids in (IDS, IDS[:, :1]):
        with pytest.raises(UserError, match=REFUSED):
            advance(model, ids)


def test_steering_it_is_one_line(model: PreTrainedModel) -> None:
    """A steerer of such a model says the same before it changes anything."""
    with pytest.raises(UserError, match=REFUSED):
        Steerer(model, {}, batch=4)._prefix(IDS)
