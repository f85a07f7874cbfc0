"""One entry of `saes` that stands for dictionaries at many layers, written out as one entry a layer.

DVC reads params.yaml as it is and makes a stage of each id, so a project's own file has every entry written out (`interplake expand`, and
`interplake start`). The text itself is written out, with its comments, and not what YAML makes of it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from builders.errors import UserError, one_of
from pipelines.params.problems import no_yaml

LAYER = "{layer}"
LISTS = re.compile(r"\{(\d+\.\.\d+|[\w.-]+(?:,[\w.-]+)+)\}")  # {0..25} or {0,5,10}
ANCHOR = re.compile(r"(?<=\s)&[\w-]+\s+")


def text_of(path: Path) -> str:
    """Return the text of the params at *path* with every entry for many layers written out.

    Raises UserError that names the file where there is none, where it is not YAML, and as :func:`written_out` does.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; run this in the project's folder")
    try:
        return written_out(path.read_text())
    except yaml.YAMLError as error:
        raise no_yaml(path, error) from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def written_out(text: str) -> str:
    """Return the YAML *text* of params with each entry of `saes` written out that lists layers in its `hookpoint`.

    `{layer}` stands for the entry's layer in any place; an id without it gets the layer at its end. Another list of as many items goes
    along with the layers. Raises UserError where lists do not fit, or ids are no longer distinct.
    """
    if LAYER not in text and not LISTS.search(text):
        return text
    entries = _saes(text)
    if entries is None:
        return text
    found = text
    for key, value in reversed(entries.value):  # from the end, so that places before it stay
        if any(LAYER in some or LISTS.search(some) for some in _strings(key, value)):
            start, end = key.start_mark.index, _end(text, value)
            separator = ", " if entries.flow_style else "\n" + " " * key.start_mark.column
            found = found[:start] + separator.join(_each(text[start:end], key, value)) + found[end:]
    if found != text:
        _require_distinct(found)
    return found


def _saes(text: str) -> yaml.MappingNode | None:
    root: Any = yaml.compose(text, yaml.SafeLoader)
    sections = root.value if isinstance(root, yaml.MappingNode) else []
    found = next((value for key, value in sections if key.value == "saes"), None)
    return found if isinstance(found, yaml.MappingNode) else None


def _strings(key: yaml.Node, value: yaml.Node) -> list[str]:
    """Return the id of an entry and all its values that are text or numbers."""
    pairs = value.value if isinstance(value, yaml.MappingNode) else []
    return [str(node.value) for node in (key, *(own for _, own in pairs)) if isinstance(node, yaml.ScalarNode)]


def _end(text: str, value: yaml.Node) -> int:
    """Return where an entry ends: comments and empty lines after it belong to what follows."""
    end = value.end_mark.index
    lines = text[:end].splitlines(keepends=True)
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        end -= len(lines.pop())
    return end - (len(lines[-1]) - len(lines[-1].rstrip()))


def _each(entry: str, key: yaml.ScalarNode, value: yaml.Node) -> list[str]:
    """Return the text of an *entry* once for each of its layers."""
    name = f"saes.{key.value}"
    fields = {str(own.value): str(some.value) for own, some in value.value} if isinstance(value, yaml.MappingNode) else {}
    listed = LISTS.search(fields.get("hookpoint", ""))
    if listed is None:
        raise UserError(f'{name}: its `hookpoint` lists no layers; write them there, such as "layers.{{0..25}}" or "layers.{{0,5,10}}"')
    layers = _items(listed[1])
    if not layers:
        ends = " to ".join(listed[1].split(".."))
        raise UserError(f"{name}: `hookpoint` lists no layers from {ends}; begin with the smaller")
    for field, some in {"the id": str(key.value), **fields}.items():
        for other in LISTS.findall(some):
            if len(_items(other)) != len(layers):
                raise UserError(
                    f"{name}: {field} lists {len(_items(other))} values, and `hookpoint` {len(layers)} layers; list one for each"
                )
    if LAYER not in key.value and not LISTS.search(key.value):
        place = key.end_mark.index - key.start_mark.index - bool(key.style)  # before the quotation mark, if it ends with one
        entry = f"{entry[:place]}-{LAYER}{entry[place:]}"
    return [_one(entry, layers, number) for number in range(len(layers))]


def _one(entry: str, layers: list[str], number: int) -> str:
    """Return an *entry* at one of its *layers*; an anchor is left to the first."""

    def chosen(found: re.Match[str]) -> str:
        items = _items(found[1])
        return items[number] if len(items) == len(layers) else found[0]  # lists of other lengths stand in comments only

    text = LISTS.sub(chosen, entry).replace(LAYER, layers[number])
    return ANCHOR.sub("", text) if number else text


def _items(listed: str) -> list[str]:
    """Return what a list such as `0..25` or `0,5,10` lists."""
    if "," in listed:
        return listed.split(",")
    first, last = map(int, listed.split(".."))
    return [str(number) for number in range(first, last + 1)]


def _require_distinct(text: str) -> None:
    """Raise UserError where two entries of `saes` have the same id."""
    entries = _saes(text)
    twice = [name for name, count in Counter(str(key.value) for key, _ in entries.value).items() if count > 1] if entries else []
    if twice:
        raise UserError(f"saes: {one_of(twice)} comes twice once all layers are written out; choose other ids")
