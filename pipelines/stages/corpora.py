"""Stage `corpora`: sources of text → documents."""

from __future__ import annotations

import platform

from builders.lake.shards import Shards
from builders.text import sources
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same, seen
from pipelines.graph.stage import code, for_each, run
from pipelines.opened.corpora import documents_of
from pipelines.params import Params
from pipelines.parts.ahead import Job


def main(*only: str) -> None:
    """Write the documents of every corpus, or of *only* the one given."""
    params = declared("corpora")
    for_each("corpora", params.corpora, only, lambda corpus_id: collect(params, corpus_id))


def collect(params: Params, corpus_id: str) -> None:
    """Write the documents of corpus *corpus_id*, unless they are finished."""
    spec = params.corpora[corpus_id]
    inputs = {"python": platform.python_version(), "files": seen("corpora", corpus_id, spec)}

    def write(shards: Shards) -> bool:
        """Write DOCUMENTS; another try gives the same."""
        shards.write(sources.DOCUMENTS, sources.documents(documents_of(spec), spec.held_out))
        require_same("corpora", corpus_id, spec)
        return True

    Job("corpora", (corpus_id,), inputs, spec.model_dump(), code("corpora")).fill(write)


if __name__ == "__main__":
    run(main)
