"""circuit-tracer's feature files: read by range as its pages read them, and back."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import exported
import pytest
from pydantic import BaseModel, ConfigDict

from builders.errors import UserError
from builders.exports.circuit_tracer import INDEX, read_records, write_records
from builders.exports.export import export

if TYPE_CHECKING:
    from pathlib import Path

SET = "toy-lx-top"


class Strict(BaseModel):
    """A model that takes its own fields only, of their own types only."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Example(Strict):
    """`Example` of circuit_tracer/frontend/feature_models.py in circuit-tracer 0.5.0."""

    tokens_acts_list: list[float]
    train_token_ind: int
    is_repeated_datapoint: bool
    tokens: list[str]


class ExamplesQuantile(Strict):
    """`ExamplesQuantile` of the same file."""

    quantile_name: str
    examples: list[Example]


class Feature(Strict):
    """`Model` of the same file."""

    transcoder_id: str
    index: int
    examples_quantiles: list[ExamplesQuantile]
    top_logits: list[str]
    bottom_logits: list[str]
    act_min: float
    act_max: float
    quantile_values: list[float]
    histogram: list[float]
    activation_frequency: float


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the set of both layers."""
    export(exported.write(tmp_path / "release"), "circuit-tracer", tmp_path / "out")
    return tmp_path / "out" / SET


def test_a_record_lies_where_the_index_says(folder: Path) -> None:
    """The range from a record's offset to the next one holds its length, and gzip of JSON with exactly the fields that are taken."""
    index = json.loads(gzip.decompress((folder / INDEX).read_bytes()))
    found: list[dict[str, Any]] = []
    for layer, entry in index.items():
        data = (folder / "features" / entry["filename"]).read_bytes()
        assert (entry["filename"], len(entry["offsets"]), entry["offsets"][0]) == (f"layer_{layer}.bin", 4, 0)
        assert entry["offsets"][-1] == len(data)
        for start, stop in zip(entry["offsets"], entry["offsets"][1:], strict=False):
            assert int.from_bytes(data[start : start + 4], "little") == stop - start - 4
            found.append(json.loads(gzip.decompress(data[start + 4 : stop])))

    assert sorted(index) == ["1", "2"]
    assert [(Feature(**record).transcoder_id, record["index"]) for record in found] == [
        (sae, latent) for sae in ("toy-l1-top", "toy-l2-top") for latent in range(3)
    ]


def test_a_record_shows_the_windows_of_the_release(folder: Path) -> None:
    """Quantiles come strongest first with the windows of both splits; the strongest token is marked, and numbers are the release's."""
    record = next(read_records(folder, 1))
    window = {"tokens_acts_list": [0.1, 0.4, 0.0, 0.0], "train_token_ind": 1, "is_repeated_datapoint": False, "tokens": exported.PIECES[:4]}
    weaker = {"tokens_acts_list": [0.0, 0.0, 0.3, 0.0], "train_token_ind": 2, "is_repeated_datapoint": False, "tokens": exported.PIECES[4:]}
    bins = {0.1: 12, 0.2: 25, 0.3: 37, 0.4: 49}  # of 50 between 0 and 0.4

    assert record["examples_quantiles"] == [
        {"quantile_name": "Top activations", "examples": [window, window]},
        {"quantile_name": "Quantile 2", "examples": [weaker, weaker]},
    ]
    assert [place for place, count in enumerate(record["histogram"]) for _ in range(count)] == list(bins.values())
    assert (record["act_min"], round(record["act_max"], 6), record["activation_frequency"]) == (0.0, 0.4, 0.1)
    assert (len(record["quantile_values"]), record["quantile_values"][0], record["quantile_values"][98]) == (99, 0.1, 0.3)
    assert (record["top_logits"], record["bottom_logits"]) == (["ice", "\n"], ["日本"])


def test_a_latent_that_never_fires_has_a_record(folder: Path) -> None:
    """Its first quantile is empty, so that a page shows nothing, and not the next latent."""
    (record,) = read_records(folder, 2, [2])

    assert (record["index"], record["act_max"], record["histogram"]) == (2, 0.0, [])
    assert record["examples_quantiles"] == [{"quantile_name": "Top activations", "examples": []}]


def test_records_written_again_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """What is read back gives the same file and the same offsets."""
    index = json.loads(gzip.decompress((folder / INDEX).read_bytes()))

    assert write_records(tmp_path / "again.bin", read_records(folder, 2)) == index["2"]["offsets"]
    assert (tmp_path / "again.bin").read_bytes() == (folder / "features/layer_2.bin").read_bytes()


def test_what_cannot_be_read_is_one_line(folder: Path) -> None:
    """Another layer, a latent too many, a file cut off and an index that is none are told with the folder."""
    with pytest.raises(UserError, match=r"index\.json\.gz: has no layer 7; it has 1, 2"):
        next(read_records(folder, 7))
    with pytest.raises(UserError, match=r"cannot be read .*; export them again"):
        list(read_records(folder, 1, [99]))
    path = folder / "features/layer_1.bin"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"cannot be read .*; export them again"):
        list(read_records(folder, 1))
    (folder / INDEX).write_bytes(b"{}")
    with pytest.raises(UserError, match=r"cannot be read .*; export them again"):
        list(read_records(folder, 2))
