"""What is written from the tables and a release: docs/datasets.md, docs/results.md, and the numbers in README."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from builders.errors import UserError
from builders.lake.shards import write_atomic
from cards.card import local_block, numbers_block, results_page
from cards.render import render
from cards.show import show_latent
from pipelines.registry import CONFIGS

README, DATASETS, RESULTS = Path("README.md"), Path("docs/datasets.md"), Path("docs/results.md")
FOUND, PICTURE = Path("docs/results.json"), Path("docs/latent.svg")
FIGURES = {"scores.png": Path("docs/scores.png"), "steering.png": Path("docs/steering.png"), "lenses.png": Path("docs/lenses.png")}
RUNS = Path("docs/runs")  # of examples that are not made anew by everybody
LOCAL = RUNS / "local.json"  # that of a real language model, of which README tells
LATENT = 7  # of the first dictionary: shown in README, whatever it turns out to be
WIDTH = 120  # characters


def datasets_page() -> str:
    """Return the page that describes every config and column."""
    return render("datasets.md.j2", {"tables": [config.table for config in CONFIGS]})


def filled(readme: str, found: Mapping[str, Any]) -> str:
    """Return *readme* with its list of configs, its numbers from those *found* in a release, and those of the run `local`."""
    configs = render("configs.md.j2", {"tables": [config.table for config in CONFIGS]})
    blocks = {"configs": configs, "numbers": numbers_block(found)}
    if LOCAL.exists():
        blocks["local"] = local_block(json.loads(LOCAL.read_bytes()))
    for name, block in blocks.items():
        before, rest = readme.split(f"<!-- {name} -->\n")
        readme = f"{before}<!-- {name} -->\n{block}<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}"
    return readme


def metrics_of(release: Path) -> str:
    """Return the text of a release's figures; raise UserError where there is no release."""
    metrics = release / "metrics.json"
    if not metrics.exists():
        raise UserError(f"{release}: no release to take results from; build it with `dvc repro`")
    return metrics.read_text()


def write_docs(release: Path) -> list[Path]:
    """Write all generated pages; raise UserError where there is no release to take figures from."""
    metrics = metrics_of(release)
    found = json.loads(metrics)
    pages = {
        DATASETS: datasets_page(),
        FOUND: metrics,
        RESULTS: results_page(found),
        README: filled(README.read_text(), found),
        PICTURE: picture(release, found["dictionaries"][0]["sae"]),
    }
    for path, text in pages.items():
        write_atomic(path, text.encode())
    return [*pages, *copy_figures(release / "figures")]


def write_run(release: Path, run: str) -> list[Path]:
    """Write the page of results of the example *run* from the release that it made; raise UserError where there is none."""
    metrics = metrics_of(release)
    pages = {RUNS / f"{run}.json": metrics, RUNS / f"{run}.md": results_page(json.loads(metrics), run)}
    for path, text in pages.items():
        write_atomic(path, text.encode())
    return list(pages)


def picture(release: Path, sae: str) -> str:
    """Return a picture of what `interplake show` prints of a latent, as SVG."""
    console = Console(record=True, file=StringIO(), width=WIDTH, force_terminal=True)
    show_latent(release, sae, LATENT, most=4, console=console)
    return console.export_svg(title=f"interplake show {sae} {LATENT}", unique_id="latent")


def copy_figures(folder: Path) -> list[Path]:
    """Put the release's figures among the pages, and return where they are; one that the release does not have is taken away."""
    for name, target in FIGURES.items():
        if (folder / name).exists():
            shutil.copyfile(folder / name, target)
        else:
            target.unlink(missing_ok=True)
    return [target for target in FIGURES.values() if target.exists()]
