"""Random numbers with an address: a draw depends on the seed and on where it is used, never on global state or order of arrival."""

import hashlib
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from builders.arrays import Floats

Uints = npt.NDArray[np.uint64]
Number = TypeVar("Number", bound=np.integer)


def seed_of(run_seed: int, *address: str | int) -> int:
    """Return the 63-bit seed of an address within a run, such as ("contexts", sae).

    It is taken from the SHA-256 of *run_seed* and the parts of *address*, joined by the byte 0x1F.
    """
    name = "\x1f".join(str(part) for part in (run_seed, *address))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _mix(state: Uints) -> Uints:
    # splitmix64's finaliser (Steele, Lea & Flood 2014): every input bit reaches every output bit.
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniforms(seed: int, *parts: npt.ArrayLike) -> Floats:
    """Return one number in [0, 1) for each element of the integer arrays *parts*, which are broadcast; equal parts give equal numbers."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(np.uint64(seed) + golden))
        for part in parts:
            state = _mix((state ^ np.asarray(part).astype(np.uint64)) + golden)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def drawn(numbers: npt.NDArray[Number], most: int | None, seed: int) -> npt.NDArray[Number]:
    """Return at most *most* of *numbers* (None: all), drawn at random, in their original order.

    Whether a number is drawn depends on its own value and on *seed*, so a larger draw contains every smaller one.
    """
    if most is None or len(numbers) <= most:
        return numbers
    return numbers[np.sort(np.argsort(uniforms(seed, numbers), kind="stable")[:most])]
