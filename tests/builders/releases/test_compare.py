"""What differs between two releases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hub import TAG, ask, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known import SCORE, TABLES, release_of, whole
from rows import rows_of

from builders.lake.shards import write_parquet
from builders.lake.table import Column
from builders.releases.compare import ExplanationChange, Names, compare
from builders.releases.hub import fetch_release
from builders.releases.release import Release, open_release, write_contents
from builders.releases.rows import RowCounts, changed_rows, taken
from pipelines.cli import main

SHARD = "train-00000-of-00001.parquet"


def diffed(*arguments: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of `interplake diff`."""
    said = CliRunner().invoke(main, ["diff", *arguments])
    return said.exit_code, said.stdout, said.stderr


def two(tmp_path: Path) -> tuple[Release, Release]:
    """Return a release and its next version: a second dictionary, another text, one score more and one that fell, a latent less."""
    before = whole(
        scores=[{**SCORE, "latent": 1, "score": 0.7}],
        explanations=[{"sae": "one", "latent": 1, "explainer": "words", "source_latent": 1, "text": "dogs"}],
    )
    after = whole(
        scores=[{**SCORE, "latent": 1, "score": 0.6}, {**SCORE, "sae": "two", "latent": 0, "score": 0.9}],
        explanations=[
            {"sae": "one", "latent": 1, "explainer": "words", "source_latent": 1, "text": "dogs | `bark`\n\x1b[31mloudly"},
            {"sae": "two", "latent": 0, "explainer": "words", "source_latent": 0, "text": "birds"},
        ],
        saes=[{"sae": "two", "subject": "lab", "kind": "trained"}],
    )
    del after["activations"], after["latents"][1]
    return release_of(tmp_path / "a", before), release_of(tmp_path / "b", after, "1.1.0")


def test_what_differs_is_counted_by_key(tmp_path: Path) -> None:
    """Files, configs, dictionaries, and rows by key; a config whose files are the same to the byte has no rows that differ."""
    found = compare(*two(tmp_path))

    assert (found.name, found.before, found.after, found.disjoint) == ("small", "1.0.0", "1.1.0", False)
    changed = ("README.md", *(f"{name}/{SHARD}" for name in ("explanations", "latents", "saes", "scores")))
    assert found.files == Names((), (f"activations/{SHARD}",), changed, 4)
    assert found.configs == Names((), ("activations",), ("scores", "explanations", "latents", "saes"), 4)
    assert found.dictionaries == Names(("two",), (), (), 1)
    counts = {table.name: table.rows for table in found.tables}
    assert counts.pop("scores") == RowCounts(added=1, removed=0, changed=1)
    assert counts.pop("explanations") == RowCounts(added=1, removed=0, changed=1)
    assert counts.pop("latents") == RowCounts(added=0, removed=1, changed=0)
    assert counts.pop("saes") == RowCounts(added=1, removed=0, changed=0)
    assert set(counts.values()) == {RowCounts(0, 0, 0)}
    scores = found.tables[0]
    assert (scores.rows_before, scores.rows_after) == (3, 4)
    assert [row["sae"] for row in scores.examples.added] == ["two"]
    assert [row["latent"] for row in scores.examples.changed] == [1]


def test_both_texts_of_a_changed_explanation_are_told(tmp_path: Path) -> None:
    """An explanation that is new is a row, not a change."""
    (change,) = compare(*two(tmp_path)).explanations

    assert change == ExplanationChange("one", 1, "words", "dogs", "dogs | `bark`\n\x1b[31mloudly")


def test_scores_of_the_same_latents_are_compared_in_pairs(tmp_path: Path) -> None:
    """Shift, error and counts are those of after − before of matched scores; a score without counterpart does not count."""
    latents = range(6)
    before, after = [0.5, 0.5, 0.5, 0.5, 0.5, 0.25], [0.625, 0.75, 0.5, 0.875, 1.0, 0.0]
    releases = []
    for name, scores in (("a", before), ("b", [*after, 0.9])):
        rows = [{**SCORE, "latent": latent, "score": score} for latent, score in enumerate(scores)]
        saes = [{"sae": "one", "subject": "lab", "kind": "trained"}]
        releases.append(release_of(tmp_path / name, {"scores": rows, "saes": saes}))

    whole_, kind = compare(*releases).scores

    assert (whole_.kind, kind.kind) == ("all", "trained")
    assert replace(whole_, kind="trained") == kind
    assert (kind.n, kind.up, kind.down) == (len(latents), 4, 1)
    assert kind.before == pytest.approx(2.75 / 6)
    assert kind.shift == pytest.approx(1 / 6)
    # differences .125 .25 0 .375 .5 -.25: the sum of their squares is .53125, the square of their sum 1
    assert kind.se == pytest.approx(((0.53125 - 1 / 6) / (5 * 6)) ** 0.5)
    # ranks without the zero: .125 → 1, .25 and -.25 → 2.5, .375 → 4, .5 → 5; of 32 choices of signs, 4 let the falls sum to at most 2.5,
    # and 4 the rises
    assert kind.p == pytest.approx(8 / 32)


def test_scores_that_have_not_moved_have_no_p(tmp_path: Path) -> None:
    """A file that differs in another column has shifts of zero and no test; of one score there is no error."""
    rows = {"scores": [{**SCORE, "latent": 0, "score": 0.5, "n": 4}], "saes": [{"sae": "one", "kind": "trained"}]}
    a = release_of(tmp_path / "a", rows)
    rows["scores"][0]["n"] = 5

    (row, _) = compare(a, release_of(tmp_path / "b", rows)).scores

    assert (row.n, row.shift, row.se, row.p, row.up, row.down) == (1, 0.0, None, None, 0, 0)


def test_the_first_release_is_all_new(tmp_path: Path) -> None:
    """Without a release before, everything is added and nothing compared."""
    b = release_of(tmp_path / "b", whole())

    found = compare(None, b)

    assert found.before is None
    assert found.files.added == tuple(sorted(b.files))
    assert found.configs == Names(tuple(sorted(b.tables)))
    assert found.rows_after["latents"] == 2
    assert (found.dictionaries.added, found.tables, found.disjoint) == (("one",), (), False)


def test_releases_of_different_dictionaries_have_nothing_in_common(tmp_path: Path) -> None:
    """It is said in one sentence, rows count as added and removed, and no score has a counterpart."""
    a = release_of(tmp_path / "a", whole())
    rows = whole()
    for name in rows:
        rows[name] = [{**row, **({"sae": "other"} if "sae" in row else {})} for row in rows[name]]

    found = compare(a, release_of(tmp_path / "b", rows, "2.0.0"))
    code, said, _ = diffed(str(tmp_path / "a"), str(tmp_path / "b"))

    assert found.disjoint
    assert found.scores == found.explanations == ()
    assert {table.name: table.rows for table in found.tables}["latents"] == RowCounts(2, 2, 0)
    assert code == 0
    assert "**No dictionary is in both releases,**" in said


def test_a_schema_change_is_told_by_column(tmp_path: Path) -> None:
    """A column that is new, gone, or has another type, unit or nulls; of the rows, the columns of both releases are compared."""
    latents = TABLES["latents"]
    changed = {
        "count": Column("count", "int32", "", unit="tokens", low=0),
        "density": Column("density", "float64", "", unit="per million"),
        "status": Column("status", "string", "", nullable=True),
        "max": Column("max", "float32", "another word for it", nullable=True),
    }
    columns = (*(changed.get(column.name, column) for column in latents.columns if column.name != "mean"), Column("new", "bool", ""))
    rows = {"latents": [{"sae": "one", "latent": 0, "status": "alive"}]}
    a = release_of(tmp_path / "a", rows)

    (table,) = compare(a, release_of(tmp_path / "b", rows, tables={"latents": replace(latents, columns=columns)})).tables

    assert (table.schema.added, table.schema.removed, table.schema.changed) == (("new",), ("mean",), ("count", "density", "status"))
    assert table.changes == ("status: null never → allowed", "count: type int64 → int32", "density: unit none → per million")
    assert table.rows == RowCounts(0, 0, 0)


def test_scores_and_texts_whose_columns_are_gone_are_not_compared(tmp_path: Path) -> None:
    """Releases of before there was a text or a unit can be compared in all else."""
    rows = {name: whole()[name] for name in ("scores", "explanations", "saes")}
    tables = {
        name: replace(TABLES[name], columns=tuple(column for column in TABLES[name].columns if column.name not in {"text", "unit"}))
        for name in ("scores", "explanations")
    }
    bare = {name: [{k: v for k, v in row.items() if k not in {"text", "unit"}} for row in held] for name, held in rows.items()}
    a = release_of(tmp_path / "a", bare, tables=tables)
    rows["explanations"][0]["status"] = "other"

    found = compare(a, release_of(tmp_path / "b", rows, "1.1.0"))

    assert (found.explanations, found.scores) == ((), ())
    assert {table.name: table.schema.added for table in found.tables} == {"scores": ("unit",), "explanations": ("text",), "saes": ()}
    assert [table.rows for table in found.tables] == [RowCounts(0, 0, 0), RowCounts(0, 0, 1), RowCounts(0, 0, 0)]


def test_rows_with_another_key_are_not_matched(tmp_path: Path) -> None:
    """The change of the key is told, and rows have no counts."""
    rows = {"latents": [{"sae": "one", "latent": 0}]}
    a = release_of(tmp_path / "a", rows)

    (table,) = compare(a, release_of(tmp_path / "b", rows, tables={"latents": replace(TABLES["latents"], key=("latent", "sae"))})).tables

    assert (table.key, table.rows) == ((("sae", "latent"), ("latent", "sae")), None)


def test_the_command_prints_a_page_and_writes_json(tmp_path: Path) -> None:
    """Texts cannot leave their place in the page, whatever they hold; the JSON has them as they are."""
    two(tmp_path)

    code, said, _ = diffed(str(tmp_path / "a"), str(tmp_path / "b"), "--json", str(tmp_path / "d.json"))

    found = json.loads((tmp_path / "d.json").read_text())
    assert code == 0
    assert said.startswith(
        "# small 1.0.0 → 1.1.0\n\nIt is a **major** change: the next version is at least 2.0.0. Files: 0 added, 1 removed, "
    )
    assert "\n| major | config activations removed |\n" in said
    assert "\n- added: two\n- the same: 1\n" in said
    assert "\n| latents | 2 | 1 | 0 | 1 | 0 | removed: `one, 1` |\n" in said
    assert "\n| all | detection | words | 2 | 0.6 | 0.55 | -0.0500 ± 0.0500 | 1 | 0 | 1 |\n" in said
    assert "\n    - before: `dogs`\n    - after: `dogs ¦ ˋbarkˋ\\n\\x1b[31mloudly`\n" in said
    assert found["explanations"] == [
        {"sae": "one", "latent": 1, "explainer": "words", "before": "dogs", "after": "dogs | `bark`\n\x1b[31mloudly"}
    ]
    assert found["tables"][0]["rows"] == {"added": 1, "removed": 0, "changed": 1}


def test_the_same_release_twice_differs_in_nothing(tmp_path: Path) -> None:
    """The page says so in one sentence."""
    release_of(tmp_path / "a", whole())

    assert diffed(str(tmp_path / "a"), str(tmp_path / "a")) == (0, "# small 1.0.0 → 1.0.0\n\nBoth releases are the same.\n", "")


def test_of_many_explanations_the_first_are_shown(tmp_path: Path) -> None:
    """Ten of twelve are shown, and all with --all."""
    for name in "ab":
        rows = [{"sae": "one", "latent": latent, "explainer": "words", "text": f"{name}{latent}"} for latent in range(12)]
        release_of(tmp_path / name, {"explanations": rows})

    _, few, _ = diffed(str(tmp_path / "a"), str(tmp_path / "b"))
    _, every, _ = diffed(str(tmp_path / "a"), str(tmp_path / "b"), "--all")

    assert (few.count("before: "), every.count("before: ")) == (10, 12)
    assert "12 in all; here are the first 10, and `--all` shows the others." in few


def test_a_release_on_the_hub_is_read_as_far_as_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only release.json and files whose hash differs are downloaded, once; a tag names the release as a folder would."""
    a, b = two(tmp_path)
    a.root.rename(tmp_path / "owner-a")
    (tmp_path / "hub/owner").mkdir(parents=True)
    (tmp_path / "owner-a").rename(tmp_path / "hub/owner/data")
    with serving(tmp_path / "hub") as hub:
        ask(hub.endpoint, tmp_path, monkeypatch)
        code, said, _ = diffed(f"owner/data@{TAG}", str(b.root), "--endpoint", hub.endpoint)
        downloads, _ = hub.downloads, hub.forget()
        fetched = fetch_release("owner/data", TAG, hub.endpoint, configs=["tokens"])
        more = hub.downloads

    assert code == 0
    assert said.startswith("# small 1.0.0 → 1.1.0\n")
    differing = {f"owner/data/{name}/{SHARD}" for name in ("explanations", "latents", "saes", "scores")}
    assert set(downloads) == {"owner/data/release.json"} | differing
    assert len(downloads) == 5
    assert more == [f"owner/data/tokens/{SHARD}"]
    assert fetched.read("tokens").num_rows == 2


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("owner/none@v1.0.0", "owner/none@v1.0.0: no such repository on the Hub, or a private one; correct its name, or run"),
        ("owner/data@v9.0.0", "the repository has no such commit; name one of its tags, such as owner/data@v1.0.0"),
        ("owner/empty@v1.0.0", "owner/empty@v1.0.0: holds no release.json, so it is no whole release of interplake; name another revision"),
        ("nowhere", "nowhere: holds no release.json, so it is no release"),
    ],
)
def test_a_place_without_release_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str) -> None:
    """An unknown repository, tag or folder, and a repository that holds no release, end the command with 2."""
    b = release_of(tmp_path / "b", whole())
    release_of(tmp_path / "hub/owner/data", whole())
    (tmp_path / "hub/owner/empty").mkdir()
    with serving(tmp_path / "hub") as hub:
        ask(hub.endpoint, tmp_path, monkeypatch)
        code, _, error = diffed(place, str(b.root), "--endpoint", hub.endpoint)

    assert (code, error.count("\n")) == (2, 1)
    assert said in error


def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names what could not be fetched, and what to do without the Hub."""
    release_of(tmp_path / "b", whole())
    ask("http://127.0.0.1:9", tmp_path, monkeypatch)

    code, _, error = diffed("owner/data@v1.0.0", str(tmp_path / "b"), "--endpoint", "http://127.0.0.1:9")

    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: cannot fetch owner/data@v1.0.0: ")
    assert error.endswith("; offline, name a folder instead\n")


ROW = st.fixed_dictionaries({"truth": st.none() | st.text(max_size=2), "top_shares": st.lists(st.sampled_from([0.0, 0.5]), max_size=2)})
RELEASE = st.dictionaries(st.tuples(st.sampled_from(["one", "two"]), st.integers(0, 4)), ROW, min_size=1)


def written(root: Path, rows: dict[tuple[str, int], dict[str, Any]], cut: int) -> Release:
    """Write a release of latents in two files, the second of which begins after *cut* rows."""
    table = TABLES["latents"]
    whole_ = rows_of(table, *({"sae": sae, "latent": latent, **row} for (sae, latent), row in rows.items()))
    for number, part in enumerate((whole_.slice(0, cut), whole_.slice(cut))):
        if part.num_rows:
            write_parquet(root / f"latents/train-{number:05d}-of-00002.parquet", table, [part])
    write_contents(root, "small", "1.0.0", [table])
    return open_release(root)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RELEASE, RELEASE, st.integers(0, 9), st.integers(0, 9))
def test_rows_that_differ_make_the_later_release_of_the_earlier(
    tmp_path_factory: pytest.TempPathFactory, before: Any, after: Any, cut_a: int, cut_b: int
) -> None:
    """Without the removed and changed rows, and with the added and changed ones of the later release, the earlier one is the later one."""
    tmp_path = tmp_path_factory.mktemp("releases")
    a, b = written(tmp_path / "a", before, cut_a), written(tmp_path / "b", after, cut_b)

    found = changed_rows(a, b, "latents")

    def keys(release: Release, wanted: Any) -> set[tuple[str, int]]:
        rows = taken(release, "latents", wanted, ["sae", "latent"]).to_pydict()
        return set(zip(rows["sae"], rows["latent"], strict=True))

    gone, other, new = keys(a, found.removed), keys(b, found.changed), keys(b, found.added)
    assert gone == before.keys() - after.keys()
    assert new == after.keys() - before.keys()
    assert {key: row for key, row in before.items() if key not in gone | other} | {key: after[key] for key in new | other} == after
    assert other == keys(a, found.changed) == {key for key in before.keys() & after.keys() if before[key] != after[key]}
