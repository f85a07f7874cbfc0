from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.lake.shards import FORMAT, MANIFEST, Shards, Shelf, file_sha256, write_atomic, write_parquet
from builders.lake.table import Column, Table, TableError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = Table(
    name="numbers",
    row="a number",
    key=("kind", "n"),
    columns=(
        Column("kind", "string", "its kind", categorical=True),
        Column("n", "int32", "the number", low=0),
        Column("root", "float32", "its square root", low=0),
        Column("word", "string", "its name"),
        Column("divisors", "list<int64>", "what divides it", low=1),
        Column("halves", "list<float16>", "its halves"),
    ),
)
NOTES = Table("notes", "a note", ("note",), (Column("note", "string", "the note"),))


def numbers(start: int, stop: int) -> pa.Table:
    """Return the NUMBERS rows from *start* up to *stop*."""
    n = list(range(start, stop))
    divisors = [[d for d in range(1, number + 1) if number % d == 0] for number in n]
    words = {"kind": ["small"] * len(n), "word": [f"number {number}" for number in n], "halves": [[number / 2] for number in n]}
    return NUMBERS.build({**words, "n": n, "root": np.sqrt(n), "divisors": divisors})


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below *folder* with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def no_work() -> Iterator[pa.Table]:
    """Fail if a rerun does this work."""
    pytest.fail("a finished shard was computed again")
    yield


def build(folder: Path, inputs: str = "in", param: int = 1, *, finish: bool = True) -> Shards:
    """Build two shards of numbers and, unless told otherwise, finish."""
    shards = Shards(folder, {"source": inputs}, {"param": param}, "code")
    shards.write(NUMBERS, [numbers(0, 5), numbers(5, 8)], 0)
    shards.write(NUMBERS, [numbers(8, 10)], 1)
    if finish:
        shards.finish()
    return shards


class TestFiles:
    """Hashes and atomic writes."""

    def test_hash_is_sha256(self, tmp_path: Path) -> None:
        """A file's hash is the SHA-256 of its bytes."""
        (tmp_path / "abc").write_bytes(b"abc")
        assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def test_atomic_write_replaces_the_whole_file(self, tmp_path: Path) -> None:
        """New bytes replace old ones, missing folders are made, and no temporary file stays."""
        path = tmp_path / "a" / "b" / "file"
        write_atomic(path, b"long old bytes")
        write_atomic(path, b"new")
        assert contents(tmp_path) == {"a/b/file": b"new"}


class TestWriteParquet:
    """One shard's file."""

    def test_equal_rows_give_equal_bytes(self, tmp_path: Path) -> None:
        """Writing the same rows twice gives the same file, and other rows another."""
        for name, stop in (("one", 50), ("two", 50), ("three", 51)):
            write_parquet(tmp_path / name, NUMBERS, [numbers(0, 20), numbers(20, stop)])
        one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
        assert one == two != three

    def test_each_group_is_a_row_group(self, tmp_path: Path) -> None:
        """The groups handed in are the file's row groups, in order, and their rows are counted."""
        path = tmp_path / "deep" / "x.parquet"
        assert write_parquet(path, NUMBERS, iter([numbers(0, 5), numbers(5, 6), numbers(6, 30)])) == 30
        metadata = pq.read_metadata(path)
        assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [5, 1, 24]
        assert pq.read_table(path).equals(numbers(0, 30))

    def test_pages_are_indexed_compressed_and_plain(self, tmp_path: Path) -> None:
        """Every column has a page index and zstd pages, and only the categorical column has a dictionary."""
        write_parquet(tmp_path / "x.parquet", NUMBERS, [numbers(0, 50)])
        group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
        columns = {(column := group.column(place)).path_in_schema: column for place in range(group.num_columns)}
        assert sorted(columns) == ["divisors.list.element", "halves.list.element", "kind", "n", "root", "word"]
        assert all(column.has_offset_index and column.has_column_index for column in columns.values())
        assert {column.compression for column in columns.values()} == {"ZSTD"}
        assert {name for name, column in columns.items() if column.has_dictionary_page} == {"kind"}
        assert {name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings} == {"kind"}

    def test_numbers_are_encoded_by_their_kind(self, tmp_path: Path) -> None:
        """Integers are stored as differences and floats byte by byte, inside lists too."""
        write_parquet(tmp_path / "x.parquet", NUMBERS, [numbers(0, 50)])
        group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
        encodings = {group.column(place).path_in_schema: set(group.column(place).encodings) for place in range(group.num_columns)}
        for name in ("n", "divisors.list.element"):
            assert "DELTA_BINARY_PACKED" in encodings[name]
        for name in ("root", "halves.list.element"):
            assert "BYTE_STREAM_SPLIT" in encodings[name]

    @pytest.mark.parametrize("dtype", ["float64", "int64", "string"])
    def test_an_insertion_changes_only_nearby_pages(self, dtype: str, tmp_path: Path) -> None:
        """Pages are cut by their content: rows put in front leave the bytes of all later pages as they were."""
        table = Table("wide", "a value", ("place",), (Column("place", "int64", "its place"), Column("value", dtype, "the value")))
        drawn = np.random.default_rng(0).integers(0, 2**62, 400_000)
        values = drawn.astype(str).tolist() if dtype == "string" else drawn.astype(dtype)
        sizes = []
        for name, start in (("before", 1_000), ("after", 0)):
            rows = table.build({"place": np.arange(start, 400_000), "value": values[start:]})
            sizes.append(write_parquet(tmp_path / name, table, [rows]))
        assert sizes == [399_000, 400_000]
        before, after = ((tmp_path / name).read_bytes() for name in ("before", "after"))
        later = before[-1_200_000:-200_000]  # the last pages of the values, before the index and footer
        assert later in after

    def test_bad_rows_leave_the_old_file(self, tmp_path: Path) -> None:
        """A group that breaks a rule of the table, alone or after the group before it, stops the write; the old file stays whole."""
        path = tmp_path / "x.parquet"
        write_parquet(path, NUMBERS, [numbers(0, 3)])
        old = path.read_bytes()
        with pytest.raises(TableError, match="key does not rise"):
            write_parquet(path, NUMBERS, [numbers(0, 5), numbers(4, 8)])
        assert path.read_bytes() == old

    def test_order_is_checked_across_an_empty_group(self, tmp_path: Path) -> None:
        """A group of no rows does not make the writer forget the last row before it."""
        with pytest.raises(TableError, match="key does not rise"):
            write_parquet(tmp_path / "x.parquet", NUMBERS, [numbers(0, 5), NUMBERS.empty(), numbers(4, 8)])
        assert not (tmp_path / "x.parquet").exists()

    def test_work_that_stops_leaves_no_shard(self, tmp_path: Path) -> None:
        """If the iterator that makes the rows fails, there is no file under the shard's name."""

        def groups() -> Iterator[pa.Table]:
            yield numbers(0, 3)
            raise RuntimeError("the maker stopped")

        with pytest.raises(RuntimeError, match="the maker stopped"):
            write_parquet(tmp_path / "x.parquet", NUMBERS, groups())
        assert not (tmp_path / "x.parquet").exists()

    @pytest.mark.parametrize("groups", [[], [NUMBERS.empty()]])
    def test_no_rows_keep_their_schema(self, groups: list[pa.Table], tmp_path: Path) -> None:
        """A shard of no rows is a file of no rows with the table's schema."""
        assert write_parquet(tmp_path / "x.parquet", NUMBERS, groups) == 0
        back = pq.read_table(tmp_path / "x.parquet")
        assert back.num_rows == 0
        assert back.schema.equals(NUMBERS.schema)
        assert back.schema.metadata == NUMBERS.schema.metadata


class TestShards:
    """A folder that is built, interrupted and resumed."""

    def test_manifest_says_what_was_made_from_what(self, tmp_path: Path) -> None:
        """A finished folder lists inputs, params and, for each shard, its table, rows, size and hash."""
        shards = build(tmp_path)
        manifest = json.loads((tmp_path / MANIFEST).read_bytes())
        path = shards.path(NUMBERS, 1)
        assert path == tmp_path / "numbers-00001.parquet"
        assert {key: manifest[key] for key in ("format", "inputs", "params", "complete")} == {
            "format": FORMAT,
            "inputs": {"source": "in"},
            "params": {"param": 1},
            "complete": True,
        }
        assert list(manifest["shards"]) == ["numbers-00000.parquet", "numbers-00001.parquet"]
        assert manifest["shards"][path.name] == {
            "table": "numbers",
            "rows": 2,
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }

    def test_a_finished_shard_is_skipped(self, tmp_path: Path) -> None:
        """A run that a stop left unfinished computes nothing twice, and ends in the bytes of an undisturbed one."""
        build(tmp_path / "undisturbed")
        build(tmp_path / "stopped", finish=False)
        again = Shards(tmp_path / "stopped", {"source": "in"}, {"param": 1}, "code")
        for index in range(2):
            assert again.done(NUMBERS, index)
            again.write(NUMBERS, no_work(), index)
        again.finish()
        assert contents(tmp_path / "stopped") == contents(tmp_path / "undisturbed")

    def test_a_finished_folder_is_made_anew(self, tmp_path: Path) -> None:
        """A finished stage is run again for a reason, such as other code, so nothing old is kept."""
        build(tmp_path)
        assert not Shards(tmp_path, {"source": "in"}, {"param": 1}, "code").done(NUMBERS, 0)

    def test_other_code_discards_what_a_stop_left(self, tmp_path: Path) -> None:
        """A shard made by other code than today's is not kept."""
        build(tmp_path, finish=False)
        manifest = json.loads((tmp_path / MANIFEST).read_bytes())
        (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "code": "other"}))
        assert not Shards(tmp_path, {"source": "in"}, {"param": 1}, "code").done(NUMBERS, 0)

    def test_a_run_that_stopped_goes_on(self, tmp_path: Path) -> None:
        """Shards entered before a stop stay done, the others are not, and until the end the folder is not complete."""
        first = Shards(tmp_path, {"source": "in"}, {"param": 1}, "code")
        first.write(NUMBERS, [numbers(0, 5), numbers(5, 8)], 0)
        second = Shards(tmp_path, {"source": "in"}, {"param": 1}, "code")
        assert [second.done(NUMBERS, index) for index in range(2)] == [True, False]
        with pytest.raises(UserError, match="not built yet"):
            Shelf(tmp_path)

    @pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
    def test_a_damaged_shard_is_computed_again(self, damage: str, tmp_path: Path) -> None:
        """A shard whose bytes changed, ended early or went away is not done, and a rerun makes it alone again."""
        shards = build(tmp_path, finish=False)
        before = contents(build(tmp_path / "undisturbed").folder)
        path = shards.path(NUMBERS, 0)
        whole = path.read_bytes()
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(whole[:-1] if damage == "cut" else whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        again = Shards(tmp_path, {"source": "in"}, {"param": 1}, "code")
        assert [again.done(NUMBERS, index) for index in range(2)] == [False, True]
        again.write(NUMBERS, [numbers(0, 5), numbers(5, 8)], 0)
        again.write(NUMBERS, no_work(), 1)
        shutil.rmtree(tmp_path / "undisturbed")
        again.finish()
        assert contents(tmp_path) == before

    @pytest.mark.parametrize(("inputs", "param"), [("other", 1), ("in", 2)])
    def test_other_inputs_or_params_discard_everything(self, inputs: str, param: int, tmp_path: Path) -> None:
        """Under other inputs or params nothing is done, and the result is that of an empty folder."""
        build(tmp_path / "used")
        again = Shards(tmp_path / "used", {"source": inputs}, {"param": param}, "code")
        assert not any(again.done(NUMBERS, index) for index in range(2))
        build(tmp_path / "used", inputs, param)
        build(tmp_path / "fresh", inputs, param)
        assert contents(tmp_path / "used") == contents(tmp_path / "fresh")

    def test_another_format_discards_everything(self, tmp_path: Path) -> None:
        """Shards whose bytes were laid out by an older format are made again."""
        build(tmp_path)
        manifest = json.loads((tmp_path / MANIFEST).read_bytes())
        (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "format": FORMAT - 1}))
        assert not Shards(tmp_path, {"source": "in"}, {"param": 1}, "code").done(NUMBERS, 0)

    def test_a_folder_of_other_params_is_emptied_first(self, tmp_path: Path) -> None:
        """As soon as work starts, nothing of the old folder can be read: no shard, and no manifest that calls it complete."""
        build(tmp_path)
        Shards(tmp_path, {"source": "in"}, {"param": 2}, "code")
        assert [name for name in contents(tmp_path) if name != MANIFEST] == []
        with pytest.raises(UserError, match="not built yet"):
            Shelf(tmp_path)

    def test_params_may_be_nested(self, tmp_path: Path) -> None:
        """Params that JSON writes differently from Python, such as tuples, are still the same params next time."""
        params = {"layers": (1, 2), "more": {"share": 0.1, "none": None}}
        Shards(tmp_path, {}, params, "code").write(NUMBERS, [numbers(0, 2)])
        assert Shards(tmp_path, {}, params, "code").done(NUMBERS)

    def test_a_kill_between_file_and_manifest_is_no_shard(self, tmp_path: Path) -> None:
        """A file that was renamed into place but never entered is not done; the rerun ends byte-identical."""
        stopped = Shards(tmp_path / "stopped", {"source": "in"}, {"param": 1}, "code")
        write_parquet(stopped.path(NUMBERS, 0), NUMBERS, [numbers(0, 3)])
        assert not Shards(tmp_path / "stopped", {"source": "in"}, {"param": 1}, "code").done(NUMBERS, 0)
        build(tmp_path / "stopped")
        build(tmp_path / "undisturbed")
        assert contents(tmp_path / "stopped") == contents(tmp_path / "undisturbed")

    def test_a_kill_inside_a_shard_costs_that_shard_alone(self, tmp_path: Path) -> None:
        """After kill -9 in the middle of a shard the ones before are done, and the rerun ends byte-identical."""
        script = """
import os, pathlib, signal, sys
from test_shards import NUMBERS, numbers
from builders.lake.shards import Shards

def groups():
    yield numbers(8, 9)
    os.kill(os.getpid(), signal.SIGKILL)

shards = Shards(pathlib.Path(sys.argv[1]), {"source": "in"}, {"param": 1}, "code")
shards.write(NUMBERS, [numbers(0, 5), numbers(5, 8)], 0)
shards.write(NUMBERS, groups(), 1)
"""
        stopped = tmp_path / "stopped"
        path = f"import sys; sys.path[:0] = {[str(ROOT), str(Path(__file__).parent)]!r}\n"
        killed = subprocess.run([sys.executable, "-c", path + script, str(stopped)], check=False)
        assert killed.returncode == -signal.SIGKILL
        again = Shards(stopped, {"source": "in"}, {"param": 1}, "code")
        assert [again.done(NUMBERS, index) for index in range(2)] == [True, False]
        again.write(NUMBERS, no_work(), 0)
        build(stopped)
        build(tmp_path / "undisturbed")
        assert contents(stopped) == contents(tmp_path / "undisturbed")

    def test_finish_removes_what_nobody_entered(self, tmp_path: Path) -> None:
        """Temporary files, files outside the manifest and empty folders are deleted; entered files of any kind stay."""
        shards = Shards(tmp_path, {}, {}, "code")
        shards.write(NUMBERS, [numbers(0, 2)])
        kept = tmp_path / "weights" / "w.bin"
        write_atomic(kept, b"weights")
        shards.enter(kept)
        write_atomic(tmp_path / "spills" / "deep" / "s.bin", b"spill")
        for stray in (".numbers-00001.parquet.tmp", "numbers-00007.parquet"):
            (tmp_path / stray).write_bytes(b"stray")
        shards.finish()
        assert sorted(contents(tmp_path)) == [MANIFEST, "numbers-00000.parquet", "weights/w.bin"]
        assert not (tmp_path / "spills").exists()
        assert Shelf(tmp_path).verified(kept) == kept

    def test_finish_forgets_files_that_were_removed(self, tmp_path: Path) -> None:
        """A file that was entered and deleted before the end, such as a spill, is not in the finished manifest."""
        shards = Shards(tmp_path, {}, {}, "code")
        spill = tmp_path / "spill.bin"
        spill.write_bytes(b"spill")
        shards.enter(spill)
        assert shards.holds(spill)
        spill.write_bytes(b"SPILL")
        assert not shards.holds(spill)
        spill.unlink()
        assert not shards.holds(spill)
        shards.finish()
        assert json.loads((tmp_path / MANIFEST).read_bytes())["shards"] == {}

    def test_a_manifest_that_is_no_json_is_like_none(self, tmp_path: Path) -> None:
        """A damaged manifest costs a rebuild, not a traceback: a rerun heals the folder."""
        build(tmp_path)
        before = contents(tmp_path)
        (tmp_path / MANIFEST).write_bytes(before[MANIFEST][:40])
        build(tmp_path)
        assert contents(tmp_path) == before


class TestShelf:
    """A finished folder, read."""

    def test_rows_come_back_in_order(self, tmp_path: Path) -> None:
        """All shards of a table are read one after the other, by their numbers."""
        build(tmp_path)
        shelf = Shelf(tmp_path)
        assert shelf.read(NUMBERS).equals(numbers(0, 10))
        assert shelf.rows(NUMBERS) == 10
        assert [path.name for path in shelf.paths(NUMBERS)] == ["numbers-00000.parquet", "numbers-00001.parquet"]

    def test_columns_and_filters_are_honoured(self, tmp_path: Path) -> None:
        """A reader gets the columns and the rows it asks for, across shards."""
        build(tmp_path)
        rows = Shelf(tmp_path).read(NUMBERS, columns=["word"], filters=[("n", ">=", 7)])
        assert rows.to_pydict() == {"word": ["number 7", "number 8", "number 9"]}

    def test_tables_share_a_folder(self, tmp_path: Path) -> None:
        """Shards of two tables in one folder are kept apart; a table without shards has no rows, but its schema."""
        shards = Shards(tmp_path, {}, {}, "code")
        shards.write(NUMBERS, [numbers(0, 2)])
        shards.finish()
        shelf = Shelf(tmp_path)
        assert shelf.read(NUMBERS).num_rows == 2
        assert shelf.paths(NOTES) == []
        assert shelf.rows(NOTES) == 0
        assert shelf.read(NOTES).schema.equals(NOTES.schema)
        assert shelf.read(NUMBERS, columns=["n"]).column_names == ["n"]
        assert shelf.read(NOTES, columns=["note"]).to_pydict() == {"note": []}

    def test_a_folder_that_was_never_built_says_how(self, tmp_path: Path) -> None:
        """The error for a missing folder is one line with the folder and the next step."""
        with pytest.raises(UserError) as caught:
            Shelf(tmp_path / "tokens")
        assert str(caught.value) == f"{tmp_path / 'tokens'}: not built yet; build it with `dvc repro`"

    @pytest.mark.parametrize("damage", ["flip", "remove"])
    def test_a_damaged_shard_is_named_in_one_line(self, damage: str, tmp_path: Path) -> None:
        """The error for a changed or missing shard is one line with the file and the next step."""
        path = build(tmp_path).path(NUMBERS, 1)
        whole = path.read_bytes()
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        shelf = Shelf(tmp_path)
        with pytest.raises(UserError) as caught:
            shelf.read(NUMBERS)
        assert str(caught.value).startswith(f"{path}: damaged or missing")
        assert "`dvc repro`" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_damaged_manifest_is_named_in_one_line(self, tmp_path: Path) -> None:
        """The error for a manifest that is no JSON names the folder and the next step, without a traceback."""
        build(tmp_path)
        (tmp_path / MANIFEST).write_text('{"complete": tr')
        with pytest.raises(UserError) as caught:
            Shelf(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_digest_stands_for_everything_behind_the_folder(self, tmp_path: Path) -> None:
        """Equal inputs, params and rows have one digest; a change in any of them gives another."""
        build(tmp_path / "one")
        build(tmp_path / "same")
        build(tmp_path / "inputs", inputs="other")
        build(tmp_path / "params", param=2)
        fewer = Shards(tmp_path / "rows", {"source": "in"}, {"param": 1}, "code")
        fewer.write(NUMBERS, [numbers(0, 8)], 0)
        fewer.finish()
        digests = {name: Shelf(tmp_path / name).digest for name in ("one", "same", "inputs", "params", "rows")}
        assert digests["one"] == digests["same"]
        assert len(set(digests.values())) == 4
