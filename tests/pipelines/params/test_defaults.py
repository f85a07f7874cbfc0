"""A default that a builder's settings repeat is that of params."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import pytest

from builders.engines.http import HttpSettings
from builders.engines.local import LocalSettings
from builders.engines.vllm import VllmSettings
from builders.explainers import chat, effects, lexical
from builders.lenses.jacobian import Sampling
from builders.lenses.recipe import Recipe
from builders.scorers.chat import Reading
from pipelines import params

if TYPE_CHECKING:
    from pydantic import BaseModel

PAIRS: list[tuple[type, type[BaseModel]]] = [
    (HttpSettings, params.OpenAiEngineParams),
    (VllmSettings, params.VllmEngineParams),
    (LocalSettings, params.TransformersEngineParams),
    (chat.Settings, params.ChatExplainerParams),
    (effects.Settings, params.InterventionExplainerParams),
    (lexical.Settings, params.LexicalExplainerParams),
    (Reading, params.ModelJudgeParams),
    (Recipe, params.TunedLensParams),
    (Sampling, params.JacobianLensParams),
]


def default_of(field: Any) -> Any:
    """Return the default of a dataclass field, however it is made, or MISSING."""
    return field.default if field.default_factory is MISSING else field.default_factory()


@pytest.mark.parametrize(("settings", "section"), PAIRS, ids=lambda kind: kind.__qualname__)
def test_a_repeated_default_is_that_of_params(settings: type, section: type[BaseModel]) -> None:
    """Whatever both name and give a default has the same one; at least one thing is named by both."""
    own = {field.name: default_of(field) for field in fields(settings)}
    theirs = {name: field.get_default(call_default_factory=True) for name, field in section.model_fields.items() if not field.is_required()}
    shared = [name for name in own.keys() & theirs.keys() if own[name] is not MISSING]

    assert shared
    assert {name: own[name] for name in shared} == {name: theirs[name] for name in shared}
