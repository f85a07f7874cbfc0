"""What is written from the tables and the release: docs/datasets.md, docs/results.json, README's results, steering among them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from builders.errors import UserError
from builders.lake.shards import write_atomic
from cards.card import results_block
from cards.render import render
from cards.steering import steering_block
from pipelines.registry import CONFIGS

README, DATASETS, RESULTS = Path("README.md"), Path("docs/datasets.md"), Path("docs/results.json")
FIGURES = {"scores.png": Path("docs/scores.png"), "steering.png": Path("docs/steering.png")}
BLOCK = r"(?<=<!-- {name} -->\n).*(?=<!-- /{name} -->)"
STEERED = "\n![Effects of steering by multiplier](docs/steering.png)\n"


def datasets_page() -> str:
    """Return the page that describes every config and column."""
    return render("datasets.md.j2", {"tables": [config.table for config in CONFIGS]})


def with_results(readme: str, results: str) -> str:
    """Return *readme* with its results and its block on steering replaced by those of the JSON text *results*, as far as it has any."""
    found = json.loads(results)
    records = found.get("steering", [])
    figure = STEERED if any(record["status"] == "ok" for record in records) else ""
    return _filled(_filled(readme, "results", results_block(found)), "steering", steering_block(records) + figure)


def _filled(readme: str, name: str, block: str) -> str:
    """Return *readme* with *block* between the comments that *name* it."""
    return re.sub(BLOCK.format(name=name), lambda _: block, readme, flags=re.DOTALL)


def write_docs(release: Path) -> list[Path]:
    """Write all generated pages; raise UserError where there is no release to take figures from."""
    metrics = release / "metrics.json"
    if not metrics.exists():
        raise UserError(f"{release}: no release to take results from; build it with `make repro`")
    write_atomic(DATASETS, datasets_page().encode())
    shutil.copyfile(metrics, RESULTS)
    write_atomic(README, with_results(README.read_text(), metrics.read_text()).encode())
    return [DATASETS, RESULTS, *copy_figures(release / "figures"), README]


def copy_figures(folder: Path) -> list[Path]:
    """Put the release's figures among the pages, and return where they are; one that the release does not have is taken away."""
    for name, target in FIGURES.items():
        if (folder / name).exists():
            shutil.copyfile(folder / name, target)
        else:
            target.unlink(missing_ok=True)
    return [target for target in FIGURES.values() if target.exists()]
