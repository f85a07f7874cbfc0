"""Stage `release`: the finished tables of everything that params name → one dataset folder that `load_dataset` opens."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builders.explainers.explanations import EXPLANATIONS, PERMUTED
from builders.lake.shards import Shelf, write_parquet
from builders.lake.table import Table
from builders.progress import track
from builders.releases.release import write_contents
from builders.scorers.judgements import SCORES
from builders.scorers.judges import JUDGES
from builders.similarity.similarity import SIMILARITY, TRANSFERS
from builders.steering.ratings import STEERING_TEXTS
from cards import card
from pipelines.graph.declared import declared
from pipelines.graph.stage import BUILD, USAGE, WEIGHTS, folder, folders, run
from pipelines.params import InModelParams, Params, PretrainedSaeParams
from pipelines.parts import provenance
from pipelines.parts.ingredients import ingredients
from pipelines.registry import CONFIGS, Config

# The stages that ask language models, and the table whose rows they answer for.
PAYING = {
    "explanations": EXPLANATIONS,
    "scores": SCORES,
    "direct": SCORES,
    "similarity": SIMILARITY,
    "calibration": JUDGES,
    "steering": STEERING_TEXTS,
}
OF_ALL = {"similarity": "transfers", "calibration": "all judges"}  # stages whose costs are one sum


def main() -> None:
    """Assemble the release, write its card, open every config with the datasets library, and only then put the folder in place."""
    params = declared("release")
    staging, final = BUILD / ".release", BUILD / "release"
    shutil.rmtree(staging, ignore_errors=True)
    configs = [made for config in track(CONFIGS, "assembling the release") if (made := assemble(config, params, staging))]
    copy_weights(params, staging)
    absent = [c.table for c in CONFIGS if c.table.name not in {made.table.name for made in configs}]
    packages, spent = versions(params), costs(params)
    card.write(staging, configs, absent, {**facts(params), "versions": packages}, spent)
    provenance.write(staging, params, packages, spent)
    with tempfile.TemporaryDirectory() as cache:
        for config in track(configs, "opening every config"):
            card.open_once(staging, config, Path(cache))
    write_contents(staging, params.release.name, params.release.version, [config.table for config in configs])
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    print(f"release {params.release.version}: {len(configs)} configs in {final}")


def assemble(config: Config, params: Params, release: Path) -> card.Part | None:
    """Write the files of one config and return what they hold; without any row write nothing and return None."""
    shelves = [Shelf(path) for stage in config.stages for path in folders(params, stage)]
    table, target = config.beside or config.table, release / config.table.name
    sources = [path for shelf in shelves for path in shelf.paths(table) if shelf.entries(table)[path]["rows"]]
    if not sources:
        return None
    target.mkdir(parents=True)
    if config.copied:
        for number, path in enumerate(sources):
            shutil.copyfile(path, target / f"train-{number:05d}-of-{len(sources):05d}.parquet")
    else:
        found = config.constant() if config.constant else pa.concat_tables(pq.read_table(path) for path in sources)
        rows = config.table.sort(found)
        write_parquet(target / "train-00000-of-00001.parquet", config.table, config.table.row_groups(rows))
    return card.Part.of(config.table, sorted(target.iterdir()))


def copy_weights(params: Params, release: Path) -> None:
    """Copy the dictionaries that were made here into the release, in the format that their `saes` row names, and the lenses."""
    places = {folder("lenses", subject_id): Path("lenses", subject_id) for subject_id in sorted(params.subjects)}
    for sae_id, spec in sorted(params.saes.items()):
        if isinstance(spec, InModelParams) and not isinstance(spec, PretrainedSaeParams):
            places[folder("saes", sae_id)] = Path(sae_id, spec.hookpoint)
    for made, target in places.items():
        if (made / WEIGHTS).is_dir():
            shutil.copytree(made / WEIGHTS, release / WEIGHTS / target, copy_function=shutil.copyfile)


def costs(params: Params) -> list[dict[str, object]]:
    """Return what the answers of language models cost, by explainer and scorer, summed over all dictionaries.

    The number of latents counts rows, so that a latent with several explanations counts once for each.
    """
    found: list[dict[str, object]] = []
    for stage, table in PAYING.items():
        spent: dict[str, Counter[str]] = {}
        for path in folders(params, stage):
            if (path / USAGE).exists():
                name = OF_ALL.get(stage) or path.relative_to(BUILD / stage).parts[0]
                whole = spent.setdefault(name, Counter())
                whole.update({**json.loads((path / USAGE).read_bytes()), "latents": rows_paid(path, table)})
        found += [{"stage": stage, "name": name, **numbers} for name, numbers in sorted(spent.items()) if numbers["latents"]]
    return found


def rows_paid(path: Path, table: Table) -> int:
    """Return how many rows of a finished folder language models answered for; permuted explanations cost nothing.

    Of the calibration of judges, and of transferred explanations, it is the number of explanations that they read.
    """
    shelf = Shelf(path)
    if table is SIMILARITY:
        rows = shelf.read(table, columns=["statistic", "n"]).to_pylist()
        return sum(row["n"] for row in rows if row["statistic"] in TRANSFERS)
    if table is JUDGES:
        return sum(row["rules"] for row in shelf.read(table, columns=["rules", "model"]).to_pylist() if row["model"] is not None)
    if table is not EXPLANATIONS:
        return shelf.rows(table)
    return sum(not explainer.endswith(PERMUTED) for explainer in shelf.read(table, columns=["explainer"])["explainer"].to_pylist())


def facts(params: Params) -> dict[str, object]:
    """Return the facts about params that the card states."""
    spec = params.model_dump()
    kept = ("seed", "corpora", "tokens", "contexts", "explainers", "judges", "scorers", "direct_scorers")
    engines = sorted({explainer.kind for explainer in params.explainers.values()} | {judge.kind for judge in params.judges.values()})
    return {
        **{name: spec[name] for name in kept},
        **spec["release"],
        "engines": engines,
        "ingredients": ingredients(params),
        "made_by": version("interplake"),
        "pipeline": pipeline_hash(params),
    }


def versions(params: Params) -> dict[str, str]:
    """Return the versions of the libraries that made the release; several of one library where stages ran at different times."""
    found: dict[str, set[str]] = {}
    for stage in sorted({stage for config in CONFIGS for stage in config.stages}):
        for path in folders(params, stage):
            for name, number in Shelf(path).manifest["made_by"].items():
                found.setdefault(name, set()).add(number)
    return {name: " and ".join(sorted(numbers)) for name, numbers in sorted(found.items())}


def pipeline_hash(params: Params) -> str:
    """Return the first 12 hexadecimal digits of the hash of all params."""
    return hashlib.sha256(json.dumps(params.model_dump(), sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    run(main)
