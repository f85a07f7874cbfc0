"""The Jacobian lens through the state: how a vector acts on the last layer's vector of the *next* token."""

from __future__ import annotations

from torch import Tensor

from builders.lenses.accumulator import Accumulator
from builders.lenses.jacobian import Reach

# J_ℓ is the mean over t of ∂h_L(t + 1) / ∂h_ℓ(t), with the next token held fixed. A block of a recurrent model hands a vector on to the
# next position through its memory only: the recurrent state, and the convolution or token shift. A transformer's block does so through
# keys and values, so the two compare. The last layer's vector goes into no memory: there the Jacobian is zero.
STATE = Reach("jacobian-state", 1)


def through_state(at: Accumulator, next_: Accumulator) -> Tensor:
    """Return, for each layer [layers], the Frobenius norm of the mean Jacobian through the state over that of the one *at* the position.

    It says how strongly a layer's vector acts on the next position's last vector, in units of how strongly it acts on its own. Both sums
    must be of the same positions. The means carry noise, which makes both norms larger: see `error` of LENS_CONVERGENCE.
    """
    own, following = (sums.mean().square().sum((1, 2)) for sums in (at, next_))
    return (following / own).sqrt()
