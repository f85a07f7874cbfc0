"""The pages that are written from a release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.errors import UserError
from pipelines import docs
from pipelines.graph.closure import ROOT

FOUND = json.loads((ROOT / "docs/results.json").read_bytes())


def test_numbers_are_those_of_the_release() -> None:
    """README tells the median of detection for trained SAEs, and another release's number replaces it."""
    readme = (ROOT / "README.md").read_text()
    changed = json.loads(json.dumps(FOUND))
    for row in changed["scores"]:
        if (row["scorer"], row["kind"], row["sae"]) == ("detection", "trained", "all"):
            row["score"]["median"] = 0.123

    assert "**0.12** (" not in docs.filled(readme, FOUND)
    assert "**0.12** (" in docs.filled(readme, changed)


def test_a_release_without_baselines_has_no_numbers() -> None:
    """Where nothing was calibrated there is nothing to tell: the list of configs stays, the numbers go."""
    filled = docs.filled((ROOT / "README.md").read_text(), {**FOUND, "calibration": []})

    assert "<!-- numbers -->\n<!-- /numbers -->" in filled
    assert "| `scores` | " in filled


def test_readme_tells_of_the_run_of_a_real_language_model() -> None:
    """README shows ten of its latents and the scores of each scorer, as docs/runs/local.json has them; a bar in a text ends no cell."""
    local = json.loads((ROOT / "docs/runs/local.json").read_bytes())
    local["printed"][0]["windows"][0] = "one | two"
    block = docs.local_block(local)

    assert "`one ¦ two`" in block
    assert all(f"| {latent['sae']} {latent['latent']} | `" in block for latent in local["printed"])
    scored = {row["scorer"] for row in local["scores"] if row["kind"] == "trained" and row["score"]["n"]}
    assert scored
    assert all(f"| {scorer} (" in block for scorer in scored)


def test_the_results_page_has_steering_where_there_is_some() -> None:
    """The page shows the table and the figure of steering, and neither where nothing was steered."""
    assert "![Effects of steering" in docs.results_page(FOUND)
    assert "Steering" not in docs.results_page({**FOUND, "steering": []})


def test_without_a_release_there_are_no_pages(tmp_path: Path) -> None:
    """The command says how to make a release."""
    with pytest.raises(UserError, match="no release to take results from; build it with `dvc repro`"):
        docs.write_docs(tmp_path)
    with pytest.raises(UserError, match="no release to take results from; build it with `dvc repro`"):
        docs.write_run(tmp_path, "local")


def test_an_example_has_a_page_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page names the example that made the release, its figures lie beside it, and README stays as it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(FOUND))
    figures, page = docs.write_run(tmp_path, "local")

    assert json.loads(figures.read_bytes()) == FOUND
    assert page.read_text() == docs.results_page(FOUND, "local")
    assert page.read_text().startswith("# Results of the run local\n")
    assert "examples/local.yaml" in page.read_text()
    assert sorted(path.name for path in tmp_path.rglob("*.md")) == ["local.md"]
