"""Sections about behaviours and how subjects are steered towards them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipelines.params.base import Count, Id, Section, Whole

Finite = Annotated[float, Field(allow_inf_nan=False)]


def once(values: list[Any]) -> list[Any]:
    """Return *values*; raise ValueError where one of them is there twice."""
    if len(set(values)) != len(values):
        raise ValueError("the same thing twice; name each once")
    return values


class TownsfolkBehaviour(Section):
    """A disposition of generated people; *describes* is what a judge is told of it."""

    source: Literal["townsfolk"]
    disposition: Literal["bold", "generous", "patient"]
    describes: str


class FilesBehaviour(Section):
    """Questions with two options in the published JSON format: for vectors (*generate*), for tests, and open ones without options."""

    source: Literal["files"]
    generate: str
    test: str
    open: str | None = None
    describes: str


BehaviourSpec = Annotated[TownsfolkBehaviour | FilesBehaviour, Field(discriminator="source")]


class OpenEnded(Section):
    """What a steered subject writes after open questions, by site at the layer that was chosen, and which of `judges` rates it.

    With *following*, vectors are added at all that is written, and not only at the last tokens of the prompt.
    """

    questions: Whole = 10
    tokens: Count = 24
    multipliers: list[Finite] = Field(default=[-3.0, 0.0, 3.0], min_length=1)
    following: bool = True
    judge: Id | None = None

    _once = field_validator("multipliers")(once)


class Steering(Section):
    """How vectors are made and added: from the answers to *pairs* questions, tried on *questions*, at the *last* tokens of a prompt.

    *opening* stands between a subject's template and the letter of an answer. *batch* rows are read at a time.
    """

    methods: list[Literal["difference", "lda"]] = Field(default=["difference"], min_length=1)
    sites: list[Literal["residual", "state", "both"]] = Field(default=["residual", "state", "both"], min_length=1)
    multipliers: list[Finite] = Field(default=[-3.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 3.0], min_length=1)
    answers: Literal["letters", "numbers"] = "letters"
    opening: str = " ("
    last: Count = 1
    pairs: Count = 200
    questions: Annotated[int, Field(ge=4)] = 100
    batch: Count = 256
    open: OpenEnded = OpenEnded()

    _once = field_validator("methods", "sites", "multipliers")(once)
