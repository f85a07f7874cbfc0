"""What may not be published: each reason is one line with the next step, and nothing has been asked of the Hub by then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dataset_hub import DatasetHub
from published import TEXTS, Publish, commit, draft, release_of, repro
from releases import small_tables, write_release

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import file_sha256
from builders.releases.release import CONTENTS

CHANGED = {**TEXTS, "two": ["rivers", "seas"]}


def older_than_its_lake(lake: Path) -> None:
    """Make the lake anew, and not the release."""
    draft(lake, "1.0.1", small_tables(CHANGED))
    repro(lake, "scores")
    commit(lake)


def with_changed_params(lake: Path) -> None:
    """Change a param that every stage reads through its hash, and commit."""
    params = lake / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0", "seed: 1"))
    commit(lake)


def with_changed_corpus(lake: Path) -> None:
    """Change a file outside the graph's sight."""
    (lake / "text/one.txt").write_text("Another text, of another length.\n")
    commit(lake)


def uncommitted(lake: Path) -> None:
    """Change params in a way that no stage reads, and do not commit."""
    params = lake / "params.yaml"
    params.write_text(params.read_text() + "# a remark\n")


def edited(lake: Path) -> None:
    """Edit the release by hand."""
    card = lake / "build/release/README.md"
    card.write_text(card.read_text() + "more\n")


def emptied(lake: Path) -> None:
    """Make a release with a table without rows."""
    release_of(lake, "1.0.1", {**small_tables(TEXTS), EXPLANATIONS: EXPLANATIONS.empty()})


def damaged(lake: Path) -> None:
    """Make a release of which a file is not what release.json says."""
    draft(lake, "1.0.1", small_tables(TEXTS))
    contents = lake / "draft" / CONTENTS
    found = json.loads(contents.read_bytes())
    found["files"]["README.md"]["sha256"] = "0" * 64
    contents.write_text(json.dumps(found))
    repro(lake)
    commit(lake)


def renamed(lake: Path, old: str, new: str) -> None:
    """Make a release whose card has another name somewhere."""
    draft(lake, "1.0.1", small_tables(TEXTS))
    card, contents = lake / "draft/README.md", lake / "draft" / CONTENTS
    card.write_text(card.read_text().replace(old, new))
    found = json.loads(contents.read_bytes())
    found["files"]["README.md"] |= {"bytes": card.stat().st_size, "sha256": file_sha256(card)}
    contents.write_text(json.dumps(found))
    repro(lake)
    commit(lake)


def with_bad_split(lake: Path) -> None:
    """Make a release with a split that the loader refuses."""
    renamed(lake, "split: train", "split: layer-3")


def with_bad_config(lake: Path) -> None:
    """Make a release with a config that the loader refuses."""
    renamed(lake, "config_name: latents", "config_name: la:tents")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (older_than_its_lake, "build/release: is not what its lake would give: build/scores changed since it was made; run `dvc repro`"),
        (with_changed_params, "dvc.lock: inputs, release, scores would run again; run `dvc repro`, commit, then publish"),
        (with_changed_corpus, "dvc.lock: inputs would run again; run `dvc repro`"),
        (uncommitted, "params.yaml: not committed; run `git add` and `git commit`, then publish"),
        (edited, "build/release: is not what its lake would give: build/release changed since it was made; run `dvc repro`"),
        (emptied, "config explanations has no rows, and load_dataset opens no empty one"),
        (damaged, "README.md: its SHA-256 is not that of release.json"),
        (with_bad_split, "config 'explanations': load_dataset refuses the split name 'layer-3'; use letters, digits and underscores"),
        (with_bad_config, "config 'la:tents': load_dataset refuses the config name 'la:tents'; use letters, digits and underscores"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_may_not_be_published(publish: Publish, hub: DatasetHub, lake: Path, spoil: Callable[[Path], None], says: str) -> None:
    """Each refusal is one line, and the Hub has not been asked."""
    spoil(lake)
    said = publish()

    assert said.exit_code == 2
    errors = [line for line in said.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert hub.requests == []


def test_another_folder_than_the_recorded_one_is_refused(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """--release may be a copy of what dvc.lock records, and nothing else."""
    write_release(lake / "build/other", "2.0.0", small_tables(CHANGED))
    write_release(lake / "build/copy", "1.0.0", small_tables(TEXTS))
    said = publish("--release", "build/other")

    assert said.exit_code == 2
    assert "build/other: is not the release that dvc.lock records, so it is older than its lake or was edited" in said.output
    assert publish("--release", "build/copy").exit_code == 0


def test_a_version_that_is_tagged_or_too_low_is_refused(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """Other content under a tag that is there, and a version below the newest, are refused before any file travels."""
    publish()
    release_of(lake, "1.0.0", small_tables(CHANGED))
    same = publish()
    release_of(lake, "0.9.0", small_tables(CHANGED))
    hub.forget()
    lower = publish()

    assert same.exit_code == lower.exit_code == 2
    assert "has v1.0.0 already, with other content; raise release.version in params.yaml" in same.output
    assert "release.version in params.yaml is 0.9.0, and 1.0.0 is released already" in lower.output
    assert hub.sent() == []
    assert list(hub.repos["lab/small"].tags) == ["v1.0.0"]


def test_a_schema_change_without_a_major_version_is_refused(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """A config that is gone demands version 2.0.0."""
    publish()
    tables = {table: rows for table, rows in small_tables(TEXTS).items() if table.name != "latents"}
    release_of(lake, "1.1.0", {table: rows for table, rows in tables.items() if table.name != "explanations"})
    said = publish()

    assert said.exit_code == 2
    assert "needs at least 2.0.0; release.version in params.yaml is 1.1.0" in said.output


def test_a_project_without_a_commit_is_told(publish: Publish, lake: Path) -> None:
    """Where git has nothing yet, the line says to commit."""
    (lake / ".git/HEAD").write_text("ref: refs/heads/unborn\n")
    said = publish()

    assert said.exit_code == 2
    assert "git has no commit here; run `git add --all && git commit`" in said.output
    assert pq.read_table(lake / "build/release/saes").num_rows == 2
