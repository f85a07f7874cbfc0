"""What `datasets` reads of a release: the YAML header of its card, the sizes of its configs, and whether each of them opens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.errors import UserError
from builders.lake.table import Table, TableError
from builders.releases.release import File
from builders.steering.effects import STEERING

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"), (10**8, "10M<n<100M"))
SPLIT = "train"  # the only split: `contexts` has a column of that name


@dataclass(frozen=True)
class Part:
    """One config of a release: its table, and its parquet files by path within the release, in order."""

    table: Table
    files: Mapping[str, File]

    @staticmethod
    def of(table: Table, paths: Sequence[Path]) -> Part:
        """Return the config of a table whose parquet files are *paths*."""
        return Part(table, {f"{table.name}/{path.name}": File.of(path) for path in paths})

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(file.rows for file in self.files.values())

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def sha256(self) -> str:
        """A hash of all that is in its files."""
        return hashlib.sha256("".join(file.sha256 for file in self.files.values()).encode()).hexdigest()


def header(parts: Sequence[Part], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the YAML header of the card.

    `datasets` keeps what it has loaded by folder name, version and this header. It does not look at the files, so each config tells their
    hash: a release never opens as another one of the same name. It compares the number of rows with that of a header, too, and so refuses
    `filters`; therefore the header does not tell it.
    """
    most = max(part.rows for part in parts)
    return {
        "license": facts["license"],
        "language": facts["language"],
        "pretty_name": facts["title"],
        "size_categories": [next((name for limit, name in SIZES if most < limit), "n>100M")],
        "tags": [
            "interpretability",
            "sparse-autoencoder",
            "explanations",
            *(part.table.name for part in parts if part.table is STEERING),
        ],
        "task_categories": ["other"],
        "configs": [
            {
                "config_name": part.table.name,
                "version": facts["version"],
                "description": f"One row is {part.table.row}. SHA-256 of the files: {part.sha256}",
                "data_files": [{"split": SPLIT, "path": f"{part.table.name}/{SPLIT}-*"}],
                **({"default": True} if number == 0 else {}),
            }
            for number, part in enumerate(parts)
        ],
        "dataset_info": [
            {
                "config_name": part.table.name,
                "features": part.table.features()._to_yaml_list(),
                "download_size": part.bytes,
            }
            for part in parts
        ],
    }


def require_loadable(config: str, split: str = SPLIT) -> None:
    """Raise UserError where `load_dataset` refuses the name of a *config* or of a *split*: it asks `datasets` itself."""
    from datasets import BuilderConfig, NamedSplit  # this import takes two seconds, and the card's text does not need it

    for kind, name, takes in (("config", config, BuilderConfig), ("split", split, NamedSplit)):
        try:
            takes(name)
            refused = name == "all"  # which stands for all splits, or all configs, together
        except ValueError:
            refused = True
        if refused:
            raise UserError(f"config {config!r}: load_dataset refuses the {kind} name {name!r}; use letters, digits and underscores")


def open_once(release: Path, part: Part, cache: Path) -> None:
    """Open a config as `load_dataset` does, map-style and streaming; raise TableError where it differs from what was written."""
    from datasets import disable_progress_bars, load_dataset_builder

    disable_progress_bars()
    name = part.table.name
    builder = load_dataset_builder(str(release), name, cache_dir=str(cache))  # once for both, since it reads the whole header
    first = next(iter(builder.as_streaming_dataset(split=SPLIT)))
    builder.download_and_prepare()
    data = builder.as_dataset(split=SPLIT)
    if len(data) != part.rows or data.features != part.table.features():
        written = f"{part.rows} rows of {part.table.features()}"
        raise TableError(f"{name}: load_dataset gives {len(data)} rows of {data.features}, not {written}; rebuild the release")
    if first.keys() != data[0].keys():
        raise TableError(f"{name}: streaming gives other columns than map style; rebuild the release")
