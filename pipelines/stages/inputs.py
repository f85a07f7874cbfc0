"""Stage `inputs` (runs every time): the files outside the project that params name → hashes, so that DVC sees them change."""

from __future__ import annotations

from builders.lake.hashes import Hashes, write_texts
from pipelines.graph.outside import HASHES, inputs
from pipelines.graph.stage import INPUTS, run
from pipelines.params import load


def main() -> None:
    """Write the hashes of the files that params name."""
    hashes = Hashes(HASHES)
    texts = {f"{name}.txt": text for name, text in inputs(load(), hashes)}
    hashes.keep()
    write_texts(INPUTS, texts)


if __name__ == "__main__":
    run(main)
