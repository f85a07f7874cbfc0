"""A release is checked against what its release.json says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from known import SCORE, TABLES, WINDOW, release_of, whole
from rows import rows_of

from builders.lake.shards import write_parquet
from builders.releases.release import Release, open_release, write_contents
from builders.releases.verify import AGAIN, verify
from pipelines.cli import main


def rewritten(release: Release, config: str, *files: pa.Table) -> Release:
    """Put *files* in place of those of a config, whatever its table says of them, and let release.json list them."""
    for path in (release.root / config).iterdir():
        path.unlink()
    for number, rows in enumerate(files):
        pq.write_table(rows, release.root / config / f"train-{number:05d}-of-{len(files):05d}.parquet")
    write_contents(release.root, release.name, release.version, release.tables.values())
    return open_release(release.root)


def only(problems: list[str]) -> str:
    """Return the one problem, without what to do about it."""
    (line,) = problems
    assert "\n" not in line
    assert line.endswith(f"; {AGAIN}")
    return line.removesuffix(f"; {AGAIN}")


def test_a_whole_release_has_no_problems(tmp_path: Path) -> None:
    """The command counts what it has checked; what publishing adds to a release is no part of it."""
    release = release_of(tmp_path / "r", whole())
    for name in ("CHANGELOG.md", ".gitattributes", ".cache/huggingface/download/README.md.lock"):
        path = release.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    said = CliRunner().invoke(main, ["verify", str(release.root)])

    assert (said.exit_code, verify(release)) == (0, [])
    assert said.output == "ok: 9 configs, 15 rows, 0.1 MB, 14 references\n"


def test_every_file_is_there_as_it_was_written(tmp_path: Path) -> None:
    """A missing file, one of another size, one of other bytes, and one that is not listed are named, and the command ends with 2."""
    release = release_of(tmp_path / "r", whole())
    path = {name: release.paths(name)[0] for name in release.tables}
    path["tokens"].unlink()
    path["saes"].write_bytes(b"short")
    path["scores"].write_bytes(path["scores"].read_bytes()[:-1] + b"?")
    (release.root / "scores/copy.parquet").touch()

    said = CliRunner().invoke(main, ["verify", str(release.root)])

    assert said.exit_code == 2
    assert said.stderr.splitlines() == [
        f"{path['saes']}: has 5 bytes, and release.json says {release.files['saes/train-00000-of-00001.parquet'].bytes:,}; {AGAIN}",
        f"{path['scores']}: its SHA-256 is not that of release.json; {AGAIN}",
        f"{path['tokens']}: missing; {AGAIN}",
        f"{release.root}/scores/copy.parquet: not listed in release.json; {AGAIN}",
        f"error: {release.root}: this many problems: 4",
    ]


def test_a_folder_that_is_no_release_is_one_line(tmp_path: Path) -> None:
    """The command says that there is nothing to check."""
    said = CliRunner().invoke(main, ["verify", str(tmp_path)])

    assert (said.exit_code, said.stderr.count("\n")) == (2, 1)
    assert "holds no release.json" in said.stderr


def test_other_columns_are_named(tmp_path: Path) -> None:
    """A file with a column of another type and one too many, and one with its columns in another order, are not of their table."""
    release = release_of(tmp_path / "r", whole())
    latents = release.read("latents")
    wide = latents.set_column(1, "latent", latents["latent"].cast(pa.int64()))
    wide = wide.append_column("extra", pa.array([True, False]))
    turned = latents.select(latents.column_names[::-1])

    said = verify(rewritten(release, "latents", wide))
    order = verify(rewritten(release, "latents", turned))

    file = "latents/train-00000-of-00001.parquet: its columns are not those of release.json"
    assert only(said) == f"{file}: latent is int64, not int32, extra is bool, not there"
    assert only(order) == f"{file}: they have another order, or differ in nulls"


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("density", [0.5] * 99 + [1.25], "latents.density: 1.25 is above 1"),
        ("status", ["alive"] * 99 + [None], "latents.status: 1 nulls in a column without nulls"),
        ("latent", [*range(99), 98], "latents: key does not rise: {'sae': 'one', 'latent': 98} then {'sae': 'one', 'latent': 98}"),
    ],
)
def test_the_first_wrong_row_is_named(tmp_path: Path, column: str, values: list[Any], said: str) -> None:
    """Of a hundred rows the last is out of bounds, null, or has the key of the one before: place, key and mistake are told."""
    release = release_of(tmp_path / "r", whole())
    rows = rows_of(TABLES["latents"], *({"sae": "one", "latent": latent} for latent in range(100)))
    place = rows.column_names.index(column)
    rows = rows.set_column(place, column, pa.array(values, rows.schema.field(column).type)).cast(rows.schema)

    key = values[99] if column == "latent" else 99
    assert (
        only(verify(rewritten(release, "latents", rows)))
        == f"latents/train-00000-of-00001.parquet: row 99 (sae='one', latent={key}): {said}"
    )


def test_a_row_after_the_first_batch_is_counted_from_the_files_start(tmp_path: Path) -> None:
    """A batch has as many rows as a row group, and the last row of one batch comes before the first of the next."""
    release = release_of(tmp_path / "r", whole())
    rows = rows_of(TABLES["tokens"], *({"subject": "lab", "row": row} for row in range(2500)))
    row = pa.array([*range(2000), 1999, *range(2001, 2500)], pa.int32())

    assert "row 2000 (subject='lab', row=1999): tokens: key does not rise" in only(
        verify(rewritten(release, "tokens", rows.set_column(1, rows.schema.field("row"), row)))
    )


def test_a_key_occurs_once_in_all_files(tmp_path: Path) -> None:
    """Files that rise by key may overlap, as those of two scorers do, but no key is in two of them."""
    release = release_of(tmp_path / "r", whole())
    first, second, third = (rows_of(TABLES["subjects"], *({"subject": name} for name in names)) for names in (("b", "lab"), "ac", "bd"))

    assert verify(rewritten(release, "subjects", first, second)) == []
    assert only(verify(rewritten(release, "subjects", first, second, third))) == "subjects: keys that occur twice: 1, such as subject='b'"


def test_a_config_has_rows(tmp_path: Path) -> None:
    """A file without rows, a config without files and a file without config are told."""
    release = release_of(tmp_path / "r", whole())
    stray = release.root / "others/train-00000-of-00001.parquet"
    write_parquet(stray, TABLES["subjects"], [rows_of(TABLES["subjects"], {"subject": "x"})])
    release.paths("scores")[0].unlink()

    said = verify(rewritten(release, "activations", TABLES["activations"].empty()))

    assert [line.removesuffix(f"; {AGAIN}") for line in said] == [
        "others/train-00000-of-00001.parquet: belongs to no config of release.json",
        "scores: has no parquet file",
        "activations/train-00000-of-00001.parquet: has no rows, and such a file cannot be loaded",
    ]


@pytest.mark.parametrize(
    ("config", "row", "said"),
    [
        ("scores", {**SCORE, "latent": 1}, "sae, latent, explainer no row of explanations has as sae, latent, explainer"),
        (
            "explanations",
            {"sae": "one", "latent": 1, "explainer": "words", "source_latent": 7},
            "sae, source_latent no row of latents has as sae, latent",
        ),
        ("activations", {**WINDOW, "latent": 2, "position": 0}, "sae, latent no row of latents has as sae, latent"),
        ("activations", {**WINDOW, "row": 2, "position": 0}, "sae, row no row of tokens has as subject, row"),
        ("latents", {"sae": "two", "latent": 0}, "sae no row of saes has as sae"),
        ("saes", {"sae": "two", "subject": "gone"}, "subject no row of subjects has as subject"),
        ("judgements", {**SCORE, "latent": 0, "example": 2}, "example no row of contexts has as sae, latent, example and split 'test'"),
    ],
)
def test_what_a_row_refers_to_is_there(tmp_path: Path, config: str, row: dict[str, Any], said: str) -> None:
    """A row that refers to nothing is named by its key, with the table that lacks what it refers to."""
    release = release_of(tmp_path / "r", whole(**{config: [row]}))

    line = only(verify(release))

    key = ", ".join(f"{name}={row[name]!r}" for name in release.tables[config].key)
    assert line.startswith(f"{config}: rows whose ")
    assert f"{said}: 1, such as " in line
    assert set(key.split(", ")) <= set(line.rpartition(" such as ")[2].split(", "))


def test_numbers_of_trials_and_of_later_windows_are_no_windows(tmp_path: Path) -> None:
    """What scorers without explanations number, and windows of the pool, is not looked for in `contexts`."""
    row = {**SCORE, "latent": 0, "negatives": "pool"}

    assert verify(release_of(tmp_path / "r", whole(scores=[row], judgements=[{**row, "example": 500}]))) == []


def test_a_config_that_is_gone_is_missed(tmp_path: Path) -> None:
    """Every row that refers to an absent config is counted, and the first three are named."""
    rows = whole()
    del rows["latents"]

    said = verify(release_of(tmp_path / "r", rows))

    assert [line.partition(":")[0] for line in said] == ["activations", "contexts", "explanations", "explanations", "scores"]
    assert said[1].startswith("contexts: rows whose sae, latent no row of latents has as sae, latent: 3, such as sae='one', ")
    assert said[1].count("; ") == 3


@pytest.mark.parametrize("table", [pytest.param(table, id=table.name) for table in TABLES.values()])
def test_references_name_what_there_is(table: Any) -> None:
    """Every reference of every config names its own columns, another config, and columns of that, of the same types."""
    for reference in table.references:
        there = {column.name: column.dtype for column in TABLES[reference.to].columns}
        own = {column.name: column.dtype for column in table.columns}
        assert [own[name] for name in reference.columns] == [there[name] for name in reference.theirs]
        assert {name for name, _ in reference.unless} <= own.keys()
        assert {name for name, _ in reference.where} <= there.keys()
        if reference.through:
            assert TABLES[reference.through].key == (reference.columns[0],)
            assert reference.theirs[0] in {column.name for column in TABLES[reference.through].columns}
    assert table.references or table.name in {"subjects", "judges", "lens_reference"}
