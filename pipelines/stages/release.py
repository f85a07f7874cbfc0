"""Stage `release`: the finished tables of everything that params name → one dataset folder that `load_dataset` opens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builders.lake.shards import Shelf, write_parquet
from builders.lake.table import Table
from builders.progress import track
from builders.releases.release import Release, open_release, write_contents
from cards import card
from cards.header import Part, open_once, require_loadable
from pipelines.graph.declared import declared
from pipelines.graph.stage import BUILD, WEIGHTS, folder, folders, run
from pipelines.params import InModelParams, Params, PretrainedSaeParams
from pipelines.parts import provenance
from pipelines.parts.costs import costs
from pipelines.parts.ingredients import ingredients
from pipelines.registry import CONFIGS, Config


def main() -> None:
    """Assemble the release, write its card, open every config with the datasets library, and only then put the folder in place."""
    params = declared("release")
    staging, final = BUILD / ".release", BUILD / "release"
    shutil.rmtree(staging, ignore_errors=True)
    made = assemble(params, staging)
    parts = [part for config in CONFIGS for part in made[config.table.name]]
    absent = [config.table for config in CONFIGS if not made[config.table.name]]
    copy_weights(params, staging)
    packages, spent = versions(params), costs(params)
    card.write(staging, parts, absent, {**facts(params), "versions": packages}, spent)
    provenance.write(staging, params, packages, spent)
    with tempfile.TemporaryDirectory() as cache:
        for part in track(parts, "opening every config"):
            open_once(staging, part, Path(cache))
    contents(params, staging, parts)
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    print(f"release {params.release.version}: {len(parts)} configs in {final}")


def assemble(params: Params, staging: Path) -> dict[str, list[Part]]:
    """Write the files of all configs and return what each one's tables hold, by name: nothing for one without rows.

    What is derived from other configs comes after them.
    """
    for config in CONFIGS:
        require_loadable(config.table.name)
    kept, derived = ([config for config in CONFIGS if (config.derived is not None) == last] for last in (False, True))
    made = {config.table.name: collect(config, params, staging) for config in track(kept, "assembling the release")}
    release = contents(params, staging, [part for parts in made.values() for part in parts])
    for config in track(derived, "deriving configs for readers"):
        made[config.table.name] = derive(config, params, release)
    return made


def collect(config: Config, params: Params, staging: Path) -> list[Part]:
    """Write what the stages made for one config and return what it holds; without any row write nothing and return nothing."""
    shelves = [Shelf(path) for stage in config.stages for path in folders(params, stage)]
    table, target = config.beside or config.table, staging / config.table.name
    sources = [path for shelf in shelves for path in shelf.paths(table) if shelf.entries(table)[path]["rows"]]
    if not sources:
        return []
    if not config.copied:
        found = config.constant() if config.constant else pa.concat_tables(pq.read_table(path) for path in sources)
        return write(config.table, config.table.row_groups(config.table.sort(found)), staging)
    target.mkdir(parents=True)
    for number, path in enumerate(sources):
        shutil.copyfile(path, target / f"train-{number:05d}-of-{len(sources):05d}.parquet")
    return [Part.of(config.table, sorted(target.iterdir()))]


def derive(config: Config, params: Params, release: Release) -> list[Part]:
    """Write the tables of one config that follow from the *release* so far, and return what they hold."""
    found = config.derived(params, release) if config.derived else ()
    return [part for table, groups in found for part in write(table, groups, release.root)]


def write(table: Table, groups: Iterable[pa.Table], staging: Path) -> list[Part]:
    """Write *groups* as one file and return what it holds; without any row write nothing and return nothing."""
    path = staging / table.name / "train-00000-of-00001.parquet"
    if write_parquet(path, table, groups):
        return [Part.of(table, [path])]
    shutil.rmtree(path.parent)
    return []


def contents(params: Params, staging: Path, parts: Iterable[Part]) -> Release:
    """Write release.json for what lies in the folder, and return it as a release."""
    held = list(parts)
    known = {name: file for part in held for name, file in part.files.items()}
    write_contents(staging, params.release.name, params.release.version, [part.table for part in held], known)
    return open_release(staging)


def copy_weights(params: Params, release: Path) -> None:
    """Copy the dictionaries that were made here into the release, in the format that their `saes` row names, and the lenses."""
    places = {folder("lenses", subject_id): Path("lenses", subject_id) for subject_id in sorted(params.subjects)}
    for sae_id, spec in sorted(params.saes.items()):
        if isinstance(spec, InModelParams) and not isinstance(spec, PretrainedSaeParams):
            places[folder("saes", sae_id)] = Path(sae_id, spec.hookpoint)
    for made, target in places.items():
        if (made / WEIGHTS).is_dir():
            shutil.copytree(made / WEIGHTS, release / WEIGHTS / target, copy_function=shutil.copyfile)


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
        "pipeline": provenance.params_sha256(params)[:12],
    }


def versions(params: Params) -> dict[str, str]:
    """Return the versions of the libraries that made the release; several of one library where stages ran at different times."""
    found: dict[str, set[str]] = {}
    for stage in sorted({stage for config in CONFIGS for stage in config.stages}):
        for path in folders(params, stage):
            for name, number in Shelf(path).manifest["made_by"].items():
                found.setdefault(name, set()).add(number)
    return {name: " and ".join(sorted(numbers)) for name, numbers in sorted(found.items())}


if __name__ == "__main__":
    run(main)
