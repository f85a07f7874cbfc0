"""Corpora of params, opened: the documents of whatever source they name."""

from __future__ import annotations

from collections.abc import Iterator

from builders.steering import townsfolk
from builders.text import sources
from pipelines.params import Corpus, Files, HubText, Townsfolk


def documents_of(spec: Corpus) -> Iterator[sources.Document]:
    """Return the documents that a corpus section names."""
    if isinstance(spec, Files):
        return sources.files(spec.paths, spec.column)
    if isinstance(spec, HubText):
        return sources.hub(spec.repo, spec.revision, spec.split, spec.column, spec.config, spec.documents)
    if isinstance(spec, Townsfolk):
        return townsfolk.talks(spec.talks)
    return sources.python_docs()
