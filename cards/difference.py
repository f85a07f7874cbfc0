"""What differs between two releases, as Markdown: on a terminal, in a file, or on a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from builders.errors import one_of
from builders.lake.shards import write_atomic
from builders.releases.compare import Difference
from builders.releases.versions import demands, next_version, required
from cards.escaping import cell
from cards.render import render

SHOWN = 10  # explanations, unless all are asked for


def difference_page(difference: Difference, *, everything: bool = False) -> str:
    """Return a report of a difference in Markdown; of the explanations that changed it has the first SHOWN, or *everything*."""
    level = required(difference)
    shown = difference.explanations if everything else difference.explanations[:SHOWN]
    facts = {
        "found": difference,
        "level": level.name.lower(),
        "next": None if difference.before is None else ".".join(map(str, next_version(difference.before, level))),
        "demands": [(level.name.lower(), what) for level, what in demands(difference)],
        "rows": [
            (table, _examples(table.examples)) for table in difference.tables if table.rows is not None and any(vars(table.rows).values())
        ],
        "explanations": [{name: code(value) for name, value in vars(change).items()} for change in shown],
        "one_of": one_of,
        "code": code,
    }
    return render("difference.md.j2", facts)


def show_difference(difference: Difference, *, everything: bool = False, console: Console | None = None) -> None:
    """Print a report of a difference: laid out on a terminal, and as Markdown where the output goes elsewhere."""
    console = console or Console()
    page = difference_page(difference, everything=everything)
    if console.is_terminal:
        console.print(Markdown(page))
    else:
        console.out(page, highlight=False, end="")


def write_json(difference: Difference, file: Path) -> None:
    """Write all of a difference to a JSON file."""
    write_atomic(file, (json.dumps(difference.as_dict(), indent=1, ensure_ascii=False) + "\n").encode())


def code(value: object) -> str:
    """Return a value as code that cannot leave its cell: characters that do not print are written as escapes; a dash stands for None."""
    if value is None:
        return "–"
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(value))
    return f"`{cell(text) or ' '}`"


def _examples(examples: Any) -> str:
    """Return some keys of the rows that differ, as in added: lab, 3."""
    kinds: Mapping[str, Any] = vars(examples)
    return "; ".join(f"{kind}: {code(', '.join(map(str, keys[0].values())))}" for kind, keys in kinds.items() if keys)
