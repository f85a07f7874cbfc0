"""What the header of a card makes of a release in `datasets`: filters, columns, no stale rows, names."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from datasets import load_dataset

from builders.errors import UserError
from builders.lake.shards import write_parquet
from builders.lake.table import Column, Table, TableError
from builders.releases.release import File
from cards.header import Part, header, open_once, require_loadable

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = Table("numbers", "a number", ("n",), (Column("n", "int32", "the number"), Column("word", "string", "its name", categorical=True)))
VECTORS = Table("vectors", "a vector", ("n",), (Column("n", "int32", "its number"), Column("x", "list<float32>", "values"))).sized(x=2)
FACTS = {"license": "mit", "language": ["en"], "title": "t", "version": "1.2.3"}


def release(root: Path, *words: str) -> dict[str, Part]:
    """Write a release of a number for each of *words*, and as many vectors; return what its configs hold."""
    count = range(len(words))
    rows: dict[Table, dict[str, Any]] = {
        NUMBERS: {"n": list(count), "word": list(words)},
        VECTORS: {"n": list(count), "x": [[n, n / 2] for n in count]},
    }
    parts = {}
    for table, columns in rows.items():
        path = root / table.name / "train-00000-of-00001.parquet"
        write_parquet(path, table, table.row_groups(table.build(columns)))
        parts[table.name] = Part.of(table, [path])
    (root / "README.md").write_text(f"---\n{yaml.safe_dump(header(list(parts.values()), FACTS), sort_keys=False)}---\n")
    return parts


def test_the_header_gives_sizes_and_a_version() -> None:
    """Every config has its version and its sizes, and the first is the default; no config tells its number of rows."""
    numbers = Part(NUMBERS, {"numbers/0": File(100, "0a", 5)})
    vectors = Part(VECTORS, {"vectors/0": File(200, "0b", 1500), "vectors/1": File(100, "0c", 500)})
    found = header([numbers, vectors], FACTS)

    assert found["size_categories"] == ["1K<n<10K"]
    assert [config["version"] for config in found["configs"]] == ["1.2.3", "1.2.3"]
    assert [config.get("default") for config in found["configs"]] == [True, None]
    assert found["configs"][1]["description"] == "One row is a vector. SHA-256 of the files: " + hashlib.sha256(b"0b0c").hexdigest()
    assert [info["download_size"] for info in found["dataset_info"]] == [100, 300]
    assert not any("splits" in info for info in found["dataset_info"])


def test_rows_and_columns_are_chosen_in_both_modes(tmp_path: Path) -> None:
    """`filters` and `columns` choose alike map-style and streaming, one after the other in one cache; then the config loads whole."""
    root, cache = tmp_path / "numbers", str(tmp_path / "cache")
    release(root, "one", "two", "three", "two")
    ways: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"filters": [("n", ">", 1)]}, [{"n": 2, "word": "three"}, {"n": 3, "word": "two"}]),
        ({"columns": ["word"]}, [{"word": word} for word in ("one", "two", "three", "two")]),
        ({"filters": [("word", "==", "two")], "columns": ["n"]}, [{"n": 1}, {"n": 3}]),
        ({}, [{"n": n, "word": word} for n, word in enumerate(("one", "two", "three", "two"))]),
    ]

    for asked, rows in ways:
        assert load_dataset(str(root), "numbers", split="train", cache_dir=cache, **asked).to_list() == rows
        assert list(load_dataset(str(root), "numbers", split="train", cache_dir=cache, streaming=True, **asked)) == rows


def test_the_first_config_is_the_default(tmp_path: Path) -> None:
    """Without the name of a config the first one loads."""
    release(tmp_path / "numbers", "one")

    assert load_dataset(str(tmp_path / "numbers"), split="train", cache_dir=str(tmp_path / "cache")).to_list() == [{"n": 0, "word": "one"}]


def test_lists_of_one_length_stay_so(tmp_path: Path) -> None:
    """The length of lists is part of the features that `load_dataset` gives."""
    root = tmp_path / "numbers"
    release(root, "one", "two")

    loaded = load_dataset(str(root), "vectors", split="train", cache_dir=str(tmp_path / "cache"))

    assert (loaded.features, loaded.features["x"].length) == (VECTORS.features(), 2)
    assert loaded.with_format("numpy")[1]["x"].tolist() == [1.0, 0.5]


def test_releases_of_one_name_load_as_what_they_are(tmp_path: Path) -> None:
    """Releases in folders of one name, with one version and files of one size, do not stand in for each other; nor does an older one."""
    cache = str(tmp_path / "cache")
    here, there = tmp_path / "a/numbers", tmp_path / "b/numbers"
    sizes = [release(root, *words)["numbers"].bytes for root, words in ((here, ("one", "two")), (there, ("two", "one")))]
    assert sizes[0] == sizes[1]

    def words(root: Path, **asked: Any) -> list[str]:
        return list(load_dataset(str(root), "numbers", split="train", cache_dir=cache, **asked)["word"])

    assert [words(here), words(there)] == [["one", "two"], ["two", "one"]]
    assert [words(root, filters=[("n", "==", 0)]) for root in (here, there)] == [["one"], ["two"]]
    release(here, "ten", "two")
    assert words(here) == ["ten", "two"]


def test_a_config_that_loads_otherwise_is_refused(tmp_path: Path) -> None:
    """A config is opened once as readers will open it; where it gives another number of rows, its name is told."""
    parts = release(tmp_path / "numbers", "one", "two")
    open_once(tmp_path / "numbers", parts["numbers"], tmp_path / "cache")

    with pytest.raises(TableError, match=r"^numbers: load_dataset gives 2 rows of .*, not 3 rows of .*; rebuild the release$"):
        open_once(tmp_path / "numbers", Part(NUMBERS, {"numbers/0": File(0, "", 3)}), tmp_path / "other")


@pytest.mark.parametrize(
    ("config", "split", "line"),
    [
        ("layer/3", "train", "config 'layer/3': load_dataset refuses the config name 'layer/3'; use letters, digits and underscores"),
        ("layers", "layer-3", "config 'layers': load_dataset refuses the split name 'layer-3'; use letters, digits and underscores"),
        ("layers", "all", "config 'layers': load_dataset refuses the split name 'all'; use letters, digits and underscores"),
    ],
)
def test_names_that_do_not_load_are_one_line(config: str, split: str, line: str) -> None:
    """A name that `datasets` would refuse is refused before anything is written."""
    require_loadable("layer.3 of-it", "layer_3")
    with pytest.raises(UserError) as error:
        require_loadable(config, split)
    assert str(error.value) == line
