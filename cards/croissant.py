"""Croissant: the description of a release that machines read (JSON-LD of MLCommons), with its responsible-AI and provenance terms.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. A config is a record set, read from its parquet files; a file is listed
with its size and SHA-256. A reference to the key of another config is one of Croissant's where that key is one column, since Croissant has
none of several columns; those of several are told in the description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.lake.table import Column, Reference, Table
from cards.header import Part

FILE = "croissant.json"
SPECIFICATIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "binary": "sc:Text"}  # other types are called as Arrow calls them
PARQUET = "application/x-parquet"
TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
    *("format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references"),
    *("regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "prov": "http://www.w3.org/ns/prov#",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    **{term: f"cr:{term}" for term in TERMS},
}


def write(release: Path, parts: Sequence[Part], facts: Mapping[str, Any]) -> None:
    """Write croissant.json of the folder *release*, whose configs are *parts*.

    *facts* has `name`, `title`, `version`, `license`, `language`, `description`, `citation` and `creator` of the release, what it was
    `made_from` and `made_by`, and the responsible-AI terms by their names (`rai`).
    """
    tables = [part.table for part in parts]
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": SPECIFICATIONS,
        "name": facts["name"],
        "alternateName": facts["title"],
        "description": facts["description"],
        "version": facts["version"],
        "license": facts["license"],
        "inLanguage": list(facts["language"]),
        "keywords": ["interpretability", "sparse autoencoder", "explanations"],
        "citeAs": facts["citation"],
        "creator": {"@type": "sc:Organization", "name": facts["creator"]},
        "isLiveDataset": False,
        "prov:wasDerivedFrom": list(facts["made_from"]),
        "prov:wasGeneratedBy": facts["made_by"],
        **{f"rai:{term}": said for term, said in facts["rai"].items()},
        "distribution": [*_files(parts), *(_file_set(table) for table in tables)],
        "recordSet": [_record_set(table, {other.name: other.key for other in tables}) for table in tables],
    }
    (release / FILE).write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _files(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return every parquet file of the release, by its path within it."""
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name.rpartition("/")[2],
            "contentUrl": name,
            "contentSize": f"{file.bytes} B",
            "encodingFormat": PARQUET,
            "sha256": file.sha256,
        }
        for part in sorted(parts, key=lambda part: part.table.name)
        for name, file in part.files.items()
    ]


def _file_set(table: Table) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": f"{table.name}-files", "encodingFormat": PARQUET, "includes": f"{table.name}/*.parquet"}


def _record_set(table: Table, keys: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return a config; *keys* are those of all configs, to which it may refer."""
    known = [one for one in table.references if one.to in keys]
    single = {one.columns[0]: one for one in known if keys[one.to] == one.theirs and len(one.theirs) == 1}
    several = "".join(f" Its {_listed(one.columns)} are {_listed(one.theirs)} of `{one.to}`." for one in known if len(one.columns) > 1)
    return {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": f"One record is {table.row}.{several}",
        "key": [{"@id": f"{table.name}/{column}"} for column in table.key],
        "field": [_field(table, column, single.get(column.name)) for column in table.columns],
    }


def _field(table: Table, column: Column, reference: Reference | None) -> dict[str, Any]:
    unit, null = f" Unit: {column.unit}." if column.unit else "", " May be null." if column.nullable else ""
    return {
        "@type": "cr:Field",
        "@id": f"{table.name}/{column.name}",
        "name": column.name,
        "description": f"{column.doc}.{unit}{null}",
        "dataType": TYPES.get(column.element, f"cr:{column.element.capitalize()}"),
        **({"isArray": True, "arrayShape": str(column.length or -1)} if column.is_list else {}),
        "source": {"fileSet": {"@id": f"{table.name}-files"}, "extract": {"column": column.name}},
        **({"references": {"field": {"@id": f"{reference.to}/{reference.theirs[0]}"}}} if reference else {}),
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
