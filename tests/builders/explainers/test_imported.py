"""Explanations that somebody else made: every form they come in, and every way to get them wrong."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.explainers.imported import COLUMNS, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Made = dict[int, str]
WIDTH = 100
MADE: Made = {0: 'the word "ice", or a comma', 7: "two\nlines", 17: "le café, 日本 🙂", 99: "numbers"}


def as_parquet(folder: Path, made: Made, column: str = "explanation") -> Path:
    """Write a parquet table with a column more than is needed."""
    path = folder / "made.parquet"
    pq.write_table(pa.table({"sae": ["toy"] * len(made), "latent": list(made), column: list(made.values())}), path)
    return path


def as_csv(folder: Path, made: Made, column: str = "explanation") -> Path:
    """Write a table of comma-separated values."""
    path = folder / "made.csv"
    pa.csv.write_csv(pa.table({"latent": list(made), column: list(made.values())}), path)
    return path


def as_jsonl(folder: Path, made: Made, column: str = "explanation") -> Path:
    """Write one JSON object a line."""
    path = folder / "made.jsonl"
    lines = [json.dumps({column: text, "latent": latent}, ensure_ascii=False) for latent, text in made.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_published(folder: Path, made: Made) -> Path:
    """Write the published release's JSON object."""
    path = folder / "model.layers.3_feature.json"
    path.write_text(json.dumps({str(latent): text for latent, text in made.items()}), encoding="utf-8")
    return path


def as_published_with_long_keys(folder: Path, made: Made) -> Path:
    """Write the published JSON object with the keys that its scores have."""
    path = folder / "fuzz.json"
    path.write_text(json.dumps({f".model.layers.3_feature{latent}": text for latent, text in made.items()}), encoding="utf-8")
    return path


def as_folder(folder: Path, made: Made, name: str = "latent") -> Path:
    """Write one JSON string a file, and files beside them that are something else."""
    path = folder / "explanations"
    path.mkdir()
    for latent, text in made.items():
        (path / f".model.layers.3_{name}{latent}.txt").write_text(json.dumps(text), encoding="utf-8")
    (path / "README.txt").write_text("not an explanation")
    (path / "config.json").write_text("{}")
    return path


def as_folder_of_features(folder: Path, made: Made) -> Path:
    """Write the file names of the paper's code."""
    return as_folder(folder, made, "feature")


def as_batches(folder: Path, made: Made) -> Path:
    """Write Neuronpedia's folder of a source, with two batches of explanations."""
    path = folder / "3-res-jb/explanations"
    path.mkdir(parents=True)
    lines = [json.dumps({"id": "c", "index": str(latent), "description": text, "embedding": [0.5]}) for latent, text in made.items()]
    for number, part in enumerate((lines[:1], lines[1:])):
        (path / f"batch-{number}.jsonl.gz").write_bytes(packed(*part))
    return path.parent


def packed(*lines: str) -> bytes:
    """Return lines in gzip."""
    return gzip.compress("".join(f"{line}\n" for line in lines).encode())


TABLES = [as_parquet, as_csv, as_jsonl]
FORMS = [*TABLES, as_published, as_published_with_long_keys, as_folder, as_folder_of_features, as_batches]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_texts(form: Callable[[Path, Made], Path], tmp_path: Path) -> None:
    """Tables, published JSON and folders are read as latent → text, with line breaks, quotes and all scripts as they were."""
    assert read(form(tmp_path, MADE), "toy", WIDTH) == MADE


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("form", TABLES)
def test_columns_of_texts_have_several_names(form: Callable[[Path, Made, str], Path], column: str, tmp_path: Path) -> None:
    """Whichever of the known names a table's texts go by, they are found."""
    assert read(form(tmp_path, MADE, column), "toy", WIDTH) == MADE


@pytest.mark.parametrize("form", FORMS)
def test_texts_that_look_like_numbers_stay_texts(form: Callable[[Path, Made], Path], tmp_path: Path) -> None:
    """An explanation such as 1999 or 007 is text in every form, and not what a reader of tables guesses."""
    made = {1: "1999", 2: "007", 3: "1.10"}
    assert read(form(tmp_path, made), "toy", WIDTH) == made


@pytest.mark.parametrize("form", FORMS)
def test_empty_texts_are_no_explanations(form: Callable[[Path, Made], Path], tmp_path: Path) -> None:
    """A latent whose text is empty is as if it were not there."""
    found = read(form(tmp_path, {1: "", 2: "verbs"}), "toy", WIDTH)
    assert {latent: text for latent, text in found.items() if text} == {2: "verbs"}


def test_latents_may_be_written_as_text(tmp_path: Path) -> None:
    """Latents that a table keeps as strings, or in a narrower type, are numbers all the same."""
    for latents in (pa.array(["3", "4"]), pa.array([3, 4], pa.uint16()), pa.array(["3", "4"]).dictionary_encode()):
        pq.write_table(pa.table({"latent": latents, "text": ["a", "b"]}), tmp_path / "made.parquet")
        assert read(tmp_path / "made.parquet", "toy", WIDTH) == {3: "a", 4: "b"}


def test_records_without_latent_or_text_are_left_out(tmp_path: Path) -> None:
    """Rows with a null are no explanations."""
    pq.write_table(pa.table({"latent": [None, 2, 3], "text": ["a", None, "c"]}), tmp_path / "made.parquet")
    assert read(tmp_path / "made.parquet", "toy", WIDTH) == {3: "c"}


# What is wrong with a file → its name, its content, and what the error says.
BAD: dict[str, tuple[str, bytes | Any, str]] = {
    "an unknown ending": ("made.xlsx", b"PK", r"made\.xlsx: ends in '\.xlsx'; .*\.parquet"),
    "no ending": ("made", b"0: ice", r"made"),
    "a parquet file that is none": ("made.parquet", b"not parquet", r"cannot be read"),
    "an empty parquet file": ("made.parquet", b"", r"cannot be read"),
    "an empty csv file": ("made.csv", b"", r"cannot be read"),
    "an empty jsonl file": ("made.jsonl", b"", r"cannot be read"),
    "an empty json file": ("made.json", b"", r"cannot be read"),
    "rows of different lengths": ("made.csv", b"latent,text\n1,a\n2,b,c\n", r"cannot be read"),
    "text that is not UTF-8": ("made.csv", b"latent,text\n1,caf\xe9\n", r"cannot be read"),
    "JSON that is not UTF-8": ("made.json", b'{"1": "caf\xe9"}', r"cannot be read"),
    "JSON cut off": ("made.json", b'{"1": "a', r"cannot be read"),
    "JSON lines cut off": ("made.jsonl", b'{"latent": 1, "text": "a"}\n{"latent', r"cannot be read"),
    "no column of latents": ("made.csv", b"feature,text\n1,a\n", r"needs a column `latent`.*it has feature, text"),
    "no column of texts": ("made.csv", b"latent,score\n1,0.5\n", r"needs .*one of description, explanation.*it has latent, score"),
    "latents that are no numbers": ("made.csv", b"latent,text\nfirst,a\n", r"cannot be read"),
    "latents that are no whole numbers": ("made.csv", b"latent,text\n1.5,a\n", r"cannot be read"),
    "latents that are lists": ("made.jsonl", b'{"latent": [1], "text": "a"}\n', r"cannot be read"),
    "texts that are lists": ("made.jsonl", b'{"latent": 1, "text": ["a"]}\n', r"cannot be read"),
    "texts that are objects": ("made.jsonl", b'{"latent": 1, "text": {"a": 1}}\n', r"cannot be read"),
    "a latent twice": ("made.csv", b"latent,text\n1,a\n2,b\n1,c\n", r"1.*twice|twice.*1"),
    "a list": ("made.json", b'[{"latent": 1, "text": "a"}]', r"no JSON object.*\.jsonl"),
    "JSON that is a text": ("made.json", b'"ice"', r"no JSON object"),
    "keys that are no latents": ("made.json", b'{"first": "a"}', r"no latent with an explanation: first"),
    "a key that names a layer": ("made.json", b'{"model.layers.3": "a"}', r"no latent with an explanation: model\.layers\.3"),
    "a negative key": ("made.json", b'{"-3": "a"}', r"-3"),
    "texts that are null": ("made.json", b'{"1": null}', r"no latent with an explanation: 1"),
    "texts that are numbers": ("made.json", b'{"1": 0.5}', r"no latent with an explanation: 1"),
    "several layers in one": ("made.json", b'{".model.layers.3_feature1": "a", ".model.layers.4_feature1": "b"}', r"1.*twice|twice.*1"),
    "a latent that is not there": ("made.csv", b"latent,text\n1,a\n100,b\n", r"toy does not have \(its latents are 0 to 99\): 100"),
    "a negative latent": ("made.csv", b"latent,text\n-1,a\n", r"does not have .*: -1"),
    "a latent out of all bounds": ("made.json", b'{"99999999999999999999": "a"}', r"does not have"),
    "an empty folder": ("made", {}, r"holds no files called …_latent<number>\.txt"),
    "a folder of other files": ("made", {"readme.txt": b"x", "latent.txt": b'"a"'}, r"holds no files called"),
    "a file of a folder that is no JSON": ("made", {"x_latent1.txt": b"ice"}, r"cannot be read"),
    "an empty file in a folder": ("made", {"x_latent1.txt": b""}, r"cannot be read"),
    "a folder of scores": ("made", {"x_latent1.txt": b'[{"probability": 0.5}]'}, r"x_latent1\.txt"),
    "a null in a folder": ("made", {"x_latent1.txt": b"null"}, r"x_latent1\.txt"),
    "a folder of several layers": ("made", {"l.3_latent1.txt": b'"a"', "l.4_latent1.txt": b'"b"'}, r"1.*twice|twice.*1"),
    "batches that tell a latent twice": (
        "made",
        {f"batch-{n}.jsonl.gz": packed('{"index": "1", "description": "a"}') for n in range(2)},
        r"latents come twice: 1; give each dictionary and each explainer files of its own",
    ),
    "a batch with a latent too many": ("made.gz", packed('{"index": "100", "description": "a"}'), r"does not have .*: 100"),
    "a batch that is no gzip": ("made.gz", b"ice", r"cannot be read"),
    "a batch cut off": ("made.gz", packed('{"index": "1", "description": "a"}')[:-12], r"cannot be read"),
    "a batch that is no JSON": ("made.gz", packed("ice"), r"cannot be read"),
    "a batch of latents that are no numbers": ("made.gz", packed('{"index": "a", "description": "a"}'), r"cannot be read"),
    "a batch of something else": ("made", {"batch-0.jsonl.gz": packed('{"index": "1", "values": [0.5]}')}, r"no record has an `index` and"),
    "a folder with a latent too many": ("made", {"x_latent100.txt": b'"a"'}, r"does not have .*: 100"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_what_is_wrong_is_one_line(wrong: str, tmp_path: Path) -> None:
    """Whatever is wrong with a file, its maker is told the file and the fault in one line."""
    name, content, words = BAD[wrong]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
        for file, inside in content.items():
            (path / file).write_bytes(inside)
    with pytest.raises(UserError, match=words) as caught:
        read(path, "toy", WIDTH)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["gone.csv", "gone", "gone/made.json"])
def test_a_missing_file_is_one_line(name: str, tmp_path: Path) -> None:
    """A path to nothing is said to be that, whatever its ending."""
    with pytest.raises(UserError, match=r"no such file of explanations") as caught:
        read(tmp_path / name, "toy", WIDTH)
    assert "\n" not in str(caught.value)
