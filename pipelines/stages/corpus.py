"""Stage `corpus`: a source of text → documents."""

from __future__ import annotations

import platform

from builders.lake.shards import Shards
from builders.text import sources
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, folder, run
from pipelines.opened.corpora import documents_of


def main(corpus_id: str) -> None:
    """Write the documents of corpus *corpus_id*."""
    spec = declared("corpus", corpus_id).corpora[corpus_id]
    shards = Shards(folder("corpora", corpus_id), {"python": platform.python_version()}, spec.model_dump(), code("corpus"))
    shards.write(sources.DOCUMENTS, sources.documents(documents_of(spec), spec.held_out))
    require_same("corpora", corpus_id, spec)
    shards.finish()


if __name__ == "__main__":
    run(main)
