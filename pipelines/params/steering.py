"""Sections about behaviours and how subjects are steered towards them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipelines.params.base import Count, Id, Section, Whole

Site = Literal["residual", "state", "both", "parts"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def once(values: list[Any]) -> list[Any]:
    """Return *values*; raise ValueError if one of them occurs twice."""
    if len(set(values)) != len(values):
        raise ValueError("names one thing twice; name each once")
    return values


class TownsfolkBehaviourParams(Section):
    """A disposition of generated people; *describes* tells a judge what it is."""

    source: Literal["townsfolk"]
    disposition: Literal["bold", "generous", "patient"]
    describes: str


class FilesBehaviourParams(Section):
    """Files of questions in the published JSON format: pairs for vectors (*generate*) and for tests (*test*), and *open* questions.

    *describes* tells a judge what the behaviour is.
    """

    source: Literal["files"]
    generate: str
    test: str
    open: str | None = None
    describes: str


BehaviourParams = Annotated[TownsfolkBehaviourParams | FilesBehaviourParams, Field(discriminator="source")]


class OpenEndedParams(Section):
    """How many *tokens* a steered subject writes after how many open *questions*, with vectors at the chosen layer times *multipliers*.

    With *following*, vectors are also added at every token written, and not only at the last tokens of the prompt. *judge* rates the texts.
    """

    questions: Whole = 10
    tokens: Count = 24
    multipliers: list[Finite] = Field(default=[-3.0, 0.0, 3.0], min_length=1)
    following: bool = True
    judge: Id | None = None

    _once = field_validator("multipliers")(once)


class NullVectorsParams(Section):
    """How many vectors that mean nothing go through the same procedure, at *sites*: by *permuted* labels, and *random* ones as long."""

    permuted: Whole = 20
    random: Whole = 8
    sites: list[Literal["residual", "state", "both"]] = Field(default=["residual", "state", "both"])

    _once = field_validator("sites")(once)


class SteeringParams(Section):
    """How vectors are made from the answers to *pairs* questions, and tried on *questions* other ones; see docs/science.md#steering.

    Vectors are added at every *every*-th layer, at the *last* tokens of a prompt. *phases* say when the state is changed. *orders* asks
    questions from files in both orders of their options, or as they are given. With *answers* numbers, test questions name their options
    (1) and (2). *opening* stands between a subject's template and the letter of an answer. A forward pass reads *batch* rows.
    """

    methods: list[Literal["difference", "lda"]] = Field(default=["difference"], min_length=1)
    sites: list[Site] = Field(default=["residual", "state", "both"], min_length=1)
    phases: list[Literal["late", "aligned"]] = Field(default=["late", "aligned"], min_length=1)
    every: Count = 1
    multipliers: list[Finite] = Field(default=[-3.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 3.0], min_length=1)
    nulls: NullVectorsParams = NullVectorsParams()
    answers: Literal["letters", "numbers"] = "letters"
    orders: Literal["both", "given"] = "both"
    opening: str = " ("
    last: Count = 1
    pairs: Count = 200
    questions: Annotated[int, Field(ge=4)] = 100
    batch: Count = 256
    open: OpenEndedParams = OpenEndedParams()

    _once = field_validator("methods", "sites", "phases", "multipliers")(once)

    @field_validator("multipliers")
    @classmethod
    def _some(cls, values: list[float]) -> list[float]:
        if not any(values):
            raise ValueError("adds nothing anywhere; give a multiplier other than 0")
        return values
