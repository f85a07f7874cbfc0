"""Stage `sources`: the modules of every stage → hashes, so that DVC sees its code change."""

from __future__ import annotations

from builders.lake.hashes import write_texts
from pipelines.graph.sources import sources
from pipelines.graph.stage import SOURCES, run
from pipelines.params import load


def main() -> None:
    """Write the hashes of the code of every stage."""
    write_texts(SOURCES, {f"{name}.txt": text for name, text in sources(load())})


if __name__ == "__main__":
    run(main)
