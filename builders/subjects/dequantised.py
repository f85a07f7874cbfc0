"""GGUF files as checkpoints of the transformers library: their weights are dequantised once and kept, and so is their tokenizer.

Reading such a file takes transformers twenty seconds for a small model, and torch, which stages that only read text do without. So another
process reads it, once, and writes what a checkpoint's folder holds: first config and tokenizer, and the weights where they are asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from builders.errors import UserError, one_of
from builders.library import transformers
from builders.subjects import gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEPT = Path(".interplake/checkpoints")
FORMAT = 1  # raise this number when equal files may be written otherwise than before
WORDS, WEIGHTS = "config.json", "model.safetensors"  # what is there where config and tokenizer are, and where the weights are
REFUSED = 3  # exit code of a process that says in one line why it does not read the file
QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
INSTEAD = "give the model's safetensors checkpoint instead"
# How byte-level vocabularies cut text before they merge, by `tokenizer.ggml.pre`, where transformers cuts all alike.
PLAIN = ("a.x-4.0", "exaone4", "gigachat", "gpt-2", "granite-docling", "jais", "mellum", "mpt", "olmo", "phi-2", "trillion")
DIGITS = ("codeshell", "command-r", "exaone", "mellum2", "minerva-7b", "refact", "smollm", "starcoder")  # every digit is a piece
# Those whose texts begin with the BOS token unless the file says otherwise, and whose whole words need no merges.
WHOLE = ("falcon-h1", "falcon3", "jina-v5-nano", "lfm2", "llama-bpe", "llama-v3", "llama3", "midm-2.0", "pixtral", "tekken")


def folder_of(path: Path, part: str = WORDS) -> Path:
    """Return the folder with config and tokenizer of the GGUF file *path*, and with its weights in float32 if *part* is WEIGHTS.

    Raises UserError where transformers cannot read the file.
    """
    folder = KEPT / f"{gguf.sha256(path)[:32]}-{version('transformers')}-{version('gguf')}-{FORMAT}"
    parts = (WORDS,) if part == WORDS else (WORDS, WEIGHTS)
    if _missing(folder, parts):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            if lacking := _missing(folder, parts):
                _make(path, folder, lacking)
    return folder


def _missing(folder: Path, parts: tuple[str, ...]) -> list[str]:
    return [part for part in parts if not (folder / part).exists()]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here with *folder*: it may need gigabytes, and what it makes is there afterwards."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        flock(opened, LOCK_EX)  # it ends with the process, however that ends
        yield
    finally:
        os.close(opened)


def _make(path: Path, folder: Path, parts: list[str]) -> None:
    """Let another process write *parts* of a GGUF file, and move them into *folder* when they are whole."""
    with TemporaryDirectory(dir=KEPT, prefix=".") as made:
        command = [sys.executable, "-m", __name__, str(path), str(folder), made, *parts]
        done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            last = next(reversed(done.stderr.strip().splitlines()), f"the process that reads it ended with code {done.returncode}")
            raise UserError(last if done.returncode == REFUSED else f"{path}: transformers cannot read it ({last}); {INSTEAD}")
        for file in sorted(Path(made).iterdir(), key=lambda file: file.name == WORDS):  # whoever sees it finds the others too
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            file.replace(folder / file.name)


def write_words(path: Path, made: Path) -> None:
    """Write config, generation config and tokenizer of a GGUF file into the folder *made*."""
    library, header = transformers(), gguf.header(path)
    require_plain_positions(path, header)
    config = library.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    names = library.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if config.model_type not in names:
        raise UserError(f"{path}: a model of type {config.model_type} continues no text; give a causal language model")
    config.architectures = [names[config.model_type]]
    config.save_pretrained(made)
    metadata = header.metadata
    ends = {int(metadata[key]) for name in ("eos", "eot", "eom") if (key := f"tokenizer.ggml.{name}_token_id") in metadata}
    start, filler = config.bos_token_id, config.pad_token_id
    library.GenerationConfig(bos_token_id=start, eos_token_id=sorted(ends) or None, pad_token_id=filler).save_pretrained(made)
    tokenizer_of(path, metadata).save_pretrained(made)


def tokenizer_of(path: Path, metadata: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, which gives the tokens that llama.cpp gives; raise UserError where that is not known."""
    tokenizer: Any = transformers().AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    kind, cut = metadata.get("tokenizer.ggml.model"), str(metadata.get("tokenizer.ggml.pre", "default"))
    if kind == "gpt2":
        cut_as_trained(path, tokenizer.backend_tokenizer, cut)
    elif kind == "llama":
        space_as_trained(tokenizer.backend_tokenizer, prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)))
    begins = cut in WHOLE if kind == "gpt2" else kind == "llama"
    tokenizer.add_bos_token = bool(metadata.get("tokenizer.ggml.add_bos_token", begins))
    made: PreTrainedTokenizerBase = tokenizer
    return made


def require_plain_positions(path: Path, header: gguf.Header) -> None:
    """Raise UserError where rotary positions are scaled: transformers does not read the scale from a GGUF file, and would be wrong."""
    kind = header.metadata.get(f"{header.architecture}.rope.scaling.type", "none")
    scales = [tensor.name for tensor in header.tensors if tensor.name.startswith("rope_")]
    if kind != "none" or scales:
        told = scales[0] if scales else kind
        raise UserError(f"{path}: its rotary positions are scaled ({told}), which transformers overlooks; {INSTEAD}")


def cut_as_trained(path: Path, backend: Any, cut: str) -> None:
    """Make a byte-level tokenizer cut text as llama.cpp does for `tokenizer.ggml.pre` *cut*; raise UserError where that is not known."""
    from tokenizers import pre_tokenizers

    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cut in WHOLE:
        backend.model.ignore_merges = True
    if cut in DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    elif cut in PLAIN:
        backend.pre_tokenizer = plain
    elif "Split(" not in str(backend.pre_tokenizer):
        raise UserError(f"{path}: how it cuts text into pieces (tokenizer.ggml.pre {cut!r}) is not known here; {INSTEAD}")


def space_as_trained(backend: Any, *, prefix: bool) -> None:
    """Make a SentencePiece tokenizer treat spaces as llama.cpp does: a text gets one before it if *prefix*, whatever it begins with."""
    from tokenizers import decoders, normalizers

    before = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    after = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *after])


def write_weights(path: Path, words: Path, made: Path) -> None:
    """Write the weights of a GGUF file, dequantised to float32, into the folder *made*; *words* holds its config."""
    import torch
    from safetensors.torch import save_file

    settings = {"gguf_file": path.name, "config": transformers().AutoConfig.from_pretrained(words), "dtype": torch.float32}
    model, found = transformers().AutoModelForCausalLM.from_pretrained(path.parent, **settings, output_loading_info=True)
    if found["missing_keys"]:
        raise UserError(f"{path}: weights are missing: {one_of(found['missing_keys'])}; {INSTEAD}")
    held, read = sum(tensor.elements for tensor in gguf.header(path).tensors), sum(weights.numel() for weights in model.parameters())
    if held != read:
        raise UserError(f"{path}: transformers reads {read:,} of its {held:,} weights, so the model would be another one; {INSTEAD}")
    places: dict[int, str] = {}  # tied weights are one tensor, which is written once
    stored = {name: values for name, values in model.state_dict().items() if places.setdefault(values.data_ptr(), name) == name}
    save_file({name: values.contiguous() for name, values in stored.items()}, made / WEIGHTS, {"format": "pt"})


def main(path: Path, folder: Path, made: Path, parts: list[str]) -> None:
    """Write *parts* of the GGUF file *path* into the folder *made*; *folder* holds those that were written before."""
    import gguf as package

    reader: Any = package
    # Transformers reads the header once for each class, and makes the map of names once for each module.
    reader.GGUFReader, reader.get_tensor_name_map = cache(reader.GGUFReader), cache(reader.get_tensor_name_map)
    try:
        if WORDS in parts:
            write_words(path, made)
        if WEIGHTS in parts:
            write_weights(path, made if WORDS in parts else folder, made)
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(REFUSED) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
