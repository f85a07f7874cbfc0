"""`interplake publish` against a stand-in Hub, with the real client: what is there afterwards, and what a reader loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from dataset_hub import DatasetHub
from published import REPO, TEXTS, Publish, release_of
from releases import small_tables, write_release

from builders.errors import UserError
from builders.releases.release import open_release
from pipelines.cli import main
from pipelines.publishing.checks import parcels
from pipelines.publishing.readback import read_back
from pipelines.publishing.remote import Target

READER = """
import json, sys
from datasets import load_dataset
repo, found = sys.argv[1], {}
for tag in ("v1.0.0", "v1.1.0"):
    at = {"split": "train", "revision": tag}
    one = [("sae", "==", "two")]
    found[tag] = {
        "map": load_dataset(repo, "explanations", **at)["text"][:],
        "streamed": [row["text"] for row in load_dataset(repo, "explanations", streaming=True, **at)],
        "columns": load_dataset(repo, "explanations", columns=["latent"], **at).column_names,
        "filtered": load_dataset(repo, "explanations", filters=one, **at)["text"][:],
        "filtered stream": [row["text"] for row in load_dataset(repo, "explanations", filters=one, streaming=True, **at)],
    }
print(json.dumps(found))
"""


def files_of(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a release, release.json included."""
    return {name: parcel.sha256 for name, parcel in parcels(open_release(root)).items()}


def test_two_versions_are_published_loaded_and_compared(publish: Publish, hub: DatasetHub, lake: Path, tmp_path: Path) -> None:
    """A second version with one dictionary's explanations changed: both tags load in every way, and the command tells what differs."""
    first = files_of(lake / "build/release")
    said = publish("--read-back").output
    release_of(lake, "1.1.0", small_tables({**TEXTS, "two": ["rivers", "seas", "lakes"]}))
    second = publish()

    assert second.exit_code == 0
    assert f'published {REPO} v1.0.0: load_dataset("{REPO}", revision="v1.0.0")' in said
    assert "read back v1.0.0: 4 configs, 13 rows, each row as it was written" in said
    assert "the Hub's viewer can show it: filter, preview, search, viewer" in said
    assert {name: sha for name, sha in hub.files(REPO, "v1.0.0").items() if name in first} == first
    assert hub.files(REPO, "v1.1.0") == hub.files(REPO)
    changes = hub.text(REPO, "v1.1.0", "CHANGELOG.md")
    assert changes.index("## 1.1.0") < changes.index("## 1.0.0")
    run = json.loads(hub.text(REPO, "v1.1.0", "run.json"))
    assert run["git"]["commit"]
    assert not run["git"]["dirty"]
    texts = {"v1.0.0": ["dogs", "cats", "birds", "rivers", "mills"], "v1.1.0": ["dogs", "cats", "birds", "rivers", "seas", "lakes"]}
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "reader"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    ended = subprocess.run([sys.executable, "-c", READER, REPO], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for tag, loaded in json.loads(ended.stdout.splitlines()[-1]).items():
        of_two = texts[tag][3:]
        assert loaded == {
            "map": texts[tag],
            "streamed": texts[tag],
            "columns": ["latent"],
            "filtered": of_two,
            "filtered stream": of_two,
        }
    told = CliRunner().invoke(main, ["diff", f"{REPO}@v1.0.0", f"{REPO}@v1.1.0", "--endpoint", hub.endpoint]).output
    assert "mills" in told
    assert "seas" in told


def test_only_what_changed_travels(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """The second version sends the large files that changed and no other, and takes away what it no longer has; a licence by hand stays."""
    release_of(lake, "1.0.0", small_tables(TEXTS), {"figures/a.png": b"a picture", "figures/b.png": b"another"})
    publish()
    hub.write(REPO, "LICENSE", "MIT")
    hub.write(REPO, "explanations/train-stray.parquet", "not ours")
    hub.forget()
    changed = {**TEXTS, "two": ["rivers", "seas"]}
    root = release_of(lake, "1.0.1", small_tables(changed), {"figures/a.png": b"a picture"})
    said = publish()

    assert said.exit_code == 0, said.output
    assert hub.sent() == [files_of(root)["explanations/train-00000-of-00001.parquet"]]
    assert hub.files(REPO).keys() == {*files_of(root), "CHANGELOG.md", "run.json", "LICENSE", ".gitattributes"}
    assert "gone" in said.output
    assert "explanations/train-stray.parquet" in said.output
    assert hub.files(REPO, "v1.0.0").keys() >= {"figures/a.png", "figures/b.png"}


def test_a_dry_run_lists_what_would_travel(publish: Publish, hub: DatasetHub, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token, a dry run checks, lists files with their bytes, and makes not even the repository."""
    monkeypatch.delenv("HF_TOKEN")
    size = (lake / "build/release/explanations/train-00000-of-00001.parquet").stat().st_size

    said = publish("--dry-run")

    assert said.exit_code == 0, said.output
    assert f"new      {size:>13,} B  explanations/train-00000-of-00001.parquet" in said.output
    assert "8 new, 0 changed, 0 gone, 0 unchanged" in said.output
    assert hub.repos == {}
    assert not [request for request in hub.requests if request.startswith("P")]


def test_nothing_is_published_without_consent(hub: DatasetHub, lake: Path) -> None:
    """Without --yes the command asks after it has shown what would travel, and a no ends it."""
    ended = CliRunner().invoke(main, ["publish", "--repo", REPO, "--endpoint", hub.endpoint], input="n\n")

    assert ended.exit_code == 1
    assert "Publish this? [y/N]" in ended.output
    assert hub.repos == {}


def test_a_private_repository_is_read_back_with_the_token(publish: Publish, hub: DatasetHub) -> None:
    """--private makes a private repository, which only the token reads; a public one is not made private behind anybody's back."""
    said = publish("--private", "--read-back", "--pr")
    hub.create("lab/open")

    assert said.exit_code == 0, said.output
    assert hub.repos[REPO].private
    assert "read back refs/pr/1: 4 configs, 13 rows, each row as it was written" in said.output
    assert "lab/open: is public; make it private in its settings" in publish("--private", repo="lab/open").output


def test_a_branch_gets_the_release_and_main_does_not(publish: Publish, hub: DatasetHub) -> None:
    """--branch makes the branch from main, commits there and tags that commit."""
    said = publish("--branch", "trial")
    found = hub.repos[REPO]

    assert said.exit_code == 0, said.output
    assert found.branches["trial"] == found.tags["v1.0.0"] != found.branches["main"]
    assert hub.files(REPO).keys() == {".gitattributes"}


def test_a_pull_request_gets_no_tag(publish: Publish, hub: DatasetHub) -> None:
    """--pr opens one pull request, says that it has no tag, and is found again by a second call."""
    said, again = publish("--pr"), publish("--pr")
    found = hub.repos[REPO]

    assert said.exit_code == again.exit_code == 0, said.output
    assert f"opened {hub.endpoint}/datasets/{REPO}/discussions/1; it has no tag" in said.output
    assert hub.files(REPO, "refs/pr/1").keys() > {"README.md", "CHANGELOG.md", "run.json"}
    assert list(found.requests) == [1]
    assert found.tags == {}
    assert hub.files(REPO).keys() == {".gitattributes"}


def test_publishing_again_only_reads_back(publish: Publish, hub: DatasetHub) -> None:
    """A version that is there with the same files would only be read back: nothing is committed."""
    publish()
    before, said = dict(hub.repos[REPO].commits), publish()

    assert said.exit_code == 0, said.output
    assert "v1.0.0 is there already with these files: nothing travels" in said.output
    assert hub.repos[REPO].commits == before


def test_what_reads_back_differently_is_told(publish: Publish, hub: DatasetHub, tmp_path: Path) -> None:
    """Where the Hub gives other rows than lie here, the process that reads them says which."""
    publish()
    other = write_release(tmp_path / "other", "1.0.0", small_tables({**TEXTS, "one": ["dogs", "cats", "newts"]}))

    with pytest.raises(UserError, match=r"v1\.0\.0 was published, .* \(explanations: rows 0 to 4 differ\); run the command again"):
        list(read_back(other, Target(REPO, hub.endpoint), "v1.0.0"))
