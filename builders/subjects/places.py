"""Places of checkpoints: a local folder or GGUF file, a Hub repository at a pinned commit, or a Python package."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders.errors import MissingError, UserError, first_line, one_of
from builders.subjects import gguf

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
KEPT = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
CODE = ("*.py",)
MEGABYTE = 2**20


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is: at a local *path*, in a Hub repository (*repo*), or in an installed Python *package*.

    The path is a folder or a GGUF file; the repository is at a pinned commit (*revision*); *file* is the name of a GGUF file in the
    repository or package. Python code from the checkpoint runs only if *trust_remote_code* is set. If *reinitialised*, random weights take
    the place of the checkpoint's.
    """

    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    file: str | None = None
    package: str | None = None
    reinitialised: bool = False

    @property
    def label(self) -> str:
        """The name shown to readers: the repository, the package, or the path. Of an absolute path only the last part is shown."""
        shown = Path(str(self.path)).name if Path(str(self.path)).is_absolute() else str(self.path)
        return "/".join(part for part in (self.repo or self.package or shown, self.file) if part)


def fetch(source: Source) -> Path:
    """Return the local folder that holds *source*'s files, or its GGUF file; download a Hub snapshot if needed.

    Raises MissingError if it does not exist or the Hub cannot be reached, and UserError if the folder holds no config.json or no
    safetensors weights, or if the GGUF file is not whole.
    """
    if source.package or source.file or (source.path and source.path.endswith(gguf.SUFFIX)):
        return _gguf_of(source)
    kept = [*KEPT, *(CODE if source.trust_remote_code else ())]
    folder = Path(source.path) if source.path else snapshot(str(source.repo), source.revision, kept)
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such checkpoint folder; set `path` to a folder with config.json and *.safetensors")
    if not (folder / "config.json").exists():
        if files := sorted(file.name for file in folder.glob(f"*{gguf.SUFFIX}")):
            where = f"set `file` to {files[0]}" if source.repo else f"set `path` to {folder / files[0]}"
            raise UserError(f"{folder}: no config.json, but GGUF files ({one_of(files)}); {where} to use one")
        raise UserError(f"{folder}: no config.json, so this is no checkpoint of the transformers library; fetch the whole checkpoint")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(f.name for pattern in PICKLED for f in folder.glob(pattern))
        if pickled:
            raise UserError(f"{folder}: only pickled weights ({one_of(pickled)}), which can run code; convert them to safetensors")
        raise UserError(f"{folder}: no weights (*.safetensors) beside config.json; fetch them too")
    return folder


def _gguf_of(source: Source) -> Path:
    """Return the path of *source*'s GGUF file, which is whole."""
    if source.package:
        path = gguf.in_package(source.package, source.file)
    elif source.repo:
        path = snapshot(source.repo, source.revision, [str(source.file)]) / str(source.file)
    else:
        path = Path(str(source.path))
    if not path.is_file():
        raise MissingError(f"{path}: no such GGUF file; " + ("correct `file`" if source.repo else "correct `path`"))
    gguf.require_whole(path)
    return path


def fingerprint(folder: Path) -> str:
    """Return a hash that changes when other weights take the place of a local checkpoint, without reading all of the weights.

    It covers config.json, and the name, the size, and the first and last megabyte of every weights file. Of a GGUF file it is the
    SHA-256.
    """
    if folder.suffix == gguf.SUFFIX:
        return gguf.sha256(folder)
    whole = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            whole.update(f"{path.name} {size}\n".encode() + file.read(MEGABYTE))
            file.seek(max(0, size - MEGABYTE))
            whole.update(file.read())
    return whole.hexdigest()


def snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """Return the local folder with the files of a Hub repository that match *patterns*; download those that are missing.

    Raises MissingError if the Hub cannot be reached, and UserError if it has no such repository or commit.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"{repo}@{revision}"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))


def repository_files(repo: str, revision: str) -> list[str]:
    """Return the names of all files of a Hub repository; raise UserError as :func:`snapshot` does."""
    from huggingface_hub import HfApi

    with hub_errors(f"{repo}@{revision}"):
        return list(HfApi().list_repo_files(repo, revision=revision))


@contextmanager
def hub_errors(
    what: str, *, name: str = "correct `repo`", commit: str = "correct `revision`", offline: str = "set `path` to a local copy"
) -> Iterator[None]:
    """Silence the Hub's client, and turn every error that it raises into a UserError of one line.

    *name*, *commit* and *offline* say what to do where there is no such repository, no such commit, and no connection.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"{what}: is gated; accept its licence on its page on the Hub, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{what}: no such repository on the Hub, or a private one; {name}, or run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: the repository has no such commit; {commit}") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MissingError(f"cannot fetch {what}: {first_line(error)}; offline, {offline}") from error
