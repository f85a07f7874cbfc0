"""Entries of `saes` that stand for many layers: as text they become one entry a layer, and nothing else of the file changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from project import small_params, write_params

from builders.errors import UserError
from pipelines.cli import main
from pipelines.graph.closure import ROOT
from pipelines.params import Params, load
from pipelines.params.layers import written_out

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "seed: 0\n\nsaes:\n"
TAIL = "\n# What follows.\nother: {a: 1}\n"


def saes(text: str) -> dict[str, Any]:
    """Return the entries of `saes` of a text."""
    found: dict[str, Any] = yaml.safe_load(text)["saes"]
    return found


def test_a_range_of_layers_is_written_out() -> None:
    """`layers.{0..2}` is three entries; `{layer}` stands for the layer in the id and elsewhere, and the rest of the file stays."""
    entry = "  l{layer}-16k:\n    source: pretrained # theirs\n    hookpoint: layers.{0..2}\n    folder: layer_{layer}/width_16k\n"
    each = [entry.replace("{layer}", layer).replace("{0..2}", layer) for layer in "012"]

    assert written_out(HEAD + entry + TAIL) == HEAD + "".join(each) + TAIL


def test_listed_layers_and_values_go_together() -> None:
    """A list of as many values as there are layers gives each layer its own, in an entry of one line too."""
    entry = '  "l{layer}-{a,b,c}": {hookpoint: "layers.{0,5,10}.mlp", folder: "layer_{layer}/l0_{105,68,77}", k: "{1,2,3}"}\n'

    assert saes(written_out(HEAD + entry)) == {
        "l0-a": {"hookpoint": "layers.0.mlp", "folder": "layer_0/l0_105", "k": "1"},
        "l5-b": {"hookpoint": "layers.5.mlp", "folder": "layer_5/l0_68", "k": "2"},
        "l10-c": {"hookpoint": "layers.10.mlp", "folder": "layer_10/l0_77", "k": "3"},
    }


@pytest.mark.parametrize("key", ["sae", '"sae"', "'sae'"])
def test_an_id_without_a_place_for_the_layer_gets_it_at_its_end(key: str) -> None:
    """Ids must differ, so the layer is put behind an id that does not name it, quoted or not."""
    assert list(saes(written_out(f'{HEAD}  {key}: {{hookpoint: "layers.{{3..4}}"}}\n'))) == ["sae-3", "sae-4"]


def test_a_file_of_one_line_is_written_out() -> None:
    """`saes` may be one line of braces; entries that stand for one dictionary stay between the others."""
    text = 'saes: {a: {hookpoint: layers.1}, b: {hookpoint: "layers.{0..1}"}, c: {hookpoint: layers.2}}\n'
    assert saes(written_out(text)) == {name: {"hookpoint": f"layers.{n}"} for name, n in (("a", 1), ("b-0", 0), ("b-1", 1), ("c", 2))}


def test_an_anchor_is_kept_once() -> None:
    """A value with an anchor is written out in every entry, and other entries still find it."""
    text = (
        HEAD
        + '  a:\n    hookpoint: layers.{0..1}\n    revision: &pin "007"\n  # The other one.\n  b: {hookpoint: layers.7, revision: *pin}\n'
    )
    assert {name: one["revision"] for name, one in saes(written_out(text)).items()} == {"a-0": "007", "a-1": "007", "b": "007"}
    assert "  # The other one.\n  b: " in written_out(text)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3))
def test_as_many_entries_as_layers(first: int, more: int, others: int) -> None:
    """Any range gives its layers in order, wherever in the file the entry stands."""
    rest = [f"  other{n}: {{hookpoint: layers.{n}}}\n" for n in range(others)]
    text = HEAD + "".join([*rest[:1], f"  x:\n    hookpoint: layers.{{{first}..{first + more}}}\n", *rest[1:]]) + TAIL
    found = written_out(text)

    assert [one["hookpoint"] for name, one in saes(found).items() if name[0] == "x"] == [
        f"layers.{layer}" for layer in range(first, first + more + 1)
    ]
    assert {name for name in saes(found) if name[0] == "o"} == {f"other{n}" for n in range(others)}
    assert found.endswith(TAIL)


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "params.yaml").read_text(),
        "subjects: {a: {template: '{layer}: {question}'}}\nsaes: {a: {hookpoint: layers.1}}\n",
        "{0..3}: no mapping of sections that anybody knows\n",
        "- '{0..3}'\n",
        "",
    ],
)
def test_other_text_stays(text: str) -> None:
    """What lists no layers in `saes` is left as it is, to the letter."""
    assert written_out(text) == text


MISTAKES = {
    "no layers": (
        "  a:\n    folder: layer_{layer}\n    hookpoint: layers.1\n",
        "saes.a: its `hookpoint` lists no layers; write them there",
    ),
    "another number": (
        '  a: {hookpoint: "layers.{0..2}", folder: "l0_{10,20}"}\n',
        "saes.a: folder lists 2 values, and `hookpoint` 3 layers; list one for each",
    ),
    "another number in the id": ('  "a-{0,1}": {hookpoint: "layers.{0..2}"}\n', "the id lists 2 values, and `hookpoint` 3 layers"),
    "the same id": (
        '  a: {hookpoint: "layers.{0..1}"}\n  a-1: {hookpoint: layers.9}\n',
        "saes: a-1 comes twice once all layers are written",
    ),
    "the same layer": ('  a: {hookpoint: "layers.{4,4}"}\n', "saes: a-4 comes twice once all layers are written"),
    "backwards": ('  a: {hookpoint: "layers.{4..2}"}\n', "saes.a: `hookpoint` lists no layers from 4 to 2; begin with the smaller"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_lists_that_do_not_fit_are_one_line(mistake: str) -> None:
    """What is wrong with a list is told with the entry's id."""
    entry, told = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        written_out(HEAD + entry)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def compact(**more: Any) -> dict[str, Any]:
    """Return small params with one entry for three layers."""
    params = small_params()
    params["saes"] = {"rows-l{layer}": {"source": "random", "subject": "lab", "hookpoint": "layers.{0,1,2}", "width": 8, "k": 2, **more}}
    return params


def test_a_projects_own_file_is_refused_until_it_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would take the entry for one dictionary, so `check` says what to run; `expand` writes the file, and then all is well."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, compact())
    refused = CliRunner().invoke(main, ["check"])
    written = CliRunner().invoke(main, ["expand"])
    again = CliRunner().invoke(main, ["expand"])

    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: params.yaml: an entry of `saes` stands for many layers, and DVC would take it for one; run `interplake expand`\n"
    )
    assert written.output == "wrote params.yaml: each of its 3 dictionaries has an entry of its own\n"
    assert again.output == "params.yaml: nothing to write out; each of its 3 dictionaries has an entry of its own\n"
    assert list(load().saes) == ["rows-l0", "rows-l1", "rows-l2"]
    assert load() == Params.model_validate(yaml.safe_load((tmp_path / "params.yaml").read_text()))


def test_a_mistake_leaves_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Params that would not be valid are told by the id of a layer, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, compact(widht=9))
    before = (tmp_path / "params.yaml").read_bytes()
    result = CliRunner().invoke(main, ["expand"])

    assert result.exit_code == 2
    assert result.stderr.startswith("error: params.yaml: saes.rows-l0.widht: unknown key")
    assert (tmp_path / "params.yaml").read_bytes() == before


def test_a_started_project_has_it_written_out(tmp_path: Path) -> None:
    """Params that are named may stand for many layers; `start` writes them out for DVC."""
    write_params(tmp_path, compact())
    result = CliRunner().invoke(main, ["start", str(tmp_path / "mine"), "--params", str(tmp_path / "params.yaml")])

    assert result.exit_code == 0, result.stderr
    assert load(tmp_path / "mine/params.yaml") == load(tmp_path / "params.yaml")
    assert written_out((tmp_path / "mine/params.yaml").read_text()) == (tmp_path / "mine/params.yaml").read_text()
