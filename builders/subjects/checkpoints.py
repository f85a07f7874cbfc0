"""Subjects, the language models under study: how a checkpoint is found, pinned and loaded, and the `subjects` config."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.errors import MissingError, UserError, first_line, one_of
from builders.lake.shards import file_sha256
from builders.lake.table import Column, Table
from builders.library import transformers
from builders.subjects import dequantised, gguf

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SUBJECTS = Table(
    name="subjects",
    row="a language model under study",
    key=("subject",),
    columns=(
        Column("subject", "string", "its id in this release"),
        Column("source", "string", "the Hub repository, Python package, or local folder or file it came from"),
        Column("revision", "string", "the pinned commit of the Hub repository", nullable=True),
        Column("files", "list<string>", "name and SHA-256 of every weight, config and tokenizer file"),
        Column(
            "quantisation",
            "string",
            "the format its weights were stored in, where it came from a GGUF file; they are dequantised when it is loaded",
            nullable=True,
            categorical=True,
        ),
        Column("architecture", "string", "the class that runs it", categorical=True),
        Column("recurrent", "bool", "whether it carries a recurrent state instead of attending to all earlier tokens"),
        Column("layers", "int32", "number of blocks", low=1),
        Column("width", "int32", "size of the residual stream", unit="dimensions", low=1),
        Column("vocabulary", "int32", "number of token ids", unit="tokens", low=1),
        Column("context", "int32", "longest input, where the architecture has a limit", unit="tokens", nullable=True),
        Column("tokenizer", "string", "the class of its tokenizer", categorical=True),
        Column("dtype", "string", "number format it ran in", categorical=True),
        Column("device", "string", "kind of device it ran on", categorical=True),
    ),
)

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
KEPT = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
CODE = ("*.py",)
MEGABYTE = 2**20
RECURRENT = ("mamba", "rwkv", "xlstm", "recurrent")


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is: at a local *path*, in a Hub repository (*repo*), or in an installed Python *package*.

    The path is a folder or a GGUF file; the repository is at a pinned commit (*revision*); *file* is the name of a GGUF file in the
    repository or package. Python code from the checkpoint runs only if *trust_remote_code* is set.
    """

    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    file: str | None = None
    package: str | None = None

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

    with _hub_errors(f"{repo}@{revision}"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))


def repository_files(repo: str, revision: str) -> list[str]:
    """Return the names of all files of a Hub repository; raise UserError as :func:`snapshot` does."""
    from huggingface_hub import HfApi

    with _hub_errors(f"{repo}@{revision}"):
        return list(HfApi().list_repo_files(repo, revision=revision))


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Silence the Hub's client, and turn every error that it raises into a UserError of one line."""
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
        raise UserError(f"{what}: no such repository on the Hub, or a private one; correct `repo`, or run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: the repository has no such commit; correct `revision`") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MissingError(f"cannot fetch {what}: {first_line(error)}; offline, set `path` to a local copy") from error


def readable(place: Path, part: str = dequantised.WORDS) -> Path:
    """Return the folder that transformers reads: *place* itself, or, of a GGUF file, the folder that holds *part* of it."""
    return dequantised.folder_of(place, part) if place.suffix == gguf.SUFFIX else place


def config_of(source: Source, folder: Path) -> PretrainedConfig:
    """Return the checkpoint's configuration; raise UserError if the transformers library does not know it."""
    try:
        config: PretrainedConfig = transformers().AutoConfig.from_pretrained(readable(folder), trust_remote_code=source.trust_remote_code)
    except (ValueError, OSError) as error:
        raise UserError(f"{folder}: {first_line(error)}; code from a repository runs only with `trust_remote_code: true`") from error
    return config


def tokenizer_of(source: Source, folder: Path) -> PreTrainedTokenizerBase:
    """Return the checkpoint's tokenizer; raise UserError if it has none that loads."""
    try:
        tokenizer: PreTrainedTokenizerBase
        tokenizer = transformers().AutoTokenizer.from_pretrained(readable(folder), trust_remote_code=source.trust_remote_code)
    except (ValueError, OSError) as error:
        raise UserError(f"{folder}: no tokenizer that loads: {first_line(error)}; fetch the tokenizer's files too") from error
    tokenizer.model_max_length = 10**9  # rows are cut later, so the warning about long texts would mislead
    return tokenizer


def context_of(config: PretrainedConfig) -> int | None:
    """Return the longest input in tokens, or None if the architecture sets no limit."""
    limit = None if is_recurrent(config) else getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None


def is_recurrent(config: PretrainedConfig) -> bool:
    """Return whether the architecture carries a recurrent state."""
    return any(word in str(config.model_type).lower() for word in RECURRENT)


def resolve_device(device: str) -> str:
    """Return the device that *device* stands for: `auto` is CUDA if there is one, else the CPU.

    Raises UserError if this machine has no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.split(":")[0], True):
        raise UserError(f"device {device!r} is not there on this machine; set it to `auto` or `cpu`")
    return device


def resolve_dtype(dtype: str, device: str, config: PretrainedConfig) -> str:
    """Return the number format that *dtype* stands for: `auto` is float32 on a CPU, the checkpoint's own elsewhere."""
    if dtype != "auto":
        return dtype
    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return "float32" if device == "cpu" else own


def load(source: Source, folder: Path, dtype: str, device: str, head: str = "AutoModelForCausalLM", **config: Any) -> PreTrainedModel:
    """Load the model without gradients, in the number format *dtype* on *device*.

    *head* is the transformers class that loads it: `AutoModel` loads it without a language-modelling head. The values of *config* take
    the place of those of config.json. Raises UserError if weights are damaged or missing.
    """
    import torch
    from safetensors import SafetensorError

    from builders.subjects.buffers import compute_buffers

    transformers().utils.logging.disable_progress_bar()
    settings = {"dtype": getattr(torch, dtype), "trust_remote_code": source.trust_remote_code, "use_safetensors": True, **config}
    try:
        place = readable(folder, dequantised.WEIGHTS)
        loaded: Any = getattr(transformers(), head).from_pretrained(place, **settings, output_loading_info=True)
    except SafetensorError as error:
        raise UserError(f"{folder}: weights that cannot be read ({error}); fetch the files themselves, not Git LFS pointers") from error
    model: PreTrainedModel
    model, found = loaded
    lacking = [name for name in found["missing_keys"] if not name.startswith("pooler.")]  # optional, and never read here
    if lacking:  # the library has put random numbers in their place
        raise UserError(f"{folder}: weights are missing: {one_of(lacking)}; fetch the whole checkpoint")
    if source.trust_remote_code and not type(model).__module__.startswith("transformers."):
        compute_buffers(model)
    model.eval().requires_grad_(requires_grad=False)
    return model.to(device)  # type: ignore[arg-type,no-any-return]  # transformers wraps `to` in a way that hides its types


def skeleton(source: Source, config: PretrainedConfig) -> torch.nn.Module:
    """Return the model without weights: enough to look up its module names, and made in no time."""
    import torch

    with torch.device("meta"):
        model: torch.nn.Module = transformers().AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code)
    return model


def subject_row(subject: str, source: Source, folder: Path, dtype: str, device: str) -> dict[str, Any]:
    """Return the SUBJECTS row of a checkpoint."""
    config = config_of(source, folder)
    text = config.get_text_config()  # in a multimodal model, the part that reads text
    stored = folder.suffix == gguf.SUFFIX
    patterns = (*KEPT, *(CODE if source.trust_remote_code else ()))
    names = [folder] if stored else sorted(file for pattern in patterns for file in folder.glob(pattern))
    return {
        "subject": subject,
        "source": source.label,
        "revision": source.revision,
        "files": [f"{file.name} {file_sha256(file)}" for file in names],
        "quantisation": gguf.header(folder).quantisation if stored else None,
        "architecture": (config.architectures or [type(config).__name__])[0],
        "recurrent": is_recurrent(config),
        "layers": int(text.num_hidden_layers),
        "width": int(text.hidden_size),
        "vocabulary": int(text.vocab_size),
        "context": context_of(text),
        "tokenizer": type(tokenizer_of(source, folder)).__name__,
        "dtype": resolve_dtype(dtype, device, config),
        "device": device,
    }
