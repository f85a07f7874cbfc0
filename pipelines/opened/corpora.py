"""Corpora of params, opened: the documents of the source that each names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from builders.steering import townsfolk
from builders.text import sources
from pipelines.params import CorpusParams, FilesParams, HubTextParams, TownsfolkParams


def documents_of(spec: CorpusParams) -> Iterator[sources.Document]:
    """Return the documents of a corpus of params."""
    if isinstance(spec, FilesParams):
        return sources.files(spec.paths, spec.column)
    if isinstance(spec, HubTextParams):
        return sources.hub(spec.repo, spec.revision, spec.split, spec.column, spec.config, spec.documents)
    if isinstance(spec, TownsfolkParams):
        return townsfolk.talks(spec.talks)
    return islice(sources.python_docs(), spec.documents)
