"""Prompts: windows as a language model sees them (marked text, levels of activation), and the files that prompts are made from."""

from __future__ import annotations

import hashlib
import json
from codecs import getincrementaldecoder
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from builders.arrays import Bools, Ints
from builders.contexts.contexts import strong

Marks = tuple[str, str]  # what stands before and after marked tokens
MARKS = OPEN, CLOSE = "<<", ">>"
OTHERS = (("⟦", "⟧"), ("«", "»"))  # marks for texts that hold MARKS themselves, in the order in which they are tried
LISTED = 10  # at most so many tokens of a window are listed with their levels


def quote(piece: str) -> str:
    """Return *piece* in double quotes, so that spaces can be seen; line breaks and quotes are escaped."""
    return json.dumps(piece, ensure_ascii=False)


@dataclass(frozen=True)
class Prompts:
    """The files that a room's prompts are made from: templates, and worked examples."""

    folder: Path

    def fill(self, template: str, facts: Mapping[str, Any]) -> str:
        """Return *template* filled with *facts*, without white space at its ends."""
        return _environment(self.folder).get_template(template).render(facts).strip()

    def shots(self, name: str) -> list[dict[str, Any]]:
        """Return the worked examples in the file *name*."""
        return _shots(self.folder / name)

    def sha256(self, names: Sequence[str]) -> str:
        """Return the SHA-256 of the named files, which is the version of a prompt."""
        return _sha256(self.folder, tuple(names))


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(  # noqa: S701  # prompts are plain text
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"quote": quote, "quote_ascii": json.dumps}
    return environment


@cache
def _shots(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@cache
def _sha256(folder: Path, names: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return whole.hexdigest()


def free_marks(texts: Iterable[str]) -> Marks:
    """Return the first marks of which neither occurs in any of *texts*: MARKS, one of OTHERS, or numbered tags, which never run out."""
    whole = "\n".join(texts)
    tags = ((f"<m{number}>", f"</m{number}>") for number in count(1))
    return next(marks for marks in chain((MARKS,), OTHERS, tags) if not any(mark in whole for mark in marks))


def remarked(text: str, marks: Marks | None) -> str:
    """Return a worked example, which is written with MARKS, with other *marks*, or (None) without any."""
    before, after = marks or ("", "")
    return text.replace(OPEN, before).replace(CLOSE, after)


def marked_text(tokens: npt.NDArray[np.int32], marked: Bools, pieces: Sequence[bytes], marks: Marks = MARKS) -> str:
    """Return a window's text with every run of *marked* tokens between *marks*.

    If one token of a character is marked, the whole character is. *pieces* are the bytes of each token id.
    """
    decoder = getincrementaldecoder("utf-8")("replace")
    text = ""
    spans: list[list[int]] = []  # first character and end of each marked run
    for token, mark in zip(tokens, marked, strict=True):
        low = len(text)
        text += decoder.decode(pieces[token])
        high = len(text) + bool(decoder.getstate()[0])  # if the token ends within a character, that character is marked too
        if mark and spans and low <= spans[-1][1]:
            spans[-1][1] = max(high, spans[-1][1])
        elif mark and low < high:
            spans.append([low, high])
    text += decoder.decode(b"", final=True)
    before, after = marks
    for low, high in reversed(spans):
        text = f"{text[:low]}{before}{text[low:high]}{after}{text[high:]}"
    return text


def normalised(activations: npt.NDArray[np.float32], largest: float) -> Ints:
    """Return levels: activations as whole numbers from 0 to 10, rounded up, where 10 is the latent's *largest* activation."""
    levels: Ints = np.clip(np.ceil(10 * activations / largest - 1e-6), 0, 10).astype(np.int64)
    return levels


def listed(
    tokens: npt.NDArray[np.int32], activations: npt.NDArray[np.float32], largest: float, pieces: Sequence[bytes]
) -> list[tuple[str, int]]:
    """Return the LISTED strongest of a window's marked tokens, in their order in the text, each with its level."""
    places = np.flatnonzero(strong(activations))
    strongest = np.sort(places[np.argsort(-activations[places], kind="stable")[:LISTED]])
    levels = normalised(activations, largest)
    return [(pieces[tokens[place]].decode("utf-8", "backslashreplace"), int(levels[place])) for place in strongest]
