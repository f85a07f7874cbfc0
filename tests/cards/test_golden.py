"""The card of a tiny release. `INTERPLAKE_GOLDEN=write pytest tests/cards/test_golden.py` writes it anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from carded import FACTS, carded
from jinja2 import UndefinedError

from builders.releases.release import open_release
from cards import card
from cards.header import Part
from cards.printed import printed_latents
from cards.render import render
from pipelines.registry import CONFIGS

GOLDEN = Path(__file__).parent / "golden/card.md"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny release."""
    root = tmp_path_factory.mktemp("tiny")
    carded(root)
    return root


@pytest.fixture(scope="module")
def written(tiny: Path) -> str:
    """Return its card below the header, which is specified by itself."""
    return (tiny / "README.md").read_text(encoding="utf-8").split("---\n\n", 1)[1]


def test_the_card_is_the_golden_one(written: str) -> None:
    """Nobody changes the card without seeing how it reads."""
    if os.environ.get("INTERPLAKE_GOLDEN") == "write":
        GOLDEN.write_text(written, encoding="utf-8")
    assert written == GOLDEN.read_text(encoding="utf-8")


def test_no_text_becomes_markup(written: str) -> None:
    """An explanation with HTML and Markdown in it is shown as it is, wherever the card tells it."""
    assert "<script>" not in written
    assert r"&lt;script&gt;alert(\"*x*\")" not in written
    assert r'- `asked`: Fires on "tag" \| &lt;script&gt;alert("\*x\*")&lt;/script&gt;⏎# no heading \`code\` \$y\$ (detection' in written
    assert '"fires in \\| 1 &lt;window&gt;"' in written
    assert "~~~~text\na<<⏎~~~ tag>>\n~~~~\n" in written


def test_every_fold_is_closed(written: str) -> None:
    """GitHub and the Hub read what is folded as Markdown only between empty lines."""
    lines = written.splitlines()
    opened = [number for number, line in enumerate(lines) if line == "<details>"]

    assert len(opened) == lines.count("</details>") > 5
    assert all(lines[number + 1].startswith("<summary>") and lines[number + 2] == "" for number in opened)
    assert all(lines[number - 1] == "" for number, line in enumerate(lines) if line == "</details>")


def test_every_config_has_its_columns(written: str) -> None:
    """A config's section has its key, what it refers to, and each column with type, unit and meaning."""
    section = written.split("<summary><b>embeddings</b>: its columns</summary>")[1].split("</details>")[0]

    assert "One row is an explanation as a vector" in section
    assert "identified and sorted by `sae`, `latent`, `explainer`." in section
    assert "- `sae`, `latent`, `explainer` refer to those of `explanations`." in section
    assert "| `vector` | `list<float32>[2]` | the vector, " in section


@pytest.mark.parametrize("name", ["title", "place", "results", "limits", "ingredients", "citation", "configs", "example", "tokens"])
def test_a_fact_that_is_missing_is_an_error(tiny: Path, name: str) -> None:
    """With all facts the template gives the card, and without one of them it has no gap, but fails."""
    tables = {config.table.name: config.table for config in CONFIGS}
    release = open_release(tiny)
    read = {known: release.read(known) if known in release.tables else tables[known].empty() for known in card.READ}
    found = {**card.results(read, 0), "printed": printed_latents(tiny, read, 0), "costs": []}
    parts = [Part.of(table, release.paths(known)) for known, table in release.tables.items()]
    absent = [table for known, table in tables.items() if known not in release.tables]
    facts = card.filling(tiny, parts, absent, {**FACTS, **card.told(read, found), "headline": ""})

    assert (tiny / "README.md").read_text(encoding="utf-8").endswith(render("release.md.j2", facts))
    with pytest.raises(UndefinedError):
        render("release.md.j2", {known: fact for known, fact in facts.items() if known != name})
