"""A latent in the terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from rows import FITS

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.failures import FAILURES
from builders.lake.shards import write_parquet
from builders.lake.table import Table
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import SCORES
from builders.similarity.partners import MATCHES
from cards.partners import partners
from cards.show import coloured, show_latent
from pipelines.cli import main

PIECES = [b"Hi", b" you", b"\n", b"<s>"]


def test_a_token_is_as_green_as_its_activation() -> None:
    """The strongest token has the strongest background, a silent one none, and line breaks can be seen."""
    text = coloured([0, 1, 2], [2.0, 0.0, 1.0], PIECES, 2.0)

    assert text.plain == "  Hi you⏎"
    assert [str(span.style) for span in text.spans] == ["black on rgb(65,255,65)", "dim", "black on rgb(160,255,160)"]


def test_a_character_of_several_tokens_is_whole() -> None:
    """Bytes of one character that lie in two tokens are read together."""
    text = coloured([0, 1], [0.0, 1.0], ["é".encode()[:1], "é".encode()[1:]], 1.0)

    assert text.plain == "  é"


def row_of(table: Table, **known: Any) -> dict[str, Any]:
    """Return a row of *table* with *known* columns, nothing where nothing may stand, and else something that fits."""
    fits = {column.name: [] if column.is_list else None if column.nullable else FITS[column.dtype] for column in table.columns}
    return fits | {"sae": "sae", "latent": 0} | known


def shown(folder: Path, inclusion: float, **more: list[dict[str, Any]]) -> list[str]:
    """Return the lines that are printed of a latent whose release has some *more* rows."""
    rows = {SAES: [{**row_of(SAES, width=1), "kind": "trained"}], LATENTS: [row_of(LATENTS, status="alive", max=1.0, inclusion=inclusion)]}
    tables = {"scores": SCORES, "failures": FAILURES, "matches": MATCHES, "explanations": EXPLANATIONS}
    for table, some in (rows | {tables[name]: some for name, some in more.items()}).items():
        kept = [{column.name: row[column.name] for column in table.columns} for row in some]
        (folder / table.name).mkdir(parents=True)
        write_parquet(folder / table.name / "train-00000-of-00001.parquet", table, [table.rows(kept)])
    (folder / "README.md").touch()
    console = Console(file=StringIO(), width=80)
    show_latent(folder, "sae", 0, 4, console)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_latent_that_was_not_drawn(tmp_path: Path) -> None:
    """It is said why there is nothing of a latent outside of the sample; of one inside, with what probability it is there."""
    failure = row_of(FAILURES, stage="contexts", item="latent", reason="too few")
    held = "drawn into the sample of latents, which holds it with probability 0.25"

    outside, inside = " ".join(shown(tmp_path / "out", 0.25)), " ".join(shown(tmp_path / "in", 0.25, failures=[failure]))

    assert f"not {held}: it has no windows, no explanations and no scores" in outside
    assert held in inside
    assert f"not {held}" not in inside
    assert "drawn" not in " ".join(shown(tmp_path / "all", 1.0))


def test_scores_are_told_with_what_could_change_them(tmp_path: Path) -> None:
    """Bounds, the examples of an AUROC and the score over the null stand below a score that has them, and only there."""
    plain = {"explainer": "asked", "judge": "llama", "status": "ok", "chance": 0.5, "n": 90, "n_failed": 0, "score": 0.7, "score_se": 0.05}
    whole = {**plain, "scorer": "detection", "score_low": 0.7, "score_high": 0.7, "auroc": 0.75, "auroc_n": 90}
    failed = {**whole, "scorer": "fuzzing", "n_failed": 10, "score_low": 0.64, "score_high": 0.74, "auroc_n": 80}
    pushed = {**plain, "scorer": "intervention", "chance": 0.0, "over_null": 0.4, "over_null_se": 0.1}

    lines = shown(tmp_path / "release", 1.0, scores=[row_of(SCORES, **row) for row in (whole, failed, pushed)])

    assert lines[lines.index("") + 1 :] == [
        "explainer  scorer         judge  score ± SE   chance  AUROC  n",
        "asked      detection      llama  0.70 ± 0.05  0.50    0.75   90",
        "asked      fuzzing        llama  0.70 ± 0.05  0.50    0.75   90",
        "             10 failed           0.64–0.74",
        "             AUROC of 80",
        "asked      intervention   llama  0.70 ± 0.05  0.00    –      90",
        "             over null           0.40 ± 0.10",
        "failed: the score if all of them had been answered wrongly, and if rightly",
        "AUROC of: the examples whose answer has a probability",
        "over null: the score less that of a random direction pushed to the same KL; its",
        "chance is 0",
    ]


def match(other: str, measure: str, partner: int, value: float, *, mutual: bool = False) -> dict[str, Any]:
    """Return a MATCHES row of the latent that is shown."""
    return row_of(MATCHES, other=other, measure=measure, partner=partner, value=value, mutual=mutual)


def told(matches: list[dict[str, Any]], explanations: dict[tuple[str, int], str]) -> list[str]:
    """Return the lines of the table of partners, on a wide screen."""
    console = Console(file=StringIO(), width=140)
    console.print(partners(matches, explanations))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_partners_are_told_with_their_explanations(tmp_path: Path) -> None:
    """After the scores each other dictionary has the nearest latent, whether it is mutual, its values, and its own explanation."""
    matches = [
        match("mamba", "pearson", 4, 0.25),
        match("sister", "decoder", 3, 0.5),
        match("sister", "pearson", 3, 0.75, mutual=True),
    ]
    fixed = {"status": "ok", "explainer": "lexical", "sample": 0}
    explanations = [
        row_of(EXPLANATIONS, sae="mamba", latent=3, text="of another latent", **fixed),
        row_of(EXPLANATIONS, sae="mamba", latent=4, text=None, **{**fixed, "explainer": "asked", "status": "no answer"}),
        row_of(EXPLANATIONS, sae="mamba", latent=4, text="words about rivers", **fixed),
        row_of(EXPLANATIONS, sae="mamba", latent=4, text="of another latent", **{**fixed, "explainer": "lexical-permuted"}),
        row_of(EXPLANATIONS, sae="sister", latent=3, text="rivers and boats", **fixed),
    ]
    lines = shown(tmp_path, 1.0, matches=matches, explanations=explanations)

    assert lines[lines.index("partners in other dictionaries (= the nearest of both)") + 1 :] == [
        "other   partner  decoder  pearson  explanation",
        "mamba   4        –        0.25     words about rivers",
        "sister  3 =      0.50     0.75     rivers and boats",
    ]
    assert not any("partners" in line for line in shown(tmp_path / "alone", 1.0))


def test_values_are_those_of_the_partner_that_is_shown() -> None:
    """By activations where there are any; another latent that decoder rows name has no value here. Long explanations are cut."""
    matches = [
        match("sister", "decoder", 7, 0.9, mutual=True),
        match("sister", "pearson", 3, 0.75),
        match("layers", "decoder", 5, 0.5, mutual=True),
        match("words", "explanation", 6, 0.9),
    ]
    lines = told(matches, {("sister", 3): "a" * 61, ("layers", 5): "b" * 60})

    assert lines == [
        "other   partner  decoder  pearson  explanation",
        f"layers  5 =      0.50     –        {'b' * 60}",
        f"sister  3        –        0.75     {'a' * 59}…",
        "words   6        –        –",
    ]


def test_a_folder_without_a_release(tmp_path: Path) -> None:
    """Without a release the command says how to get one."""
    result = CliRunner().invoke(main, ["show", "sae", "7", "--release", str(tmp_path)])

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr == f"error: {tmp_path}: no release here; build it with `dvc repro` or name another with --release\n"


@pytest.mark.parametrize("command", ["cache", "check", "docs", "show", "start", "why"])
def test_every_command_has_help(command: str) -> None:
    """Each command says in a sentence what it is for."""
    result = CliRunner().invoke(main, [command, "--help"])

    assert result.exit_code == 0
    assert len(result.output.splitlines()[2]) > 30
