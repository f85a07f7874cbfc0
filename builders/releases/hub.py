"""A release on the Hugging Face Hub, of which only those files are downloaded that somebody reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from builders.errors import UserError
from builders.releases.release import CONTENTS, Release, open_release
from builders.subjects.places import hub_errors


@dataclass(frozen=True)
class HubRelease(Release):
    """A release in the dataset repository *repo* at the commit *revision*; :meth:`path` downloads a file when it is first asked for."""

    repo: str = ""
    revision: str = ""
    endpoint: str | None = None
    token: str | None = None

    def path(self, name: str) -> Path:
        """Return where the file *name* lies in the cache of the Hub's client; raise as :func:`fetch_release` does."""
        return download(self.repo, name, self.revision, self.endpoint, self.token)


def fetch_release(
    repo: str, revision: str, endpoint: str | None = None, token: str | None = None, configs: Sequence[str] | None = None
) -> HubRelease:
    """Return the release in a dataset repository at a *revision*: a tag, a branch or a commit.

    Its release.json is downloaded, and the files of *configs* where they are given; others follow when they are read. Raises UserError
    where there is no such repository, revision or release, and MissingError where the Hub cannot be reached.
    """
    contents = download(repo, CONTENTS, revision, endpoint, token)
    release = open_release(contents.parent)
    found = HubRelease(
        **{field.name: getattr(release, field.name) for field in fields(release)},
        repo=repo,
        revision=contents.parent.name,  # the cache names the folder by the commit, so that a tag that moves changes nothing
        endpoint=endpoint,
        token=token,
    )
    for config in configs or ():
        found.paths(config)
    return found


def download(repo: str, name: str, revision: str, endpoint: str | None = None, token: str | None = None) -> Path:
    """Return a file of a dataset repository at a revision, in the client's cache; raise as :func:`fetch_release` does."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    whole = f"{repo}@{revision}"
    words = {"name": "correct its name", "commit": f"name one of its tags, such as {repo}@v1.0.0", "offline": "name a folder instead"}
    with hub_errors(whole, **words):
        try:
            return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision, endpoint=endpoint, token=token))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise UserError(f"{whole}: holds no {name}, so it is no whole release of interplake; name another revision") from error


def release_at(place: str, endpoint: str | None = None) -> Release:
    """Return the release at a *place*: a folder, or owner/name@revision on the Hub; raise as :func:`fetch_release` does."""
    repo, at, revision = place.rpartition("@")
    if Path(place).exists() or not at:
        return open_release(Path(place))
    return fetch_release(repo, revision, endpoint)
