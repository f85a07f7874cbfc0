"""A release opened by its release.json alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from builders.errors import UserError
from builders.lake.shards import write_parquet
from builders.lake.table import Column, Reference, Table
from builders.releases.release import CONTENTS, File, open_release, write_contents

COLUMNS = (Column("sae", "string", "the dictionary", categorical=True), Column("latent", "int32", "the latent", low=0))
TABLE = Table(
    "things", "a thing", ("sae", "latent"), COLUMNS, references=(Reference(("sae",), "saes", ("sae",), unless=(("sae", "none"),)),)
)


def written(root: Path) -> Path:
    """Write a release of three rows in two files into *root*."""
    for number, latents in enumerate(([0, 1], [2])):
        path = root / f"things/train-{number:05d}-of-00002.parquet"
        write_parquet(path, TABLE, [TABLE.build({"sae": "one", "latent": latents})])
    (root / "README.md").write_text("a card")
    write_contents(root, "mine", "1.2.0", [TABLE])
    return root


def test_a_release_says_what_it_holds(tmp_path: Path) -> None:
    """Name, version, tables with their references, and files with their hashes come back as they were written."""
    release = open_release(written(tmp_path))

    assert (release.name, release.version, dict(release.tables)) == ("mine", "1.2.0", {"things": TABLE})
    assert release.files["README.md"] == File(6, hashlib.sha256(b"a card").hexdigest())
    assert [path.name for path in release.paths("things")] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert release.read("things", ["latent"], [("latent", ">", 0)]).to_pydict() == {"latent": [1, 2]}
    assert [row for batch in release.batches("things", ["latent"]) for row in batch["latent"].to_pylist()] == [0, 1, 2]


def test_lists_of_one_length_come_back(tmp_path: Path) -> None:
    """A table whose lists have a length is told with it."""
    table = Table("rows", "a row", ("n",), (Column("n", "int32", "a number"), Column("x", "list<float32>", "values"))).sized(x=2)
    write_parquet(tmp_path / "rows/train-00000-of-00001.parquet", table, [table.build({"n": [0], "x": [[0.5, 1.0]]})])
    write_contents(tmp_path, "mine", "1.0.0", [table])

    release = open_release(tmp_path)

    assert release.tables["rows"] == table
    assert release.read("rows").schema.equals(table.schema)


def test_what_is_no_release_is_one_line(tmp_path: Path) -> None:
    """A folder without release.json, one of a newer format, and a config that is not there are named."""
    with pytest.raises(UserError, match=r"holds no release\.json, so it is no release; build one"):
        open_release(tmp_path)
    release = open_release(written(tmp_path))
    with pytest.raises(UserError, match="has no config other; it has things"):
        release.paths("other")
    contents = json.loads((tmp_path / CONTENTS).read_bytes())
    (tmp_path / CONTENTS).write_text(json.dumps({**contents, "format": 2}))
    with pytest.raises(UserError, match="has format 2, and this version reads 1; update interplake"):
        open_release(tmp_path)
    (tmp_path / CONTENTS).write_text("{")
    with pytest.raises(UserError, match=r"release\.json: is damaged \(Expecting .*\); build the release again"):
        open_release(tmp_path)
