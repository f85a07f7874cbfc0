"""Subjects, the language models under study: how a checkpoint is loaded, and the `subjects` config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.errors import UserError, first_line, one_of
from builders.lake.shards import file_sha256
from builders.lake.table import Column, Table
from builders.library import transformers
from builders.subjects import dequantised, gguf
from builders.subjects.places import CODE, KEPT, Source

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
        Column("reinitialised", "bool", "whether random weights take the place of the checkpoint's, as a control"),
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

RECURRENT = ("mamba", "rwkv", "xlstm", "recurrent")


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

    from builders.subjects.buffers import compute_buffers
    from builders.subjects.reinitialised import reinitialised

    transformers().utils.logging.disable_progress_bar()
    settings = {"dtype": getattr(torch, dtype), "trust_remote_code": source.trust_remote_code, **config}
    model: PreTrainedModel
    if source.reinitialised:
        model = reinitialised(config_of(source, folder), head, **settings)
    else:
        model = _stored(folder, head, settings)
        if source.trust_remote_code and not type(model).__module__.startswith("transformers."):
            compute_buffers(model)
    model.eval().requires_grad_(requires_grad=False)
    return model.to(device)  # type: ignore[arg-type,no-any-return]  # transformers wraps `to` in a way that hides its types


def _stored(folder: Path, head: str, settings: dict[str, Any]) -> PreTrainedModel:
    """Return the model with its stored weights; raise UserError if they are damaged or missing."""
    from safetensors import SafetensorError

    try:
        place = readable(folder, dequantised.WEIGHTS)
        loaded: Any = getattr(transformers(), head).from_pretrained(place, use_safetensors=True, **settings, output_loading_info=True)
    except SafetensorError as error:
        raise UserError(f"{folder}: weights that cannot be read ({error}); fetch the files themselves, not Git LFS pointers") from error
    model: PreTrainedModel
    model, found = loaded
    lacking = [name for name in found["missing_keys"] if not name.startswith("pooler.")]  # optional, and never read here
    if lacking:  # the library has put random numbers in their place
        raise UserError(f"{folder}: weights are missing: {one_of(lacking)}; fetch the whole checkpoint")
    return model


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
        "reinitialised": source.reinitialised,
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
