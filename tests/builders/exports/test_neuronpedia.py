"""Neuronpedia's bulk layout: what it takes, what comes back, and that nothing changes on the way."""

from __future__ import annotations

import gzip
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import exported
import pyarrow.compute as pc
import pytest
from neuronpedia_fields import faults

from builders.errors import UserError
from builders.explainers.explanations import EXPLANATIONS
from builders.explainers.imported import read
from builders.exports import neuronpedia_import as back
from builders.exports import neuronpedia_records as records
from builders.exports.export import export
from builders.exports.files import BATCH, batches_of, read_batches, write_batches
from builders.exports.rows import latent_rows
from builders.scorers.judgements import SCORES

if TYPE_CHECKING:
    from pathlib import Path

    from builders.releases.release import Release

TOLD = ["default", "lexical"]  # the explainers whose explanations travel
SOURCE = records.Source("lab", f"1-{exported.SAE}")
KINDS = ("features", "activations", "explanations", "scores")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Return a small release."""
    return exported.write(tmp_path / "release")


@pytest.fixture
def folder(release: Release, tmp_path: Path) -> Path:
    """Return the folder of one dictionary of the exported release."""
    export(release, "neuronpedia", tmp_path / "out")
    return tmp_path / "out/v1/lab" / SOURCE.id


def digest(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file below *root*."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_layout(folder: Path) -> None:
    """A folder for each source holds its four heads and batches of its records; names that all sources share lie in config."""
    root = folder.parents[2]

    assert sorted(path.name for path in (root / "v1/lab").iterdir()) == ["1-toy-l1-top", "2-toy-l2-top", "e-toy-rules"]
    assert list(digest(folder)) == [
        *(f"{name}/batch-0.jsonl.gz" for name in ("activations", "explanations", "features")),
        *("model.jsonl", "release.jsonl", "scores/batch-0.jsonl.gz", "source.jsonl", "sourceset.jsonl"),
    ]
    assert sorted(path.stem for path in (root / "v1/config").iterdir()) == sorted(
        ["explanation_type", "explanation_model_type", "explanation_score_type", "explanation_score_model"]
    )
    assert not (root / "v1/lab/2-toy-l2-top/scores").exists()


def test_records_have_the_fields_that_are_taken(folder: Path) -> None:
    """Every record has every field that it must have, no other field than there are, and each value is of the field's type."""
    heads = [folder / f"{name}.jsonl" for name in ("release", "model", "sourceset", "source")]
    found = [(path.stem, record) for path in (*heads, *(folder.parents[1] / "config").iterdir()) for record in back.read_lines(path)]
    found += [(kind, record) for kind in KINDS for record in read_batches(folder / kind)]

    assert {kind for kind, _ in found} >= {"release", "model", "sourceset", "source", "explanation_score_type", *KINDS}
    assert [(kind, fault) for kind, record in found for fault in faults(kind, record)] == []


def test_lines_of_a_file_have_the_same_fields(folder: Path) -> None:
    """Neuronpedia takes the columns of a file from its first line."""
    for kind in KINDS:
        assert len({tuple(record) for record in read_batches(folder / kind)}) == 1


def test_what_records_refer_to_is_there(folder: Path) -> None:
    """Types, models and explanations that records name are in their lists, and ids are unique."""
    lists = {path.stem: {line["name"] for line in back.read_lines(path)} for path in (folder.parents[1] / "config").iterdir()}
    found = {kind: list(read_batches(folder / kind)) for kind in KINDS}

    assert {record["typeName"] for record in found["explanations"]} == lists["explanation_type"]
    assert {record["explanationModelName"] for record in found["explanations"]} - {None} == lists["explanation_model_type"]
    assert {record["explanationScoreTypeName"] for record in found["scores"]} == lists["explanation_score_type"]
    assert {record["explanationScoreModelName"] for record in found["scores"]} == lists["explanation_score_model"]
    assert {record["explanationId"] for record in found["scores"]} <= {record["id"] for record in found["explanations"]}
    ids = [record["id"] for kind in KINDS[1:] for record in found[kind]]
    assert len(set(ids)) == len(ids)
    assert {len(name) for name in ids} == {25}


def test_a_score_travels_with_its_error(folder: Path) -> None:
    """Standard error, chance level, failures and negatives lie in the details of the score."""
    first = next(read_batches(folder / "scores"))
    details = json.loads(first["jsonDetails"])

    assert (first["value"], first["explanationScoreTypeName"], first["explanationScoreModelName"]) == (
        0.1 + 0.2,
        "interplake_detection",
        "judge/model",
    )
    assert {name: details[name] for name in ("score_se", "chance", "n", "n_failed", "negatives", "unit")} == {
        "score_se": 1 / 3,
        "chance": 0.5,
        "n": 4,
        "n_failed": 1,
        "negatives": "pool",
        "unit": "balanced accuracy",
    }


def test_all_rows_that_fit_come_back(release: Release, folder: Path) -> None:
    """Explanations with a text and their scores are the release's rows, column by column; so is the row of the dictionary."""
    of = (pc.field("sae") == exported.SAE) & pc.field("explainer").isin(TOLD)
    explained = exported.own_rows(release, EXPLANATIONS, of & pc.field("text").is_valid())

    assert back.explanations_of(folder).equals(explained)
    assert back.scores_of(folder).equals(exported.own_rows(release, SCORES, of & pc.field("score").is_valid()))
    assert back.dictionary_of(folder) == release.read("saes", filters=pc.field("sae") == exported.SAE).to_pylist()[0]


def test_windows_and_latents_come_back(release: Release, folder: Path) -> None:
    """Windows in which the latent fires have the release's tokens, values and places; every latent has its density and tokens."""
    named = ["sae", "latent", "split", "example", "kind", "quantile", "row", "start"]
    fires = (pc.field("sae") == exported.SAE) & (pc.field("kind") == "activating")
    expected = []
    for row in release.read("contexts", filters=fires).to_pylist():
        told = {"pieces": [exported.PIECES[token] for token in row["tokens"]], "activations": [round(v, 6) for v in row["activations"]]}
        expected.append({name: row[name] for name in named} | told)
    latents = release.read("latents", ["sae", "latent", "density", "max", "promotes", "suppresses"], pc.field("sae") == exported.SAE)

    assert list(back.windows_of(folder)) == expected
    assert list(back.latents_of(folder)) == latents.to_pylist()


def test_export_import_export_changes_no_byte(release: Release, folder: Path, tmp_path: Path) -> None:
    """What comes back, written again, is the same files; so are those of a second export."""
    again = tmp_path / "again"
    ids = {piece: token for token, piece in enumerate(exported.PIECES)}
    windows: list[dict[str, Any]] = [row | {"tokens": [ids[piece] for piece in row["pieces"]]} for row in back.windows_of(folder)]
    firing = {row["latent"]: fires for row, fires in latent_rows(release, exported.SAE)}  # the histogram is not in `latents`
    write_batches(again / "explanations", map(partial(records.explanation, SOURCE), back.explanations_of(folder).to_pylist()))
    write_batches(again / "scores", map(partial(records.score, SOURCE), back.scores_of(folder).to_pylist()))
    write_batches(again / "features", (records.feature(SOURCE, row, firing[row["latent"]]) for row in back.latents_of(folder)))
    write_batches(again / "activations", (records.activation(SOURCE, row, exported.np_pieces()) for row in windows))
    export(release, "neuronpedia", tmp_path / "second")

    assert digest(again) == {name: data for name, data in digest(folder).items() if "/" in name}
    assert digest(tmp_path / "second") == digest(folder.parents[2])


def test_batches_hold_1024_records_and_no_time(tmp_path: Path) -> None:
    """Record 1,024 opens the next file, batches are read in order of their number, and gzip notes neither name nor time."""
    write_batches(tmp_path, ({"n": n} for n in range(10 * BATCH + 1)))
    paths = batches_of(tmp_path)

    assert [path.name for path in paths] == [f"batch-{n}.jsonl.gz" for n in range(11)]
    assert [record["n"] for record in read_batches(tmp_path)] == list(range(10 * BATCH + 1))
    assert gzip.decompress(paths[10].read_bytes()) == b'{"n":10240}\n'
    assert paths[0].read_bytes()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def test_explanations_serve_as_an_explainer(folder: Path) -> None:
    """An export of one explainer is read by the explainer of kind import, from the source's folder, its explanations, or one batch."""
    lexical = [record for record in read_batches(folder / "explanations") if record["typeName"] == "interplake_lexical"]
    write_batches(folder / "explanations", lexical)
    made = {0: exported.TEXTS[0], 1: exported.TEXTS[1]}

    for path in (folder, folder / "explanations", folder / "explanations/batch-0.jsonl.gz"):
        assert read(path, exported.SAE, 3) == made


def test_theirs_come_back_without_our_notes(folder: Path) -> None:
    """An explanation that Neuronpedia exported has no notes; its explainer is its type, and it becomes a valid row."""
    theirs = {"id": "c1", "modelId": "gpt2-small", "layer": "6-res-jb__32k", "index": "7", "authorId": "c2", "description": "verbs"}
    write_batches(
        folder / "explanations", [{**theirs, "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini", "embedding": None}]
    )
    (row,) = back.explanations_of(folder).to_pylist()

    assert {name: value for name, value in row.items() if value is not None} == {
        "sae": "res-jb",
        "latent": 7,
        "explainer": "oai_token-act-pair",
        "sample": 0,
        "status": "ok",
        "text": "verbs",
        "source_latent": 7,
        "engine": "import",
        "model": "gpt-4o-mini",
    }


def test_a_damaged_batch_is_one_line(folder: Path) -> None:
    """A batch that is cut off, no gzip, no JSON, no object, short of a field or told twice is named, with the line or record."""
    path = folder / "explanations/batch-0.jsonl.gz"
    whole = path.read_bytes()
    first = gzip.decompress(whole).splitlines()[0]
    bad = {
        r"cannot be read after line 0 \(Compressed file ended": whole[: len(whole) // 2],
        r"cannot be read after line 0 \(Not a gzipped file": b"plain",
        r"cannot be read after line 2": gzip.compress(first + b"\nice\n"),
        r"line 1 is no JSON object": gzip.compress(b"[1]\n"),
        r"record 2 cannot be read \(KeyError\('modelId'\)\)": gzip.compress(first + b'\n{"index": "1"}\n'),
        r"make no explanations \(explanations: key does not rise": gzip.compress(first + b"\n" + first + b"\n"),
    }
    for words, data in bad.items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=words) as caught:
            back.explanations_of(folder)
        assert "\n" not in str(caught.value)
        assert str(folder / "explanations") in str(caught.value) or str(folder) in str(caught.value)


def test_a_folder_without_sources_is_one_line(folder: Path, tmp_path: Path) -> None:
    """Sources are found below the folder that holds v1; any other folder is refused."""
    assert [path.name for path in back.sources_of(folder.parents[2])] == ["1-toy-l1-top", "2-toy-l2-top", "e-toy-rules"]
    with pytest.raises(UserError, match="give the folder that holds v1"):
        back.sources_of(folder)
