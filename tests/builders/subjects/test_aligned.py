"""States changed in phase. Formulas of the layers, written here again, and hooks at other places are the reference."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from recurrent import HYBRIDS, LAYERS, RECURRENT, tiny
from torch import Tensor, nn

from builders.subjects.aligned import mamba_step
from builders.subjects.hookpoints import blocks_of, module_at
from builders.subjects.states import Parts, advance, family_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

pytestmark = pytest.mark.numeric
PREFIX = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10], [3, 9, 4, 1]])
LAST = torch.tensor([[11], [12], [13]])
ROWS = torch.tensor([0, 2])  # the middle row is left alone
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


def change(model: PreTrainedModel, layer: int, *names: str) -> Parts:
    """Return random changes of parts of a layer's state, two rows of them."""
    draw = torch.Generator().manual_seed(layer)
    held = family_of(model).parts(advance(model, PREFIX)[1], layer)
    return {name: torch.randn(2, *part.shape[1:], generator=draw) for name, part in held.items() if not names or name in names}


def read(model: PreTrainedModel, layer: int, some: Parts, *, aligned: bool = True) -> tuple[Tensor, Parts]:
    """Return the logits after the last token, and the layer's state, with *some* added in phase or late."""
    family, memory = family_of(model), advance(model, PREFIX)[1]
    if not aligned:
        family.add(memory, layer, ROWS, some)
        logits = advance(model, LAST, memory)[0]
    else:
        assert family.aligned is not None
        with family.aligned(memory, {layer: (ROWS, some)}):
            logits = advance(model, LAST, memory)[0]
    return logits, {name: part.clone() for name, part in family.parts(memory, layer).items()}


def hooked(module: nn.Module, edit: Callable[[Tensor], Tensor], model: PreTrainedModel) -> Tensor:
    """Return the logits after the last token, with *edit* on the output of *module* while it is read."""
    memory = advance(model, PREFIX)[1]
    handle = module.register_forward_hook(lambda _, __, output: edit(output))
    logits = advance(model, LAST, memory)[0]
    handle.remove()
    return logits


def seen(module: nn.Module, model: PreTrainedModel) -> Tensor:
    """Return what *module* puts out while the last token is read."""
    found: list[Tensor] = []
    hooked(module, lambda output: found.append(output) or output, model)  # type: ignore[func-returns-value]
    return found[0]


def decay(mixer: Any, model: PreTrainedModel) -> Tensor:
    """Return by what the last token multiplies the SSM of Mamba [rows, channels, states] or Mamba-2 [rows, heads, 1, 1]."""
    if hasattr(mixer, "x_proj"):
        step = nn.functional.softplus(mixer.dt_proj(seen(mixer.x_proj, model)[:, 0, : mixer.time_step_rank]))
        return torch.exp(-step[..., None] * mixer.A_log.exp())
    step = nn.functional.softplus(seen(mixer.in_proj, model)[:, 0, -mixer.num_heads :] + mixer.dt_bias)
    return torch.exp(-step * mixer.A_log.exp())[..., None, None]


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_the_ssm_changes_after_its_update(name: str, layer: int) -> None:
    """A change in phase acts as a late one does that the token's decay has first been taken out of."""
    model = tiny(name)
    mixer: Any = module_at(model, blocks_of(model)[layer]).mixer
    some = change(model, layer, "ssm")
    undone = {"ssm": some["ssm"] / decay(mixer, model)[ROWS]}
    logits, state = read(model, layer, some)
    expected, held = read(model, layer, undone, aligned=False)
    close(logits, expected)
    close(state, held)
    assert (logits - read(model, layer, some, aligned=False)[0])[ROWS].abs().max() > 1e-2


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_the_convolution_changes_at_the_token(name: str, layer: int) -> None:
    """The newest place of the change joins the token's own input to the convolution."""
    model = tiny(name)
    mixer: Any = module_at(model, blocks_of(model)[layer]).mixer
    some = change(model, layer, "conv")
    some["conv"][..., :-1] = 0  # as it is after one more token: what came before is the same
    low = 0 if name == "mamba" else mixer.intermediate_size

    def edit(output: Tensor) -> Tensor:
        output = output.clone()
        output[ROWS, 0, low : low + some["conv"].shape[1]] += some["conv"][..., -1]
        return output

    close(read(model, layer, some)[0], hooked(mixer.in_proj, edit, model))


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize(("part", "norm"), [("attention", "ln1"), ("feed_forward", "ln2")])
def test_token_shift_changes_the_input(part: str, norm: str, layer: int) -> None:
    """RWKV's last inputs change what goes into attention and feed-forward at the token itself."""
    model = tiny("rwkv")
    some = change(model, layer, part)
    module = module_at(model, blocks_of(model)[layer]).get_submodule(norm)
    expected = hooked(module, lambda output: output.index_add(0, ROWS, some[part][:, None]), model)
    close(read(model, layer, some)[0], expected)


@pytest.mark.parametrize("part", ["value", "weight"])
def test_the_mean_of_values_has_one_phase(part: str) -> None:
    """RWKV reads its mean of values before the token enters it, so late is in phase already."""
    model = tiny("rwkv")
    some = change(model, 1, part)
    torch.testing.assert_close(read(model, 1, some), read(model, 1, some, aligned=False), rtol=0, atol=0)
    assert family_of(model).twofold == {"attention", "feed_forward"}


@pytest.mark.parametrize("name", [*RECURRENT, *HYBRIDS[:2]])
def test_only_the_rows_and_the_layer_change(name: str) -> None:
    """What is added stays in the state of its rows and parts; the other row answers as if nothing had been added."""
    model = tiny(name)
    layer = next(layer for layer in range(LAYERS) if change(model, layer))
    some = change(model, layer)
    plain, before = read(model, layer, {})
    logits, after = read(model, layer, some)
    close(logits[1], plain[1])
    assert (logits[ROWS] - plain[ROWS]).abs().max() > 1e-3
    if "ssm" in some:
        torch.testing.assert_close(after["ssm"][1], before["ssm"][1], rtol=0, atol=0)
        alone = read(model, layer, {"ssm": some["ssm"]})[1]
        close(alone["ssm"][ROWS], before["ssm"][ROWS] + some["ssm"])


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_the_functions_are_given_back(name: str) -> None:
    """After the context, and after an error inside it, the model's module has its own functions again."""
    model = tiny(name)
    module = sys.modules[type(model).__module__]
    own = {key: getattr(module, key) for key in ("causal_conv1d_update", str(mamba_step(model)))}
    read(model, 0, change(model, 0))
    family, memory = family_of(model), advance(model, PREFIX)[1]
    assert family.aligned is not None
    with pytest.raises(KeyboardInterrupt), family.aligned(memory, {0: (ROWS, change(model, 0))}):
        raise KeyboardInterrupt
    assert {key: getattr(module, key) for key in own} == own


def test_unknown_steps_have_no_phase() -> None:
    """A transformer, and convolutions without an SSM, have no step that is known; nothing can be aligned there."""
    assert family_of(tiny("llama")).aligned is None
    assert family_of(tiny("lfm2")).aligned is None
