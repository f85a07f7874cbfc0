"""Going on in the middle of a model: blocks whose outputs are known already are not run again.

Rows that differ only from some block on share what comes before it. Their common outputs are recorded once; then the blocks up to there
stand aside, and the last of them hands on what was recorded. Only for a last token: blocks that do not run leave no memory of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from builders.subjects.hookpoints import blocks_of, module_at
from builders.subjects.states import Memory, advance


@torch.no_grad()
def recorded(model: nn.Module, ids: Tensor, memory: Memory) -> tuple[Tensor, list[Tensor] | None]:
    """Read one token a row [rows, 1] on from *memory*, which changes; return the logits after it and the output of each block.

    Outputs are None where blocks hand on more than a tensor, and it is not known what: then no block can stand aside.
    """
    given: list[Any] = []
    with ExitStack() as hooks:
        for name in blocks_of(model):
            hooks.callback(module_at(model, name).register_forward_hook(lambda _, __, output: given.append(output)).remove)
        logits, _ = advance(model, ids, memory)
    flows = [output[0] if _is_rwkv(output) else output for output in given]
    return logits, flows if all(isinstance(flow, Tensor) for flow in flows) else None


def _is_rwkv(output: Any) -> bool:
    """Return whether *output* is that of RWKV's blocks: the stream, the state, and no attention."""
    return isinstance(output, tuple) and len(output) == 3 and isinstance(output[1], list) and output[2] is None


@contextmanager
def aside(model: nn.Module, blocks: Sequence[str], flow: Tensor) -> Iterator[None]:
    """Within this context the *blocks*, the first of the model, do not run; the last of them hands on *flow* [rows, 1, width]."""

    def stand_in(*_: Any, **given: Any) -> Any:
        return (flow, given["state"], None) if "state" in given else flow

    modules = [module_at(model, name) for name in blocks]
    try:
        for module in modules:
            module.forward = stand_in
        yield
    finally:
        for module in modules:
            del module.forward
