"""Randomness with an address: a draw depends on where it is used, never on global state or arrival order."""

import hashlib
from typing import TypeVar

import numpy as np
import numpy.typing as npt

UINT64 = npt.NDArray[np.uint64]
Number = TypeVar("Number", bound=np.integer)


def seed_of(run_seed: int, *address: str | int) -> int:
    """Return the 63-bit seed that belongs to *address*, such as (run seed, "contexts", sae)."""
    name = "\x1f".join(str(part) for part in (run_seed, *address))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _mix(state: UINT64) -> UINT64:
    # splitmix64's finaliser (Steele, Lea & Flood 2014): every input bit reaches every output bit.
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniforms(seed: int, *parts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return one number in [0, 1) for each element of the broadcast integer *parts*, a pure function of them."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(np.uint64(seed) + golden))
        for part in parts:
            state = _mix((state ^ np.asarray(part).astype(np.uint64)) + golden)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def drawn(numbers: npt.NDArray[Number], most: int | None, seed: int) -> npt.NDArray[Number]:
    """Return at most *most* of *numbers*, drawn by address and in their order; a larger draw holds every smaller one."""
    if most is None or len(numbers) <= most:
        return numbers
    return numbers[np.sort(np.argsort(uniforms(seed, numbers), kind="stable")[:most])]
