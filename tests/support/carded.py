"""A tiny release with its card, whose texts hold what Markdown, HTML and code would trip over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from releases import released
from rows import rows_of

from builders.contexts.contexts import CONTEXTS
from builders.explainers.explanations import EXPLANATIONS
from builders.lake.failures import FAILURES
from builders.readers.browse import BROWSE
from builders.readers.embeddings import EMBEDDINGS
from builders.readers.vectors import BIASES, VECTORS
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import SCORES
from builders.subjects.checkpoints import SUBJECTS
from builders.text.vocabulary import VOCABULARY
from cards import card
from cards.header import Part
from pipelines.registry import CONFIGS

if TYPE_CHECKING:
    from pathlib import Path

    from builders.lake.table import Table
    from builders.releases.release import Release

HOSTILE = 'Fires on "tag" | <script>alert("*x*")</script>\n# no heading `code` $y$'
FACTS: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny release",
    "version": "1.0.0",
    "license": "apache-2.0",
    "language": ["en"],
    "repo": "org/tiny",
    "scorer": None,
    "seed": 0,
    "corpora": {"topics": {"source": "files", "held_out": 0.1}},
    "tokens": {"length": 8, "window": 4, "bos": "row", "packing": "document", "partial": "keep"},
    "contexts": {
        "windows": "whole",
        "train": 2,
        "train_random": 2,
        "test": 2,
        "test_random": 2,
        "quantiles": 2,
        "sampler": "quantiles",
        "latents": None,
    },
    "explainers": {"asked": {"kind": "default"}},
    "judges": {"model": {"kind": "model"}},
    "scorers": {"detection": {"kind": "detection", "negatives": "random"}},
    "direct_scorers": {},
    "engines": ["default", "model"],
    "ingredients": [
        {"kind": "corpus", "id": "topics", "source": "files", "license": None},
        {"kind": "language model", "id": "lab", "source": "https://huggingface.co/org/lab/tree/abc", "license": "Apache-2.0"},
    ],
    "versions": {"numpy": "2.0.0"},
    "made_by": "0.1.0",
    "pipeline": "0123456789ab",
}


def carded(root: Path) -> Release:
    """Write the release into *root*: one SAE of two latents, one of which a language model explained, and its card."""
    rows = {table: rows_of(table, *some) for table, some in _rows().items()}
    release = released(root, rows)
    parts = [Part.of(table, release.paths(name)) for name, table in release.tables.items()]
    absent = [config.table for config in CONFIGS if config.table.name not in release.tables]
    card.write(root, parts, absent, FACTS, [])
    return release


def _rows() -> dict[Table, list[dict[str, Any]]]:
    own = {"sae": "sae", "latent": 0}
    explained = {**own, "engine": "openai", "status": "ok", "text": HOSTILE}
    scored = {**own, "scorer": "detection", "judge": "model", "unit": "balanced accuracy", "negatives": "random", "chance": 0.5, "n": 4}
    return {
        BROWSE: [
            {**own, "explanation": HOSTILE, "score": 0.75, "kind": "trained", "density": 0.25, "contexts": ["a <<tag>>"]},
            {"sae": "sae", "latent": 1, "kind": "trained"},
        ],
        SCORES: [
            {**scored, "explainer": "asked", "score": 0.75, "score_se": 0.1, "n_failed": 0},
            {**scored, "explainer": "asked-permuted", "score": 0.5, "score_se": 0.1, "n_failed": 0},
        ],
        EXPLANATIONS: [{**explained, "explainer": "asked"}, {**explained, "explainer": "asked-permuted", "source_latent": 1}],
        LATENTS: [
            {"sae": "sae", "latent": latent, "status": "alive", "count": 2, "density": 0.25 - latent / 8, "max": 1.0, "inclusion": 1.0}
            for latent in (0, 1)
        ],
        VECTORS.sized(encoder=2, decoder=2): [{**own, "encoder": [0.5, 0.0], "decoder": [1.0, 0.0]}],
        BIASES.sized(shift=2, bias=2): [{"sae": "sae", "norm": "none", "shift": [0.0, 0.0], "bias": [0.0, 0.0]}],
        EMBEDDINGS.sized(vector=2): [{**own, "explainer": "asked", "text": HOSTILE, "vector": [1.0, 0.0]}],
        CONTEXTS: [
            {**own, "split": "test", "example": 0, "kind": "activating", "tokens": [0, 1], "activations": [0.0, 1.0], "text": "a~~~"}
        ],
        VOCABULARY: [{"subject": "lab", "token": token, "bytes": piece} for token, piece in enumerate((b"a", b"\n~~~ tag"))],
        SAES: [{"sae": "sae", "subject": "lab", "hookpoint": "layers.0", "kind": "trained", "activation": "topk", "width": 2, "l0": 1.0}],
        SUBJECTS: [{"subject": "lab", "source": "org/lab", "architecture": "LlamaForCausalLM", "dtype": "float32", "device": "cpu"}],
        FAILURES: [{"stage": "contexts", "sae": "sae", "latent": 1, "item": "latent", "reason": "fires in | 1 <window>"}],
    }
