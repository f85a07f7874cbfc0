"""What a release is made from, with the licence of each thing: corpora, subjects, dictionaries of others, and models that answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.params import LexicalEmbedderParams, Params, PretrainedSaeParams

HUB = "https://huggingface.co/"
# Corpora whose text comes with this code or with Python, under a licence that is known.
KNOWN = {"python-docs": "PSF-2.0", "townsfolk": "Apache-2.0"}
WORDS = {"python-docs": "the documentation of Python", "townsfolk": "talks that interplake invents"}


def ingredients(params: Params) -> list[dict[str, Any]]:
    """Return kind, id, source and license of each ingredient; the license is None where neither params nor we know it."""
    return [
        {"kind": kind, "id": name, "source": source, "license": params.release.licenses.get(name, known)}
        for kind, name, source, known in _found(params)
    ]


def _found(params: Params) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield kind, id, source and known license of each ingredient."""
    for corpus_id, corpus in params.corpora.items():
        place = f"{HUB}datasets/{corpus.repo}/tree/{corpus.revision}" if corpus.source == "hub" else WORDS.get(corpus.source, "files")
        yield "corpus", corpus_id, place, KNOWN.get(corpus.source)
    for subject_id, subject in params.subjects.items():
        yield "language model", subject_id, _place(subject), None
    for sae_id, sae in params.saes.items():
        if isinstance(sae, PretrainedSaeParams):
            yield "dictionary", sae_id, _place(sae), None
    for engine_id, engine in params.engines.items():
        yield "explainer or judge", engine_id, engine.model if engine.kind == "openai" else _place(engine), None
    for embedder_id, embedder in params.embedders.items():
        if not isinstance(embedder, LexicalEmbedderParams):
            yield "embedder", embedder_id, _place(embedder), None


def _place(spec: Any) -> str:
    """Return where a model lies: its address on the Hub, or the name of its package, folder or file, without the path to it."""
    if spec.repo:
        return f"{HUB}{spec.repo}/tree/{spec.revision}"
    return str(getattr(spec, "package", None) or str(spec.path).rstrip("/").rpartition("/")[2])
