"""What every stage does with the ids that it is called with."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from project import SAE, make_project, run, small_params, write_params

from builders.errors import UserError
from pipelines.graph.stage import chosen

# A stage, the ids that it is called with, and what it says of the small project's params.
MISTAKES = {
    ("saes", "nosuch"): f"stage saes has no output for nosuch; it has outputs for {SAE}",
    ("tokens", "nosuch"): "stage tokens has no output for nosuch; it has outputs for lab",
    ("corpora", "topics", "nosuch"): "stage corpora has no output for topics nosuch; it has outputs for topics",
    ("explanations", "lexical", "nosuch"): f"stage explanations has no output for nosuch; it has outputs for {SAE}",
    ("explanations", "nosuch"): "explainers.nosuch: params have no such entry; there are lexical",
    ("scores", "detection", "nosuch"): f"stage scores has no output for nosuch; it has outputs for lexical, {SAE}",
    ("scores", "nosuch"): "scorers.nosuch: params have no such entry; there are detection, fuzzing",
    ("direct", "intruder", "nosuch"): f"stage direct has no output for nosuch; it has outputs for {SAE}",
    ("direct", "nosuch"): "direct_scorers.nosuch: params have no such entry; there are intruder",
}


@pytest.mark.parametrize(("called", "said"), MISTAKES.items())
def test_an_unknown_id_is_told_with_those_there_are(
    called: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that is called with an id that it does not have does nothing and names the ids that it has."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, small_params())
    stage, *ids = called

    with pytest.raises(UserError) as error:
        import_module(f"pipelines.stages.{stage}").main(*ids)

    assert str(error.value) == said
    assert not Path("build").exists()


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (("corpora", "nosuch"), "stage corpora has no output for nosuch; it has outputs for topics"),
        (("direct",), "stage direct takes SCORER_ID [ID …], and is given none"),
        (("sources", "topics"), "stage sources takes no ids, and is given topics"),
    ],
)
def test_wrong_ids_end_the_command_in_one_line(tmp_path: Path, called: tuple[str, ...], said: str) -> None:
    """The command prints one line and ends with 2, whether an id is unknown, missing or too many."""
    stage, *ids = called

    ended = run(make_project(tmp_path / "project", small_params()), f"pipelines.stages.{stage}", *ids)

    assert (ended.returncode, ended.stderr, ended.stdout) == (2, f"error: {said}\n", "")


def test_no_id_means_all_and_some_mean_those_that_have_all_of_them() -> None:
    """Of outputs that have two ids each, one id chooses all that have it, and two ids choose one."""
    pairs = [("a", "x"), ("a", "y"), ("b", "x")]

    assert chosen("scores", pairs, []) == pairs
    assert chosen("scores", pairs, ["x"]) == [("a", "x"), ("b", "x")]
    assert chosen("scores", pairs, ["y", "a"]) == [("a", "y")]
