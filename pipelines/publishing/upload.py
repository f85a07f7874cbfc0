"""Publishing: one commit with every change of a release, then the tag that pins it.

Whatever breaks off, main and the tags hold whole releases only: the files go ahead of the commit, and the commit ahead of the tag. Each
attempt looks at what is there first, so that it goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builders.errors import UserError
from pipelines.publishing.patience import REFUSED, patient, publishing_errors
from pipelines.publishing.plan import RUN, Plan
from pipelines.publishing.remote import Blob, Parcel, Remote

FIRST = {".gitattributes"}  # the files of a repository that has just been made


@dataclass(frozen=True)
class Published:
    """Where a release is on the Hub: the revision by which it is read, and the address of its pull request if it is one."""

    revision: str
    request: str | None = None

    def told(self, repo: str) -> str:
        """Return the line that says where it is."""
        if self.request:
            return f"opened {self.request}; it has no tag: once it is merged, run the same command without --pr, which tags it"
        return f'published {repo} {self.revision}: load_dataset("{repo}", revision="{self.revision}")'


def publish(plan: Plan) -> Published:
    """Carry out *plan*, and return where the release is; raise UserError for what the Hub refuses."""
    if plan.tagged:
        return Published(plan.tag)
    with publishing_errors(plan.target.repo):
        return (requested if plan.target.pr else tagged)(plan, Remote(plan.target))


@patient
def requested(plan: Plan, remote: Remote) -> Published:
    """Open a pull request with what the branch lacks, unless one with this release is open."""
    head = plan.head or remote.begin()
    if request := remote.open_request(plan.title):
        revision = f"refs/pr/{request.num}"
        if not holds(plan, remote.tree(revision)):
            raise UserError(f"{plan.target.repo}: {request.url} for {plan.tag} is open with other content; merge or close it first")
        return Published(revision, request.url)
    made = remote.commit(plan.title, moving(plan), plan.gone, head)
    return Published(str(made.pr_revision), made.pr_url)


@patient
def tagged(plan: Plan, remote: Remote) -> Published:
    """Commit what the branch lacks, and tag the commit."""
    head = remote.begin()
    there = remote.tree(head)
    if not holds(plan, there):
        if head != plan.head and (plan.head is not None or there.keys() - FIRST):
            raise UserError(f"{plan.target.repo}: {REFUSED[412]}")
        head = remote.commit(plan.title, moving(plan), plan.gone, head).oid
        if not holds(plan, remote.tree(head)):
            raise UserError(f"{plan.target.repo}: commit {head} lacks files, so it has no tag; does a .gitignore there leave them out?")
    if remote.tag(plan.tag, head) != head:
        raise UserError(
            f"{plan.target.repo}: somebody else made {plan.tag} meanwhile, and this release is on {plan.target.branch} without a tag; "
            "raise release.version in params.yaml, run `dvc repro`, commit, and publish again"
        )
    return Published(plan.tag)


def moving(plan: Plan) -> dict[str, Parcel]:
    """Return the files that travel."""
    return {name: plan.cargo[name] for name in [*plan.new, *plan.changed]}


def holds(plan: Plan, there: Mapping[str, Blob]) -> bool:
    """Return whether a commit with the files *there* is this release, whenever it was published."""
    whole = all(name in there and (name == RUN or there[name].holds(parcel)) for name, parcel in plan.cargo.items())
    return whole and not there.keys() & set(plan.gone)
