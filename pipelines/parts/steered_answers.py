"""Test questions of a behaviour, put to a steered subject: letters' probabilities, and how they move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from builders.arrays import Floats
from builders.errors import UserError
from builders.steering.asking import Prompt
from builders.steering.behaviours import Pair
from builders.steering.effects import Setting, answer_frame, metrics
from builders.steering.orders import numbers_of
from builders.steering.ranges import Sheet
from builders.steering.steerer import Steerer
from builders.steering.ways import ALIGNED, BOTH, LATE, LDA, PARTS, RESIDUAL, STATE, Push
from builders.steering.weights import balanced, halves, kinds_of
from builders.subjects.states import Family
from pipelines.params import SteeringParams

if TYPE_CHECKING:
    import pandas as pd

STATELESS, NO_LDA = "no recurrent state to be steered", "lda makes vectors for the residual stream only"
NO_PHASE = "nobody knows how to change this architecture's state in phase"


def unread(prompt: Prompt, limit: int | None, last: int) -> str | None:
    """Return why a prompt cannot be put to a subject that reads *limit* tokens, with vectors added at the *last* ones; None if it can."""
    if limit is not None and len(prompt.ids) >= limit:
        return f"longer than the {limit} tokens that the subject reads"
    return f"no longer than the {last} tokens at which vectors are added" if len(prompt.ids) <= last else None


@dataclass(frozen=True)
class Tests:
    """The test questions as *prompts*, with why each cannot be read (None: it can), and their *sheet*."""

    prompts: list[Prompt]
    reasons: list[str | None]
    sheet: Sheet

    @property
    def whole(self) -> list[int]:
        """The places of prompts whose question can be read in all its orders."""
        lost = {question for question, reason in zip(self.sheet.questions, self.reasons, strict=True) if reason}
        return [place for place, question in enumerate(self.sheet.questions) if question not in lost]

    def logprobs(self, steerer: Steerer, pushes: Sequence[Push | None]) -> Floats:
        """Return log-probabilities of both letters [prompts, pushes, 2]; nan for a prompt that cannot be read."""
        found = np.full((len(self.prompts), len(pushes), 2), np.nan)
        readable = [place for place, reason in enumerate(self.reasons) if reason is None]
        found[readable] = steerer.answers([self.prompts[place] for place in readable], pushes)
        return found

    def frame(self, setting: Setting, pushes: Sequence[Push], logprobs: Floats) -> pd.DataFrame:
        """Return the STEERING_ANSWERS rows of no push and of all *pushes* as a frame."""
        numbers, validation = self.sheet.questions, self.sheet.questions[self.sheet.validation]
        frame = answer_frame(setting, [None, *pushes], numbers.tolist(), logprobs, set(validation.tolist()), self.sheet.letters)
        status = [reason or status for reason, status in zip(self.reasons * (1 + len(pushes)), frame["status"], strict=True)]
        return frame.assign(status=status)


def tests_of(pairs: Sequence[Pair], prompts: list[Prompt], limit: int | None, last: int, seed: int) -> Tests:
    """Return test questions, in halves that *seed* draws."""
    letters = [(pair.matching, pair.other) for pair in pairs]
    questions = np.array(numbers_of(pairs))
    kinds = dict(zip(questions.tolist(), kinds_of(questions, letters), strict=True))
    validation, _ = halves([kinds[question] for question in range(len(kinds))], seed)
    sheet = Sheet(questions, np.isin(questions, validation), letters)
    if not all(balanced(sheet.side(half)).any() for half in (sheet.validation, ~sheet.validation)):
        raise UserError(
            f"{pairs[0].place} and its like: half of these test questions match with one letter only, so that its letter looks like the "
            "behaviour; ask in both orders of the options (`steering.orders: both`), or give more questions that match with either letter"
        )
    return Tests(prompts, [unread(prompt, limit, last) for prompt in prompts], sheet)


def matching_effects(plain: Floats, steered: Floats) -> Floats:
    """Return how much more the answers match [prompts, pushes] than the *plain* ones; both are log-probabilities [prompts, pushes, 2]."""
    found: Floats = metrics(steered)[0] - metrics(plain)[0]
    return found


def ways(settings: SteeringParams, parts: Sequence[Sequence[str]], family: Family) -> tuple[list[Push], list[tuple[Push, str]]]:
    """Return all ways to steer, and the skipped ways with their reasons; *parts* are those of each layer's recurrent state."""
    multipliers = [multiplier for multiplier in sorted(settings.multipliers) if multiplier]
    alone = sorted({name for some in parts for name in some}) if PARTS in settings.sites else []
    sites = [*(site for site in settings.sites if site != PARTS), *alone]
    allowed, skipped = [], []
    layers = range(settings.every - 1, len(parts), settings.every)
    if not layers:
        raise UserError(f"steering.every: {settings.every} is more than the {len(parts)} layers of the subject; give a smaller number")
    for method, site, phase, layer, multiplier in product(settings.methods, sites, settings.phases, layers, multipliers):
        if phase != settings.phases[0] and (site == RESIDUAL or (site in alone and site not in family.twofold)):
            continue  # the phase makes no difference
        push = Push(method, site, layer, multiplier, LATE if site == RESIDUAL else phase)
        reason = _reason(push, parts[layer], family)
        if reason is None:
            allowed.append(push)
        elif site not in alone:
            skipped.append((push, reason))
    return allowed, skipped


def _reason(push: Push, parts: Sequence[str], family: Family) -> str | None:
    """Return why *push* cannot be done at a layer whose state has *parts*; None if it can."""
    if push.site == RESIDUAL:
        return None
    if not parts or push.site not in (STATE, BOTH, *parts):
        return STATELESS
    if push.method == LDA:
        return NO_LDA
    return NO_PHASE if push.phase == ALIGNED and family.aligned is None else None
