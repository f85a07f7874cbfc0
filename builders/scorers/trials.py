"""What a judge is shown: windows, perhaps with marked tokens, and the truth it does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Trials:
    """One latent's judged examples: their numbers, truth and reasons for which one cannot be judged [n].

    *tokens* [n, window] are token ids; *marks* [n, window] are the tokens in question, or None where the question
    is about the whole window.
    """

    latent: int
    number: npt.NDArray[np.int64]
    truth: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]
    marks: npt.NDArray[np.bool_] | None
    status: list[str]


class Judge(Protocol):
    """Decides from an explanation's words alone."""

    def __call__(self, text: str, trials: Trials) -> npt.NDArray[np.float64]:
        """Return the probability that each example fits *text* [n]; NaN where no decision could be made."""
