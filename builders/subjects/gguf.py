"""GGUF, the file format of llama.cpp: a model's metadata, vocabulary and quantised weights in one file."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from builders.errors import MissingError, UserError, one_of
from builders.lake.shards import file_sha256

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
INSTALL = "run `pip install 'interplake[local]'`"
WANTED = ("gguf", "accelerate")  # what transformers needs to read such a file
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # types of metadata, as in struct
STRING, ARRAY = 8, 9
ALIGNMENT = 32  # of the data, unless the metadata name another


@dataclass(frozen=True)
class Tensor:
    """A tensor of a GGUF file: its *elements*, and the number of the *type* in which they are stored, *offset* bytes after the header."""

    name: str
    elements: int
    type: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its weights; *start* is the place of its first weight, in bytes.

    Of lists of texts, such as the vocabulary, *metadata* hold the length only.
    """

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    start: int

    @property
    def architecture(self) -> str:
        """The name of the architecture, as llama.cpp calls it."""
        return str(self.metadata.get("general.architecture", "none"))

    @property
    def quantisation(self) -> str:
        """The format that most weights are stored in, such as `Q4_1` or `F16`."""
        from gguf import GGMLQuantizationType, LlamaFileType

        number = self.metadata.get("general.file_type")
        if number in set(LlamaFileType):
            return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        held = Counter[int]()
        for tensor in self.tensors:
            held[tensor.type] += tensor.elements
        return GGMLQuantizationType(held.most_common(1)[0][0]).name


class _Reading:
    """The bytes of a file, read from front to back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.place = data, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self._data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return found

    def skip(self) -> int:
        (length,) = self.numbers("Q")
        if self.place + length > len(self._data):
            raise struct.error
        self.place += length
        return int(length)

    def text(self) -> str:
        start = self.place + 8
        length = self.skip()
        return self._data[start : start + length].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.numbers(SCALARS[kind])[0]
        inner, count = self.numbers("IQ")
        if inner == STRING:
            for _ in range(count):
                self.skip()
            return count
        return [self.value(inner) for _ in range(count)] if inner == ARRAY else list(self.numbers(f"{count}{SCALARS[inner]}"))

    def tensor(self) -> Tensor:
        name, (dimensions,) = self.text(), self.numbers("I")
        elements = 1
        for size in self.numbers(f"{dimensions}Q"):
            elements *= size
        return Tensor(name, elements, *self.numbers("IQ"))


def header(path: Path) -> Header:
    """Return the header of a GGUF file; raise UserError where it is no GGUF file, or ends before its header does."""
    return _header(path, path.stat().st_mtime_ns)


@lru_cache
def _header(path: Path, _: int) -> Header:
    with path.open("rb") as file:
        if (begins := file.read(len(MAGIC))) != MAGIC:
            raise UserError(f"{path}: is no GGUF file (it begins with {begins!r}); fetch the file itself, not a page or a Git LFS pointer")
        try:
            with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
                return _read(path, _Reading(data))
        except (struct.error, KeyError, OverflowError) as error:
            raise UserError(f"{path}: ends inside its header, or is damaged; fetch it again") from error


def _read(path: Path, reading: _Reading) -> Header:
    reading.place = len(MAGIC)
    version, tensors, entries = reading.numbers("IQQ")
    if version not in VERSIONS:
        raise UserError(f"{path}: is a GGUF file of version {version}; only versions {one_of(VERSIONS)} can be read: fetch a newer file")
    metadata = {reading.text(): reading.value(*reading.numbers("I")) for _ in range(entries)}
    listed = tuple(reading.tensor() for _ in range(tensors))
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    return Header(metadata, listed, -(-reading.place // alignment) * alignment)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; one that has not changed is read once in a process."""
    return _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)


@lru_cache
def _sha256(path: Path, *_: int) -> str:
    return file_sha256(path)


def require_whole(path: Path) -> None:
    """Raise UserError where a GGUF file is none, ends before its last weight, or stores weights in a format that `gguf` does not know.

    Raises MissingError if the packages that read it are not installed. No weight is read.
    """
    require_packages()
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    found, size = header(path), path.stat().st_size
    if (parts := int(found.metadata.get("split.count", 1))) > 1:
        raise UserError(f"{path}: is one of {parts} parts of a model; join them with `llama-gguf-split --merge`")
    known = {int(kind) for kind in GGMLQuantizationType}
    for tensor in found.tensors:
        if tensor.type not in known:
            raise UserError(f"{path}: {tensor.name} is stored in format {tensor.type}, which `gguf` does not know; install a newer `gguf`")
        block, held = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        end = found.start + tensor.offset + tensor.elements // block * held
        if end > size:
            raise UserError(f"{path}: has {size:,} bytes, but {tensor.name} ends at byte {end:,}: the file is cut off; fetch it again")


def require_packages() -> None:
    """Raise MissingError where a package that reads GGUF files is not installed."""
    missing = [name for name in WANTED if find_spec(name) is None]
    if missing:
        raise MissingError(f"GGUF files need {one_of(missing)}, not installed here; {INSTALL}")


def in_package(package: str, file: str | None) -> Path:
    """Return the path of the GGUF file in an installed package, the one called *file* if it holds several; none of its code runs.

    Raises MissingError if the package is not installed, and UserError if it does not hold that one file.
    """
    found = None if "." in package else find_spec(package)  # of a package inside another one, the outer one's code would run
    if found is None:
        raise MissingError(f"package {package} is not installed; install it with pip, or correct `package`, the name that Python imports")
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = {path.relative_to(folder).as_posix(): path for folder in folders for path in sorted(folder.rglob(f"*{SUFFIX}"))}
    where = f"package {package}"
    if not files:
        raise UserError(f"{where}: holds no GGUF file (*{SUFFIX}); name a package that holds one")
    if file is None and len(files) > 1:
        raise UserError(f"{where}: holds {len(files)} GGUF files; set `file` to one of {one_of(files)}")
    if file is not None and file not in files:
        raise UserError(f"{where}: holds no {file}; set `file` to one of {one_of(files)}")
    return files[file] if file is not None else next(iter(files.values()))
