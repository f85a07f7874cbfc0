"""Reading a published release back: every config with the real `load_dataset` in a fresh process, row by row beside the files here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pyarrow as pa
from huggingface_hub import constants, get_session, get_token

from builders.errors import UserError, first_line
from builders.releases.release import Release, open_release
from pipelines.publishing.remote import MAIN, Target
from pipelines.publishing.upload import Published

PUBLIC = "https://huggingface.co"  # the only Hub whose viewer's address is known


def compared(root: Path, target: Target, published: Published, viewer: str | None = None) -> Iterator[str]:
    """Yield what a stranger's computer makes of what was published, and what the Hub's viewer says of it if it is on main."""
    yield from read_back(root, target, published.revision)
    place = viewer or (constants.DATASETS_SERVER_ENDPOINT if (target.endpoint or constants.ENDPOINT) == PUBLIC else None)
    if place and not published.request and target.branch == MAIN:
        yield ask_viewer(target.repo, place)


def read_back(root: Path, target: Target, revision: str) -> Iterator[str]:
    """Yield what the process says that loads a published release; raise UserError where that is not what lies in *root*.

    The process begins with an empty cache, and knows the Hub's address and this machine's token from its environment.
    """
    with tempfile.TemporaryDirectory() as home:
        fresh = {"HF_HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_ENDPOINT": target.endpoint or constants.ENDPOINT}
        token = {"HF_TOKEN": found} if (found := get_token()) else {}
        command = [sys.executable, "-m", __name__, str(root.resolve()), target.repo, revision]
        code = Path(__file__).parents[2]  # this very code, wherever the command was called
        ended = subprocess.run(  # noqa: S603  # our own module
            command, cwd=code, env={**os.environ, **fresh, **token}, capture_output=True, text=True, check=False
        )
    yield from ended.stdout.splitlines()
    if ended.returncode:
        said = next((line for line in reversed(ended.stderr.splitlines()) if line.strip()), "no word")
        raise UserError(
            f"{target.repo}: {revision} was published, and does not read back as it was written ({said}); run the command again to read it "
            "anew, and publish a higher version if that fails too"
        )


def main(root: str, repo: str, revision: str) -> None:
    """Load every config of *repo* at *revision* and compare it with the release in *root*; print a line for all."""
    release = open_release(Path(root))
    rows = sum(compare_config(release, config, repo, revision) for config in release.tables)
    print(f"read back {revision}: {len(release.tables)} configs, {rows:,} rows, each row as it was written")


def compare_config(release: Release, config: str, repo: str, revision: str) -> int:
    """Return how many rows a config has; raise UserError at the first batch that differs."""
    from datasets import load_dataset

    loaded = load_dataset(repo, config, split="train", revision=revision).with_format("arrow")
    rows = 0
    for batch in release.batches(config):
        here, there = pa.Table.from_batches([batch]), loaded[rows : rows + batch.num_rows]
        if not there.cast(here.schema).equals(here):
            raise UserError(f"{config}: rows {rows:,} to {rows + batch.num_rows - 1:,} differ")
        rows += batch.num_rows
    if len(loaded) != rows:
        raise UserError(f"{config}: has {len(loaded):,} rows there and {rows:,} here")
    return rows


def ask_viewer(repo: str, viewer: str) -> str:
    """Return what the Hub's *viewer* says of the newest commit; one that cannot be asked, or is not ready, is no error."""
    headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    try:
        answer = get_session().get(f"{viewer}/is-valid", params={"dataset": repo}, headers=headers, timeout=30)
        answer.raise_for_status()
        able = sorted(name for name, can in answer.json().items() if can is True)
    except (httpx2.HTTPError, ValueError) as error:
        return f"the Hub's viewer cannot say yet whether it can show this ({first_line(error)}); look at the page in some minutes"
    return f"the Hub's viewer can show it: {', '.join(able)}" if able else "the Hub's viewer cannot show it; look at the dataset's page"


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
