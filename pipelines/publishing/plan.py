"""What publishing a release would do: which files travel, which go, under which version; made without changing anything on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token

from builders.errors import UserError
from builders.releases.changelog import changelog
from builders.releases.compare import compare
from builders.releases.hub import fetch_release
from builders.releases.release import CONTENTS, Release, open_release
from builders.releases.versions import require_version
from pipelines.params import FILE, load
from pipelines.parts.provenance import varying
from pipelines.publishing.bucket import check_bucket
from pipelines.publishing.checks import check_clean, check_release, parcels
from pipelines.publishing.patience import patient, publishing_errors
from pipelines.publishing.remote import MAIN, Blob, Parcel, Remote, Target

CHANGES, RUN = "CHANGELOG.md", "run.json"  # what publishing adds to a release


@dataclass(frozen=True)
class State:
    """What a repository holds: the newest commit of the branch (None without a repository), its files, and those that its release lists.

    *changes* is the changelog of the newest version. *tagged* are the files under the tag of the version that is to be
    published, None where there is no such tag.
    """

    head: str | None = None
    files: Mapping[str, Blob] | None = None
    listed: Iterable[str] = ()
    newest: str | None = None
    changes: str = ""
    tagged: Mapping[str, Blob] | None = None
    private: bool | None = None


@dataclass(frozen=True)
class Plan:
    """A release that has passed every check, beside what the Hub holds.

    *cargo* has the files that the repository is to hold, *there* those that the branch holds now, *gone* those of them that go. *head* is
    the newest commit of the branch, None where there is no repository yet. *tagged* says that the Hub has the tag with this very release.
    """

    release: Release
    target: Target
    cargo: Mapping[str, Parcel]
    there: Mapping[str, Blob]
    gone: tuple[str, ...]
    head: str | None
    newest: str | None
    tagged: bool

    @property
    def tag(self) -> str:
        """The tag of the version."""
        return f"v{self.release.version}"

    @property
    def title(self) -> str:
        """The title of the commit."""
        return f"Release {self.tag}"

    @property
    def new(self) -> list[str]:
        """The files that the branch does not have."""
        return [name for name in self.cargo if name not in self.there]

    @property
    def changed(self) -> list[str]:
        """The files that the branch has with other content."""
        return [name for name in self.cargo if name in self.there and not self.there[name].holds(self.cargo[name])]


def repo_of(named: str | None) -> str:
    """Return the repository that the command names, or else params; raise UserError where neither does."""
    repo = named or load().release.repo
    if repo is None:
        raise UserError(f"{FILE}: release.repo is not set; set it to owner/name, or give --repo")
    return repo


def prepare(root: Path, target: Target, *, dry: bool = False) -> Plan:
    """Return what publishing the release in *root* would do; raise UserError where a check fails or the Hub refuses to be read.

    A *dry* plan needs no token where the repository is public or not there yet.
    """
    if not dry and get_token() is None:
        raise UserError("no token of the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN to a token that may write")
    release = open_release(root)
    check_release(release)
    check_bucket(release)
    with publishing_errors(target.repo):
        state = look(Remote(target), f"v{release.version}")
        return planned(release, target, state)


@patient
def look(remote: Remote, tag: str) -> State:
    """Return what the repository holds that a plan depends on."""
    refs = remote.refs()
    if refs is None:
        return State()
    head = refs.branches.get(remote.target.branch) or refs.branches[MAIN]
    files = remote.tree(head)
    listed = json.loads(remote.read(CONTENTS, head) or b"{}").get("files", ())
    changes = (remote.read(CHANGES, refs.newest) or b"").decode() if refs.newest else ""
    tagged = remote.tree(refs.tags[tag]) if tag in refs.tags else None
    return State(head, files, listed, refs.newest, changes, tagged, remote.is_private())


def planned(release: Release, target: Target, state: State) -> Plan:
    """Return what publishing *release*, which has been checked, would do to a repository in this *state*."""
    if target.private and state.private is False:
        raise UserError(f"{target.repo}: is public; make it private in its settings on the Hub, or leave out --private")
    cargo, there = parcels(release), state.files or {}
    if state.tagged is not None:
        if not all(name in state.tagged and state.tagged[name].holds(parcel) for name, parcel in cargo.items()):
            raise UserError(
                f"{target.repo}: has v{release.version} already, with other content; raise release.version in params.yaml, run `dvc repro` "
                "and commit"
            )
        return Plan(release, target, cargo, there, (), state.head, state.newest, tagged=True)
    added = {CHANGES: changes_since(release, target, state), RUN: json.dumps(varying(), indent=1)}
    cargo |= {name: Parcel.of(text.encode()) for name, text in added.items()}
    check_clean({name: cargo[name] for name in added}, release)
    gone = tuple(name for name in there if name not in cargo and goes(name, release, state))
    return Plan(release, target, cargo, there, gone, state.head, state.newest, tagged=False)


def changes_since(release: Release, target: Target, state: State) -> str:
    """Return the changelog with the changes since the newest version on the Hub; raise UserError where the version is too low for them."""
    before = fetch_release(target.repo, state.newest, target.endpoint, get_token()) if state.newest else None
    difference = compare(before, release)
    require_version(before, release, difference)
    return changelog(difference, state.changes)


def goes(name: str, release: Release, state: State) -> bool:
    """Return whether a file on the Hub that this release lacks is to go: one of the release there, or in a config's folder.

    The loader would read whatever lies in such a folder. What people have added elsewhere, such as a licence, stays.
    """
    return name in state.listed or name.split("/")[0] in release.tables


def described(plan: Plan) -> Iterator[str]:
    """Yield the lines that tell a person what would travel."""
    target, release = plan.target, plan.release
    place = "as a pull request" if target.pr else f"on {target.branch}"
    yield f"{release.name} {release.version}: {release.root} → {target.repo} {place}; newest version there: {plan.newest or 'none'}"
    if plan.tagged:
        yield f"{plan.tag} is there already with these files: nothing travels"
        return
    kinds = {"new": plan.new, "changed": plan.changed}
    for kind, names in kinds.items():
        yield from (f"  {kind:<8} {plan.cargo[name].size:>13,} B  {name}" for name in names)
    yield from (f"  {'gone':<8} {plan.there[name].size:>13,} B  {name}" for name in plan.gone)
    travel = [*plan.new, *plan.changed]
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in {**kinds, "gone": plan.gone}.items())
    most = sum(plan.cargo[name].size for name in travel)
    yield f"{counts}, {len(plan.cargo) - len(travel)} unchanged; at most {most / 1e6:.1f} MB travel"
