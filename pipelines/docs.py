"""What is written from the tables and the release: docs/datasets.md, docs/results.json, README's results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from builders.errors import UserError
from builders.shards import write_atomic
from cards.card import results_block
from cards.render import render
from pipelines.release import CONFIGS

README, DATASETS, RESULTS, FIGURE = Path("README.md"), Path("docs/datasets.md"), Path("docs/results.json"), Path("docs/scores.png")
BLOCK = re.compile(r"(?<=<!-- results -->\n).*(?=<!-- /results -->)", re.DOTALL)


def datasets_page() -> str:
    """Return the page that describes every config and column."""
    return render("datasets.md.j2", {"tables": [config.table for config in CONFIGS]})


def with_results(readme: str, results: str) -> str:
    """Return *readme* with its results replaced by those of the JSON text *results*."""
    block = results_block(json.loads(results))
    return BLOCK.sub(lambda _: block, readme)


def write_docs(release: Path) -> list[Path]:
    """Write all generated pages; raise UserError where there is no release to take figures from."""
    metrics = release / "metrics.json"
    if not metrics.exists():
        raise UserError(f"{release}: no release to take results from; build it with `make repro`")
    write_atomic(DATASETS, datasets_page().encode())
    shutil.copyfile(metrics, RESULTS)
    shutil.copyfile(release / "figures/scores.png", FIGURE)
    write_atomic(README, with_results(README.read_text(), metrics.read_text()).encode())
    return [DATASETS, RESULTS, FIGURE, README]
