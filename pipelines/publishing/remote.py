"""A dataset repository on the Hub: what is there, and the few changes that publishing makes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, Discussion, HfApi, get_token
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

MAIN = "main"
TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Target:
    """Where a release is to go: a dataset repository, at which *endpoint*, on which branch, or as a pull request."""

    repo: str
    endpoint: str | None = None
    branch: str = MAIN
    pr: bool = False
    private: bool = False


@dataclass(frozen=True)
class Parcel:
    """A file that is to be on the Hub: its content, or where that lies, and the SHA-256 of it."""

    content: Path | bytes
    sha256: str

    @staticmethod
    def of(content: bytes) -> Parcel:
        """Return *content* as a file that is to be on the Hub."""
        return Parcel(content, hashlib.sha256(content).hexdigest())

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def read(self) -> bytes:
        """Return the whole content."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True)
class Blob:
    """A file on the Hub: its size, and the hash of its content: SHA-256 of a large file, git's own of any other."""

    size: int
    digest: str
    large: bool

    def holds(self, parcel: Parcel) -> bool:
        """Return whether the file has this content."""
        return self.size == parcel.size and self.digest == (parcel.sha256 if self.large else git_hash(parcel.read()))


@dataclass(frozen=True)
class Refs:
    """The branches and tags of a repository, with the commits that they name."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def newest(self) -> str | None:
        """The tag with the highest version, if there is one."""
        found = [(tuple(map(int, match.groups())), tag) for tag in self.tags if (match := TAG.fullmatch(tag))]
        return max(found)[1] if found else None


@dataclass(frozen=True)
class Remote:
    """The repository of a target, asked through the Hub's own client with the token of this machine."""

    target: Target

    @cached_property
    def api(self) -> HfApi:
        """The client."""
        return HfApi(endpoint=self.target.endpoint, token=get_token())

    def refs(self) -> Refs | None:
        """Return branches and tags; None where there is no such repository."""
        try:
            found = self.api.list_repo_refs(self.target.repo, repo_type="dataset")
        except RepositoryNotFoundError:
            return None
        named = ({ref.name: ref.target_commit for ref in refs} for refs in (found.branches, found.tags))
        return Refs(*named)

    def is_private(self) -> bool:
        """Return whether only its owners see the repository."""
        return bool(self.api.dataset_info(self.target.repo).private)

    def tree(self, revision: str) -> dict[str, Blob]:
        """Return the files at a revision, by path."""
        found = self.api.list_repo_tree(self.target.repo, recursive=True, revision=revision, repo_type="dataset")
        files = [item for item in found if isinstance(item, RepoFile)]
        return {file.path: Blob(file.size, file.lfs.sha256 if file.lfs else file.blob_id, bool(file.lfs)) for file in files}

    def read(self, path: str, revision: str) -> bytes | None:
        """Return a file at a revision; None where it is not there."""
        try:
            return Path(self.api.hf_hub_download(self.target.repo, path, revision=revision, repo_type="dataset")).read_bytes()
        except EntryNotFoundError:
            return None

    def open_request(self, title: str) -> Discussion | None:
        """Return the open pull request of this title, if there is one."""
        found = self.api.get_repo_discussions(
            self.target.repo, discussion_type="pull_request", discussion_status="open", repo_type="dataset"
        )
        return next((request for request in found if request.title == title), None)

    def begin(self) -> str:
        """Make the repository and the branch where they are not there yet, and return the commit that the branch names."""
        target = self.target
        refs = self.refs()
        if refs is None:
            self.api.create_repo(target.repo, private=target.private, repo_type="dataset", exist_ok=True)
        if refs is None or target.branch not in refs.branches:
            self.api.create_branch(target.repo, branch=target.branch, repo_type="dataset", exist_ok=True)
            refs = self.refs() or Refs({}, {})
        return refs.branches[target.branch]

    def commit(self, title: str, added: Mapping[str, Parcel], gone: Sequence[str], parent: str) -> CommitInfo:
        """Make one commit of files added or replaced and files that go; it fails with 412 where *parent* is not the newest commit."""
        operations: list[CommitOperationAdd | CommitOperationDelete | CommitOperationCopy] = [
            *(CommitOperationAdd(path, parcel.content) for path, parcel in added.items()),
            *(CommitOperationDelete(path, is_folder=False) for path in gone),
        ]
        return self.api.create_commit(
            self.target.repo,
            operations,
            commit_message=title,
            repo_type="dataset",
            revision=self.target.branch,
            create_pr=self.target.pr,
            parent_commit=parent,
        )

    def tag(self, name: str, commit: str) -> str:
        """Tag a commit, and return the commit that the tag names: another one where the tag was there already."""
        try:
            self.api.create_tag(self.target.repo, tag=name, revision=commit, repo_type="dataset")
        except HfHubHTTPError as error:
            if error.response.status_code != HTTPStatus.CONFLICT:
                raise
            refs = self.refs()
            return refs.tags.get(name, "") if refs else ""
        return commit
