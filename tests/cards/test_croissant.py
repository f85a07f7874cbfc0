"""Croissant: what mlcroissant, the reference reader, makes of a release's description."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import mlcroissant
import pytest
from carded import HOSTILE, carded

from builders.releases.release import Release

# What mlcroissant and its own libraries call for is theirs to mend.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in ("ConjunctiveGraph is deprecated", "The inplace keyword")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Return the tiny release with its card."""
    return carded(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def described(tiny: Release) -> dict[str, Any]:
    """Return its croissant.json."""
    found: dict[str, Any] = json.loads((tiny.root / "croissant.json").read_text(encoding="utf-8"))
    return found


def opened(release: Release) -> mlcroissant.Dataset:
    """Return the release as mlcroissant opens it, from its own folder."""
    return mlcroissant.Dataset(jsonld=release.root / "croissant.json")


def test_the_reference_reader_finds_no_mistake(tiny: Release) -> None:
    """It is valid Croissant 1.1; the only thing that is recommended and absent is a date, which no rebuild could repeat."""
    issues = opened(tiny).metadata.ctx.issues

    assert issues.errors == set()
    assert [warning.rsplit('"', 2)[1] for warning in issues.warnings] == ["https://schema.org/datePublished"]


@pytest.mark.parametrize("config", ["browse", "scores", "vectors", "embeddings", "failures"])
def test_records_are_read_from_the_folder(tiny: Release, config: str) -> None:
    """Every record of a config is read, whatever it refers to, with the values of its columns."""
    records = list(opened(tiny).records(config))

    expected = tiny.read(config)
    assert len(records) == expected.num_rows
    assert set(records[0]) == {f"{config}/{name}" for name in expected.column_names}


def test_values_are_those_of_the_tables(tiny: Release) -> None:
    """Text, numbers and lists come back as they are."""
    browse = next(iter(opened(tiny).records("browse")))
    vector = next(iter(opened(tiny).records("vectors")))

    assert browse["browse/explanation"].decode() == HOSTILE
    assert (browse["browse/latent"], browse["browse/score"]) == (0, 0.75)
    assert list(vector["vectors/encoder"]) == [0.5, 0.0]


def test_every_file_has_its_hash(tiny: Release, described: dict[str, Any]) -> None:
    """All parquet files are listed with size and SHA-256."""
    files = {entry["@id"]: entry for entry in described["distribution"] if entry["@type"] == "cr:FileObject"}

    assert set(files) == {path.relative_to(tiny.root).as_posix() for path in tiny.root.rglob("*.parquet")}
    for name, entry in files.items():
        data = (tiny.root / name).read_bytes()
        assert (entry["sha256"], entry["contentSize"]) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")


def test_columns_keys_and_references(described: dict[str, Any]) -> None:
    """A record set has its key, and fields have types, units, lengths, and references to keys of one column; longer ones are in words."""
    sets = {entry["@id"]: entry for entry in described["recordSet"]}
    fields = {field["@id"]: field for entry in sets.values() for field in entry["field"]}

    assert sets["vectors"]["key"] == [{"@id": "vectors/sae"}, {"@id": "vectors/latent"}]
    assert "Its `sae`, `latent` are `sae`, `latent` of `latents`." in sets["vectors"]["description"]
    assert fields["vectors/sae"]["references"] == {"field": {"@id": "biases/sae"}}
    assert "references" not in fields["vectors/latent"]
    assert (fields["vectors/encoder"]["dataType"], fields["vectors/encoder"]["arrayShape"]) == ("cr:Float32", "2")
    assert (fields["browse/contexts"]["dataType"], fields["browse/contexts"]["arrayShape"]) == ("sc:Text", "-1")
    assert fields["latents/count"]["description"] == "tokens on which it fires. Unit: tokens."
    assert fields["browse/score"]["description"].endswith("May be null.")


def test_responsible_ai_and_provenance(tiny: Release, described: dict[str, Any]) -> None:
    """Limits are those of the card, corpora that nobody searched are told, and what it was made from is named."""
    metadata = opened(tiny).metadata
    card = (tiny.root / "README.md").read_text(encoding="utf-8")

    assert all(f"- {limit}\n" in card for limit in metadata.data_limitations)
    assert metadata.personal_sensitive_information[0].startswith("topics: Nobody has searched its texts")
    assert metadata.machine_annotation_tools == ["asked (default)", "model (model)"]
    assert all((metadata.data_collection, metadata.data_biases, metadata.data_use_cases, metadata.data_social_impact))
    assert described["prov:wasDerivedFrom"] == ["files", "https://huggingface.co/org/lab/tree/abc"]
    assert described["prov:wasGeneratedBy"].startswith("interplake 0.1.0")
    assert metadata.cite_as.startswith("@misc{tiny,")
    assert (metadata.version, metadata.license[0], metadata.name) == ("1.0.0", "apache-2.0", "tiny")
