"""Which SAEs are sisters: those that differ by their seed only, and are compared."""

from __future__ import annotations

from typing import Any

from project import sae, small_params

from pipelines.params import Params
from pipelines.parts.sisters import sisters_of

SAES: dict[str, dict[str, Any]] = {
    "a": sae(64),
    "b": {**sae(64), "seed": 1},
    "c": {**sae(64), "seed": 2},
    "deeper": {**sae(64), "seed": 1, "hookpoint": "layers.2"},
    "elsewhere": {**sae(64), "subject": "other"},
    "rules": {"source": "planted", "subject": "lab"},
    "wider": {**sae(128), "seed": 1},
}


def params_of(**similarity: Any) -> Params:
    """Return params with these dictionaries."""
    params = small_params()
    params["subjects"]["other"] = params["subjects"]["lab"]
    return Params.model_validate({**params, "saes": SAES, "similarity": similarity})


def test_sisters_differ_by_their_seed_only() -> None:
    """Another width, layer or subject makes no sister, nor does a rule."""
    found = {sae_id: sisters_of(params_of(), sae_id) for sae_id in SAES}

    assert {sae_id: sisters for sae_id, sisters in found.items() if sisters} == {"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"]}


def test_sisters_are_compared() -> None:
    """A dictionary that is not among those that are compared has no sisters and is none."""
    params = params_of(saes=["a", "c", "rules"])

    assert [sisters_of(params, sae_id) for sae_id in ("a", "b", "c", "rules")] == [["c"], [], ["a"], []]
