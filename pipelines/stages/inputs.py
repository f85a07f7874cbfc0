"""Stage `inputs` (runs every time): the files outside the project that params name → hashes, so that DVC sees them change.

It also makes the folders of stages that run once for each id of a section. Later stages depend on them, DVC refuses a dependency that does
not exist, and where the section is empty no stage makes its folder.
"""

from __future__ import annotations

from builders.lake.hashes import Hashes, write_texts
from pipelines.graph.outside import HASHES, inputs
from pipelines.graph.stage import BUILD, INPUTS, run
from pipelines.params import load

OPTIONAL = ("explanations", "scores", "direct")  # stages of sections that may be empty


def main() -> None:
    """Write the hashes of the files that params name."""
    for stage in OPTIONAL:
        (BUILD / stage).mkdir(parents=True, exist_ok=True)
    hashes = Hashes(HASHES)
    texts = {f"{name}.txt": text for name, text in inputs(load(), hashes)}
    hashes.keep()
    write_texts(INPUTS, texts)


if __name__ == "__main__":
    run(main)
