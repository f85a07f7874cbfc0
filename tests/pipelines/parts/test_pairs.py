"""How dictionaries of params are related."""

from __future__ import annotations

from typing import Any

import pytest
from project import sae, small_params

from builders.similarity.similarity import RELATIONS, Pair
from pipelines.params import Params
from pipelines.parts.pairs import pair_of

MLP = "mlp.down_proj.input"
PUBLISHED = {"source": "pretrained", "repo": "org/saes", "revision": "0" * 40, "subject": "lab"}


def neurons(**more: Any) -> dict[str, Any]:
    """Return the params of a neuron basis."""
    return {"source": "neurons", "subject": "lab", "hookpoint": f"layers.1.{MLP}", "k": 4} | more


def published(layer: int, **more: Any) -> dict[str, Any]:
    """Return the params of a published dictionary that lies in the folder of its layer."""
    return PUBLISHED | {"hookpoint": f"layers.{layer}", "folder": f"layer_{layer}"} | more


SAES: dict[str, dict[str, Any]] = {
    "base": sae(64),
    "seed-1": sae(64) | {"seed": 1},
    "seed-2": sae(64) | {"seed": 2},
    "wider": sae(128),
    "relu": {**sae(64, "relu"), "l1": 0.1, "k": None},
    "later": sae(64) | {"hookpoint": "layers.3"},
    "later-seed-1": sae(64) | {"hookpoint": "layers.3", "seed": 1},
    "later-wider": sae(128) | {"hookpoint": "layers.3"},
    "ten-later": sae(64) | {"hookpoint": "layers.11"},
    "mlp": sae(64) | {"hookpoint": f"layers.1.{MLP}"},
    "later-mlp": sae(64) | {"hookpoint": f"layers.2.{MLP}"},
    "other-names": sae(64) | {"hookpoint": "h.1.attn.c_proj2"},
    "other-names-later": sae(64) | {"hookpoint": "h.5.attn.c_proj2"},
    "other-names-later-third": sae(64) | {"hookpoint": "h.5.attn.c_proj3"},
    "nowhere": sae(64) | {"hookpoint": "embeddings"},
    "untrained": {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 64, "k": 6},
    "neurons": neurons(),
    "rotated": neurons(rotated=True),
    "rotated-1": neurons(rotated=True, seed=1),
    "published": published(1),
    "published-later": published(2),
    "published-other": published(1, folder="layer_1_wide"),
    "transcoder": published(1, folder="transcoder_1", hookpoint="layers.1.mlp.input", writes="layers.1.mlp"),
    "transcoder-later": published(2, folder="transcoder_2", hookpoint="layers.2.mlp.input", writes="layers.2.mlp"),
    "mlp-in": published(1, folder="mlp_in_1", hookpoint="layers.1.mlp.input"),
    "mlp-in-later": published(2, folder="mlp_in_2", hookpoint="layers.2.mlp.input"),
    "planted": {"source": "planted", "subject": "lab"},
    "other": sae(64) | {"subject": "second"},
    "other-planted": {"source": "planted", "subject": "second"},
    "control": sae(64) | {"subject": "control"},
    "control-seed-1": sae(64) | {"subject": "control", "seed": 1},
}


@pytest.fixture(scope="module")
def params() -> Params:
    """Return params with many dictionaries of three subjects, one of which has random weights."""
    raw = small_params()
    lab = raw["subjects"]["lab"]
    subjects = {"lab": lab, "second": {**lab, "path": "checkpoints/lab-rwkv"}, "control": {**lab, "reinitialised": True}}
    return Params.model_validate({**raw, "subjects": subjects, "saes": SAES, "similarity": {}})


@pytest.mark.parametrize(
    ("a", "b", "relation", "layers"),
    [
        ("base", "seed-1", "seed", 0),
        ("seed-1", "seed-2", "seed", 0),
        ("rotated", "rotated-1", "seed", 0),
        ("control", "control-seed-1", "seed", 0),
        ("base", "wider", "recipe", 0),
        ("seed-1", "wider", "recipe", 0),
        ("base", "relu", "recipe", 0),
        ("base", "untrained", "recipe", 0),
        ("neurons", "rotated", "recipe", 0),
        ("base", "published", "recipe", 0),
        ("published", "published-other", "recipe", 0),
        ("transcoder", "mlp-in", "hookpoint", 0),
        ("base", "later", "layer", 2),
        ("seed-2", "later-seed-1", "layer", 2),
        ("later", "ten-later", "layer", 8),
        ("mlp", "later-mlp", "layer", 1),
        ("other-names", "other-names-later", "layer", 4),
        ("published", "published-later", "layer", 1),
        ("transcoder", "transcoder-later", "layer", 1),
        ("base", "later-wider", "hookpoint", 2),
        ("untrained", "later", "hookpoint", 2),
        ("base", "mlp", "hookpoint", 0),
        ("base", "later-mlp", "hookpoint", 1),
        ("transcoder", "mlp-in-later", "hookpoint", 1),
        ("base", "other-names", "hookpoint", 0),
        ("other-names", "other-names-later-third", "hookpoint", 4),
        ("base", "nowhere", "hookpoint", None),
        ("base", "planted", "hookpoint", None),
        ("base", "other", "subject", None),
        ("later", "other", "subject", None),
        ("planted", "other-planted", "subject", None),
        ("base", "control", "reinitialised", None),
        ("other", "control", "reinitialised", None),
        ("planted", "control", "reinitialised", None),
    ],
)
def test_a_relation_is_the_same_from_both_sides(params: Params, a: str, b: str, relation: str, layers: int | None) -> None:
    """What two dictionaries differ in says how they are related, and their hookpoints how many layers lie between them."""
    assert pair_of(params, a, b) == Pair(a, b, relation, layers)
    assert pair_of(params, b, a) == Pair(b, a, relation, layers)


def test_every_relation_is_explained(params: Params) -> None:
    """All pairs of these dictionaries have relations that the table explains, and each relation occurs."""
    assert {pair_of(params, a, b).relation for a, b in params.pairs} == set(RELATIONS)
