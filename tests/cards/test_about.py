"""What a release says of itself: how to cite it, and what its texts may hold of people."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from carded import FACTS

from cards.about import about, responsible
from pipelines.graph.closure import ROOT

TOLD: dict[str, Any] = {"dictionaries": [{}], "studied": 1, "steered": {"subject": []}, "kinds": ["trained"], "names": ["scores"]}


def test_papers_are_cited_as_the_code_cites_them() -> None:
    """Title, year, arXiv number, volume and pages of each paper are those of CITATION.cff."""
    papers = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    entries = about({**FACTS, **TOLD})["citation"].split("@inproceedings")[1:]

    assert len(entries) == len(papers) == 2
    for paper, entry in zip(papers, entries, strict=True):
        assert f'title         = "{paper["title"]}"' in entry.replace("{RNNs}", "RNNs")
        assert f'"{paper["year"]}"' in entry
        assert f'"{paper["identifiers"][0]["value"].removeprefix("arXiv:")}"' in entry
        assert all(author["family-names"] in entry for author in paper["authors"])
        assert "start" not in paper or f'"{paper["start"]}--{paper["end"]}"' in entry


@pytest.mark.parametrize(("repo", "place"), [("org/tiny", "org/tiny"), (None, "tiny")])
def test_the_release_is_cited_with_its_place_and_version(repo: str | None, place: str) -> None:
    """It is at its repository where params name one, and else has its name only."""
    found = about({**FACTS, **TOLD, "repo": repo})

    assert found["place"] == place
    assert found["citation"].startswith('@misc{tiny,\n  title        = "A tiny release",')
    assert f'howpublished = "{place}, made with interplake 0.1.0"' in found["citation"]


def test_what_texts_may_hold_of_people() -> None:
    """Of corpora that come with Python or with this code it is known; texts from elsewhere nobody has searched."""
    sources = {"docs": "python-docs", "talks": "townsfolk", "own": "files", "web": "hub"}
    corpora = {name: {"source": source} for name, source in sources.items()}
    docs, talks, own, web = responsible({**FACTS, "corpora": corpora})["personalSensitiveInformation"]

    assert docs == "docs: The documentation of Python names some of its authors, in public."
    assert talks == "talks: The people of its talks are invented."
    assert own.startswith("own: Nobody has searched its texts for what is personal")
    assert web == own.replace("own: ", "web: ")
