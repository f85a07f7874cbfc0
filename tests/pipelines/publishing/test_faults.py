"""What goes wrong on the way to the Hub: nothing half is left under a tag or on main, the error says what to do, a rerun finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from dataset_hub import OTHERS, DatasetHub, Fault
from published import REPO, Publish

from builders.releases.release import open_release
from pipelines.graph.closure import ROOT
from pipelines.publishing.checks import parcels

COMMIT, TAG, PUT = r"POST .*/commit/", r"POST .*/tag/", r"PUT /lfs/"


def whole(hub: DatasetHub, lake: Path, revision: str) -> bool:
    """Return whether a revision holds every file of the project's release."""
    wanted = {name: parcel.sha256 for name, parcel in parcels(open_release(lake / "build/release")).items()}
    return wanted.items() <= hub.files(REPO, revision).items()


def untouched(hub: DatasetHub) -> bool:
    """Return whether the repository is as it was made: one commit, no tag."""
    found = hub.repos[REPO]
    return len(found.commits) == 1 and not found.tags


def commits(hub: DatasetHub) -> list[str]:
    """Return the titles of all commits."""
    return [commit.title for commit in hub.repos[REPO].commits.values()]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(COMMIT, status=500),
        Fault(COMMIT, status=503, times=2),
        Fault(COMMIT, status=429, headers=(("Retry-After", "1"),)),
        Fault(COMMIT, dropped=True),
        Fault(TAG, status=502, times=3),
        Fault(r"GET .*/refs", status=500),
        Fault(r"POST /api/repos/create", status=500, times=2),
    ],
)
def test_a_failure_that_passes_is_borne(publish: Publish, hub: DatasetHub, lake: Path, fault: Fault) -> None:
    """What the Hub refuses once or a few times is tried again, and said; the release is there whole, in one commit."""
    hub.faults.append(fault)
    said = publish()

    assert said.exit_code == 0, said.output
    assert fault.times == 0
    assert "the Hub did not take it" in said.output
    assert commits(hub) == ["initial commit", "Release v1.0.0"]
    assert whole(hub, lake, "v1.0.0")


@pytest.mark.parametrize("route", [PUT, r"POST .*/preupload/"])
def test_a_connection_that_breaks_during_an_upload_is_borne(publish: Publish, hub: DatasetHub, lake: Path, route: str) -> None:
    """What the client itself tries again, such as a file whose upload breaks off, needs no second attempt of ours."""
    hub.faults.append(Fault(route, dropped=True))
    said = publish()

    assert said.exit_code == 0, said.output
    assert len(hub.sent()) == (5 if route == PUT else 4)  # four files, one of them twice
    assert whole(hub, lake, "v1.0.0")


@pytest.mark.parametrize(("route", "what"), [(COMMIT, "commit"), (TAG, "tag")])
def test_an_answer_that_is_lost_makes_nothing_twice(publish: Publish, hub: DatasetHub, lake: Path, route: str, what: str) -> None:
    """Where the Hub did it and its answer was lost, the next attempt sees that it is done."""
    hub.faults.append(Fault(route, dropped=True, after=True))
    said = publish()

    assert said.exit_code == 0, said.output
    assert commits(hub) == ["initial commit", "Release v1.0.0"]
    assert list(hub.repos[REPO].tags) == ["v1.0.0"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(COMMIT, status=503, times=99), f"{REPO}: the Hub still answers 503 after 5 attempts; run the same command again"),
        (Fault(COMMIT, dropped=True, times=99), "the connection to the Hub broke 5 times"),
        (Fault(COMMIT, status=429, headers=(("Retry-After", "4000"),)), "the Hub asks to wait for 4000 s; run the same command again"),
    ],
)
def test_what_does_not_pass_is_told_and_a_rerun_finishes(publish: Publish, hub: DatasetHub, lake: Path, fault: Fault, says: str) -> None:
    """After some attempts the command says what to do, and nothing is on main; a rerun sends no large file a second time."""
    hub.faults.append(fault)
    said = publish()
    assert said.exit_code == 2
    assert says in said.output
    assert "what has arrived is not sent twice" in said.output
    assert untouched(hub)

    hub.forget()
    assert publish().exit_code == 0
    assert hub.sent() == []
    assert whole(hub, lake, "v1.0.0")


def test_a_commit_of_somebody_else_is_not_lost(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """Where main moves meanwhile (412), nothing is published; a rerun builds on what is there now."""
    hub.create(REPO)
    hub.faults.append(Fault(COMMIT, before=lambda: hub.write(REPO, "NOTES.md", "mine")))
    said = publish()
    assert said.exit_code == 2
    assert f"{REPO}: somebody committed to it meanwhile, so nothing was published; look at what is new there" in said.output
    assert hub.files(REPO).keys() == {".gitattributes", "NOTES.md"}
    assert hub.repos[REPO].tags == {}

    assert publish().exit_code == 0
    assert whole(hub, lake, "v1.0.0")
    assert hub.text(REPO, "v1.0.0", "NOTES.md") == "mine"


def test_a_tag_that_somebody_else_made_stays(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """Where the tag is made meanwhile (409), it stays what it was, and the command says how to go on."""
    first = hub.create(REPO).branches["main"]
    hub.faults.append(Fault(TAG, before=lambda: hub.tag(REPO, first, "v1.0.0")))
    said = publish()

    assert said.exit_code == 2
    assert f"{REPO}: somebody else made v1.0.0 meanwhile, and this release is on main without a tag; raise release.version" in said.output
    assert hub.repos[REPO].tags == {"v1.0.0": first}
    assert whole(hub, lake, "main")


@pytest.mark.parametrize("route", [PUT, COMMIT, TAG])
def test_a_kill_leaves_nothing_half_and_a_rerun_finishes(publish: Publish, hub: DatasetHub, lake: Path, route: str) -> None:
    """After kill -9 during the files, the commit or the tag, main is untouched or whole without a tag; a rerun sends no file twice."""
    fault = Fault(route, status=500, skip=2 if route == PUT else 0, times=99, release=Event())
    hub.faults.append(fault)
    command = [sys.executable, "-m", "pipelines", "publish", "--repo", REPO, "--endpoint", hub.endpoint, "--yes"]
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert fault.reached.wait(60)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert whole(hub, lake, "main") and not hub.repos[REPO].tags if route == TAG else untouched(hub)
    assert fault.release is not None
    fault.release.set()
    arrived = {path.name for path in hub.root.iterdir()}

    hub.forget()
    said = publish()
    assert said.exit_code == 0, said.output
    assert not arrived & set(hub.sent())
    assert commits(hub) == ["initial commit", "Release v1.0.0"]
    assert whole(hub, lake, "v1.0.0")


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        (f"{OTHERS}/data", f"{OTHERS}/data: your token may not write there; use one with write access to {OTHERS}, or name another --repo"),
        (f"{OTHERS}/new", f"{OTHERS}/new: your token may not write there"),
    ],
)
def test_another_owners_repository_is_refused(publish: Publish, hub: DatasetHub, repo: str, says: str) -> None:
    """A repository of others, there or not, is refused before any file travels."""
    hub.create(f"{OTHERS}/data")
    said = publish(repo=repo)

    assert said.exit_code == 2
    assert says in said.output
    assert hub.sent() == []
    assert list(hub.repos) == [f"{OTHERS}/data"]


def test_without_a_token_nothing_is_asked(publish: Publish, hub: DatasetHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the command says how to get one, before it does anything."""
    monkeypatch.delenv("HF_TOKEN")
    said = publish()

    assert said.exit_code == 2
    assert said.output == "error: no token of the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN to a token that may write\n"
    assert hub.requests == []


def test_a_token_that_the_hub_does_not_know_is_told(publish: Publish, hub: DatasetHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong token is told as that."""
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    said = publish()

    assert said.exit_code == 2
    assert "the Hub does not know your token; run `hf auth login`" in said.output
