"""A latent in the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cards.show import coloured
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
