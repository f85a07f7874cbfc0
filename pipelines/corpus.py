"""Stage `corpus`: a source of text → documents."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from builders import corpus, townsfolk
from builders.shards import Shards
from pipelines.declared import declared
from pipelines.inputs import require_same
from pipelines.params import Corpus, Files, HubText, Townsfolk
from pipelines.stage import code, folder, run


def source(spec: Corpus) -> Iterator[corpus.Document]:
    """Return the documents that a corpus section names."""
    if isinstance(spec, Files):
        return corpus.files(spec.paths, spec.column)
    if isinstance(spec, HubText):
        return corpus.hub(spec.repo, spec.revision, spec.split, spec.column, spec.config, spec.documents)
    if isinstance(spec, Townsfolk):
        return townsfolk.talks(spec.talks)
    return corpus.python_docs()


def main(name: str) -> None:
    """Write the documents of corpus *name*."""
    spec = declared("corpus", name).corpora[name]
    shards = Shards(folder("corpora", name), {"python": platform.python_version()}, spec.model_dump(), code("corpus"))
    shards.write(corpus.DOCUMENTS, corpus.documents(source(spec), spec.held_out))
    require_same("corpora", name, spec)
    shards.finish()


if __name__ == "__main__":
    run(main)
