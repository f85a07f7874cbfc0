"""What a difference demands of the next version, and what the changelog tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from known import SCORE, TABLES, release_of, whole

from builders.errors import UserError
from builders.lake.table import Column, Table
from builders.releases.changelog import changelog
from builders.releases.compare import Difference, compare
from builders.releases.versions import Level, next_version, require_version, required

TABLE = TABLES["latents"]


def without(*names: str) -> tuple[Column, ...]:
    """Return the columns of `latents` without some."""
    return tuple(column for column in TABLE.columns if column.name not in names)


def changed(name: str, **facts: Any) -> dict[str, Table]:
    """Return `latents` with other facts about one of its columns."""
    return {"latents": replace(TABLE, columns=tuple(replace(c, **facts) if c.name == name else c for c in TABLE.columns))}


ROWS = whole()
CASES: dict[str, tuple[Level, dict[str, Any], dict[str, Table]]] = {
    "config removed": (Level.MAJOR, {name: rows for name, rows in ROWS.items() if name != "activations"}, {}),
    "dictionary removed": (Level.MAJOR, ROWS | {"saes": [{"sae": "two", "subject": "lab"}]}, {}),
    "column removed": (Level.MAJOR, ROWS, {"latents": replace(TABLE, columns=without("truth"))}),
    "type": (Level.MAJOR, ROWS, changed("count", dtype="int32")),
    "unit": (Level.MAJOR, ROWS, changed("count", unit="sequences")),
    "nulls allowed": (Level.MAJOR, ROWS, changed("density", nullable=True)),
    "key": (Level.MAJOR, ROWS, {"latents": replace(TABLE, key=("latent", "sae"))}),
    "config added": (Level.MINOR, ROWS | {"failures": [{"sae": "one", "latent": 0}]}, {}),
    "dictionary added": (Level.MINOR, whole(saes=[{"sae": "two", "subject": "lab"}]), {}),
    "column added": (Level.MINOR, ROWS, {"latents": replace(TABLE, columns=(*TABLE.columns, Column("new", "bool", "")))}),
    "rows added": (Level.MINOR, whole(scores=[{**SCORE, "latent": 5}]), {}),
    "rows removed": (Level.MINOR, ROWS | {"contexts": ROWS["contexts"][:2]}, {}),
    "nulls no longer allowed": (Level.PATCH, ROWS, changed("truth", nullable=False)),
    "meaning in other words": (Level.PATCH, ROWS, changed("count", doc="other words")),
    "value": (Level.PATCH, ROWS | {"scores": [{**row, "score": 0.25} for row in ROWS["scores"]]}, {}),
}


@pytest.mark.parametrize(("level", "rows", "tables"), CASES.values(), ids=CASES)
def test_what_a_change_demands(tmp_path: Path, level: Level, rows: Any, tables: Any) -> None:
    """What breaks readers' code is major, what is new or gone among rows is minor, and other values are a patch."""
    a = release_of(tmp_path / "a", ROWS)

    assert required(compare(a, release_of(tmp_path / "b", rows, tables=tables))) is level


def test_the_next_version() -> None:
    """From 1.0.0 on each level has its number; below, the minor number plays the major's part."""
    assert [next_version("1.2.3", level) for level in Level] == [(1, 2, 4), (1, 3, 0), (2, 0, 0)]
    assert [next_version("0.2.3", level) for level in Level] == [(0, 2, 4), (0, 2, 4), (0, 3, 0)]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "1.0.0",
            "1.1.0",
            "schema change since 1.0.0 (latents: column truth removed) needs at least 2.0.0; release.version in params.yaml is 1.1.0: "
            "set it to 2.0.0 and run `dvc repro`",
        ),
        ("0.1.0", "0.1.1", "schema change since 0.1.0 (latents: column truth removed) needs at least 0.2.0; release.version in"),
        (
            "1.10.0",
            "1.9.0",
            "release.version in params.yaml is 1.9.0, and 1.10.0 is released already; set a higher version and run `dvc repro`",
        ),
        ("1.0.0", "1.0.0", "release.version in params.yaml is 1.0.0, and 1.0.0 is released already; set a higher version"),
    ],
)
def test_a_version_that_is_too_low_is_refused(tmp_path: Path, before: str, after: str, said: str) -> None:
    """A version says what the change demands at least; numbers are compared as numbers."""
    a = release_of(tmp_path / "a", ROWS, before)
    b = release_of(tmp_path / "b", ROWS, after, {"latents": replace(TABLE, columns=without("truth"))})

    with pytest.raises(UserError) as error:
        require_version(a, b, compare(a, b))

    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_minor_change_needs_a_minor_version(tmp_path: Path) -> None:
    """Two changes of the level are told as one and another; the version that is asked for, and any above it, passes."""
    rows = whole(failures=[{"sae": "one", "latent": 0}], saes=[{"sae": "two", "subject": "lab"}])
    a, b = release_of(tmp_path / "a", ROWS), release_of(tmp_path / "b", rows, "1.0.1")
    found = compare(a, b)

    with pytest.raises(UserError, match=r"^change since 1\.0\.0 \(config failures added and \d+ more\) needs at least 1\.1\.0; "):
        require_version(a, b, found)
    require_version(a, replace(b, version="1.1.0"), found)
    require_version(a, replace(b, version="3.0.0"), found)
    require_version(None, b, compare(None, b))


def releases(tmp_path: Path) -> tuple[Difference, Difference]:
    """Return the difference that a first release is, and that to a second one."""
    rows = whole(saes=[{"sae": "two", "subject": "lab", "kind": "trained"}], failures=[{"sae": "one", "latent": 0}])
    rows["scores"][0]["score"] = 0.75
    rows["explanations"][0]["text"] = "dogs"
    tables = {"latents": replace(TABLE, columns=(*without("truth"), Column("new", "bool", "")))}
    a, b = release_of(tmp_path / "a", whole()), release_of(tmp_path / "b", rows, "2.0.0", tables)
    return compare(None, a), compare(a, b)


def test_the_changelog_grows_from_differences(tmp_path: Path) -> None:
    """The newest version stands first; the same differences give the same text."""
    first, second = releases(tmp_path)
    before = changelog(first, date="2026-11-30")

    text = changelog(second, before)

    assert text == (
        "# Changelog\n\nWhat each version of this dataset changed since the one before, as `interplake diff` finds it.\n\n"
        "## 2.0.0\n\n"
        "- **Breaking:** latents: column truth removed.\n"
        "- New dictionaries: `two`.\n"
        "- New configs: `failures`.\n"
        "- New columns of `latents`: `new`.\n"
        "- Rows of `scores`: 1 changed; now 2.\n"
        "- Rows of `explanations`: 1 changed; now 1.\n"
        "- Rows of `saes`: 1 added; now 2.\n"
        "- Explanations with another text: 1.\n"
        "- Scores by `detection` of explanations by `words`: mean x 0.500 → 0.750 over 1 scores.\n"
        "- Files: 1 added, 0 removed, 5 changed, 5 the same.\n\n"
        "## 1.0.0 (2026-11-30)\n\n"
        f"- First release: 9 configs with 15 rows, {first.bytes_after / 1e6:.1f} MB.\n"
        "- Dictionaries: `one`.\n"
    )
    assert changelog(second, before) == text


def test_an_entry_of_the_same_version_gives_way(tmp_path: Path) -> None:
    """Publishing that is tried again writes its entry once."""
    first, second = releases(tmp_path)
    text = changelog(second, changelog(first))

    assert changelog(second, text) == text
