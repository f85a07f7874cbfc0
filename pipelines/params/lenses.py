"""The section about lenses: what the early layers of subjects say about the next token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipelines.params.base import Count, Id, Section, Whole
from pipelines.params.steering import once

LensKind = Literal["logit", "tuned", "jacobian", "jacobian-later", "jacobian-state"]


class TunedLensParams(Section):
    """How tuned lenses are trained: *steps* of the *optimiser*, each on *rows_per_step* rows, *batch_rows* in a forward pass.

    Without *lr* the learning rate is that of the tuned-lens package. Every *check_every* steps *check_rows* rows are read that the lens
    does not learn from; after *patience* checks without gain the training ends.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    steps: Count = 250
    rows_per_step: Count = 128
    batch_rows: Count = 8
    check_every: Count = 10
    check_rows: Annotated[int, Field(ge=2)] = 32
    patience: Count = 5


class JacobianLensParams(Section):
    """How Jacobians are averaged: over *positions* of each of *rows* rows, *together* of them in a backward pass.

    Rows are cut after *length* tokens, and their first *skip* positions are left out. The mean is looked at every *every* positions, and is
    settled once it moves by less than *tolerance*. A forward pass reads `lenses.batch_rows` rows.
    """

    rows: Count = 256
    positions: Count = 4
    together: Count = 1
    length: Count = 128
    skip: Whole = 16
    every: Count = 128
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2e-3


class LensesParams(Section):
    """Which *kinds* of lenses read every subject (none by default); see docs/science.md#lenses.

    They are measured on *rows* held-out rows, and the lenses of a layer on the vectors of other layers on the first *transfer_rows* of
    these. *batch_rows* rows are in a forward pass. *prompts* (text by id) are read layer by layer, beside those built in.
    """

    kinds: list[LensKind] = Field(default=[])
    rows: Count = 64
    transfer_rows: Whole = 16
    batch_rows: Count = 8
    tuned: TunedLensParams = TunedLensParams()
    jacobian: JacobianLensParams = JacobianLensParams()
    prompts: dict[Id, str] = Field(default_factory=dict)

    _once = field_validator("kinds")(once)
