"""A difference between two releases as a page."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from known import release_of
from rich.console import Console

from builders.releases.compare import Difference, compare
from cards.difference import code, difference_page, show_difference


def explained(tmp_path: Path) -> Difference:
    """Return the difference between two releases of one explanation, which now holds what would break a page."""
    texts = {"a": "cats", "b": "dogs\n\n# loud | <b>`\x1b[31m"}
    rows = ({"explanations": [{"sae": "one", "latent": 3, "explainer": "words", "text": text}]} for text in texts.values())
    return compare(*(release_of(tmp_path / name, held, f"1.0.{place}") for place, (name, held) in enumerate(zip(texts, rows, strict=True))))


def test_the_page_of_a_difference(tmp_path: Path) -> None:
    """A patch of one explanation, to the letter."""
    assert difference_page(explained(tmp_path)) == (
        "# small 1.0.0 → 1.0.1\n\n"
        "It is a **patch** change: the next version is at least 1.0.1. Files: 0 added, 0 removed, 2 changed, 0 the same.\n\n"
        "## Rows\n\n"
        "| config | before | after | added | removed | changed | for example |\n|---|---|---|---|---|---|---|\n"
        "| explanations | 1 | 1 | 0 | 0 | 1 | changed: `one, 3, words` |\n\n"
        "## Explanations with another text\n\n1 in all.\n\n"
        "- `one` `3`, `words`\n    - before: `cats`\n    - after: `dogs\\n\\n# loud ¦ <b>ˋ\\x1b[31m`\n"
    )


def test_a_terminal_shows_it_laid_out(tmp_path: Path) -> None:
    """The same page, without the signs of Markdown, and without what a text would do to a terminal."""
    out = StringIO()
    show_difference(explained(tmp_path), console=Console(file=out, force_terminal=True, color_system=None, width=100))

    assert "small 1.0.0 → 1.0.1" in out.getvalue()
    assert "| config |" not in out.getvalue()
    assert "dogs\\n\\n# loud ¦ <b>ˋ\\x1b[31m" in out.getvalue()
    assert "[31m" not in out.getvalue().replace("\\x1b[31m", "")


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), ("", "` `"), (3, "`3`"), ("ü → `x`|\t", "`ü → ˋxˋ¦\\t`")])
def test_a_value_as_code(value: object, shown: str) -> None:
    """Nothing leaves its code or its cell, and letters of all scripts stay as they are."""
    assert code(value) == shown
