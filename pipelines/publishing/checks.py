"""What must hold before a release may travel: it is what this project makes, its sources are committed, and readers can open it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from huggingface_hub import DatasetCard

from builders.errors import UserError, first_line, one_of
from builders.lake.shards import file_sha256
from builders.releases.release import CONTENTS, Release
from builders.releases.verify import verify
from cards.header import require_loadable
from pipelines.graph.closure import PACKAGES
from pipelines.graph.declared import PIPELINE
from pipelines.graph.git import git
from pipelines.graph.lock import LOCK, md5_of, stages_of
from pipelines.graph.stage import BUILD
from pipelines.params import FILE
from pipelines.publishing.leaks import leaks
from pipelines.publishing.remote import Parcel
from pipelines.stages import inputs

CARD = "README.md"
STAGE = "release"
COMMITTED = (FILE, PIPELINE.name, LOCK.name, *PACKAGES)


def check_release(release: Release) -> None:
    """Raise UserError at the first reason why *release* may not be published; nothing has been asked of the Hub by then."""
    check_current()
    check_committed()
    check_recorded(release.root)
    check_filled(release)
    check_whole(release)
    check_opens(release)
    check_clean(parcels(release), release)


def check_current() -> None:
    """Refuse a graph that is not up to date: what was read or made has changed since its stage last ran."""
    inputs.main()  # DVC does not see the files that params name
    try:
        with Repo() as repo:
            stale: dict[str, list[Any]] = repo.status([STAGE], with_deps=True)
    except DvcException as error:
        raise UserError(
            f"{PIPELINE.name}: DVC cannot say whether it is up to date ({first_line(error)}); run this in the project"
        ) from error
    changed = {name: [entry for entry in entries if entry != "always changed"] for name, entries in stale.items()}
    late = {name: entries for name, entries in changed.items() if entries}
    if not late:
        return
    if set(late) == {STAGE}:
        since = one_of({path for entry in late[STAGE] for paths in entry.values() for path in paths})
        raise UserError(f"{BUILD / STAGE}: is not what its lake would give: {since} changed since it was made; run `dvc repro`")
    raise UserError(f"{LOCK}: {one_of(late)} would run again; run `dvc repro`, commit, then publish")


def check_committed() -> None:
    """Refuse params, graph, lock or code that git does not have as they are: the commit is what the release is made from."""
    if git("rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise UserError(f"{Path.cwd().name}: git has no commit here; run `git add --all && git commit`, since a release names its commit")
    changed = [line[3:] for line in (git("status", "--porcelain", "--", *COMMITTED) or "").splitlines()]
    unknown = [name for name in (FILE, PIPELINE.name, LOCK.name) if git("ls-files", "--error-unmatch", name) is None]
    if changed or unknown:
        raise UserError(f"{one_of({*changed, *unknown})}: not committed; run `git add` and `git commit`, then publish")


def check_recorded(root: Path) -> None:
    """Refuse a folder that is not the release which dvc.lock records, such as one from before its lake was made anew."""
    entry = stages_of(LOCK.read_text()).get(STAGE, {}) if LOCK.exists() else {}
    made = next((out["md5"] for out in entry.get("outs", ())), None)
    if made is None:
        raise UserError(f"{LOCK}: does not record stage {STAGE}; run `dvc repro`")
    if folder_md5(root) != made:
        raise UserError(f"{root}: is not the release that {LOCK} records, so it is older than its lake or was edited; run `dvc repro`")


def folder_md5(root: Path) -> str:
    """Return the hash by which DVC knows a folder."""
    tree = Tree()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        tree.add(path.relative_to(root).parts, None, HashInfo("md5", md5_of(path)))
    tree.digest()
    return str(tree.hash_info.value)


def check_filled(release: Release) -> None:
    """Refuse an empty table: `load_dataset` cannot open one."""
    for config in release.tables:
        if not any(batch.num_rows for batch in release.batches(config, release.tables[config].key)):
            raise UserError(
                f"{release.root}: config {config} has no rows, and load_dataset opens no empty one; leave it out and run `dvc repro`"
            )


def check_whole(release: Release) -> None:
    """Refuse a release that does not hold what it says, or whose rows refer to rows that are not there."""
    problems = verify(release)
    if problems:
        raise UserError(f"{release.root}: {problems[0]}{more_of(problems)}; see them all with `interplake verify {release.root}`")


def check_opens(release: Release) -> None:
    """Refuse a card whose configs are not those of release.json, and a config or a split that the loader does not take."""
    if CARD not in release.files:
        raise UserError(f"{release.root}: has no {CARD}, in which load_dataset finds the configs; run `dvc repro`")
    configs = DatasetCard.load(release.root / CARD).data.to_dict().get("configs", [])
    for config in configs:
        for files in config["data_files"]:
            require_loadable(config["config_name"], files["split"])
    if odd := {config["config_name"] for config in configs} ^ release.tables.keys():
        raise UserError(f"{release.root}: {CARD} and {CONTENTS} name different configs ({one_of(odd)}); run `dvc repro`")


def parcels(release: Release) -> dict[str, Parcel]:
    """Return every file of *release* as what travels, release.json among them."""
    contents = release.root / CONTENTS
    listed = {name: Parcel(release.root / name, file.sha256) for name, file in release.files.items()}
    return {**listed, CONTENTS: Parcel(contents, file_sha256(contents))}


def check_clean(files: Mapping[str, Parcel], release: Release) -> None:
    """Refuse files in which something looks like a secret."""
    found = list(leaks(files, release.tables))
    if found:
        raise UserError(f"{found[0]}{more_of(found)}; take it out of what the release is made from, make it invalid, and run `dvc repro`")


def more_of(lines: Sequence[str]) -> str:
    """Return how many lines there are besides the first, in brackets."""
    return f" ({len(lines) - 1} more)" if len(lines) > 1 else ""
