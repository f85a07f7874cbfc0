"""Working data on the Hub: folders of the lake in a bucket, which keeps their newest state and no versions."""

from __future__ import annotations

from collections.abc import Iterator

from builders.errors import UserError, one_of
from builders.releases.release import Release
from pipelines.graph.stage import BUILD
from pipelines.params import FILE, load
from pipelines.publishing.checks import check_clean
from pipelines.publishing.patience import patient, publishing_errors
from pipelines.publishing.remote import Parcel, Remote, Target


def check_bucket(release: Release) -> None:
    """Refuse stages that have made nothing, and working data in which something looks like a secret."""
    bucket = load().release.bucket
    for stage in bucket.stages if bucket else ():
        files = [path for path in sorted((BUILD / stage).rglob("*")) if path.is_file()]
        if not files:
            known = one_of(path.name for path in BUILD.iterdir() if path.is_dir())
            raise UserError(f"{FILE}: release.bucket.stages: {BUILD / stage} holds nothing; name one of {known}")
        check_clean({path.relative_to(BUILD).as_posix(): Parcel(path, "") for path in files}, release)


def fill(target: Target) -> Iterator[str]:
    """Make the folders in the bucket that params name what they are here, and yield a line for each; what is there is not sent."""
    if (bucket := load().release.bucket) is None:
        return
    for stage in bucket.stages:
        with publishing_errors(bucket.repo):
            sent = filled(Remote(target), bucket.repo, stage)
        yield f"bucket {bucket.repo}/{stage}: {sent['uploads']} files sent, {sent['deletes']} gone, {sent['skips']} as they were"


@patient
def filled(remote: Remote, bucket: str, stage: str) -> dict[str, int | str]:
    """Make one folder of a bucket what it is here, and return how many files were sent, deleted and left."""
    remote.api.create_bucket(bucket, private=remote.target.private, exist_ok=True)
    plan = remote.api.sync_bucket(str(BUILD / stage), f"hf://buckets/{bucket}/{stage}", delete=True, quiet=True)
    return plan.summary()
