"""A GGUF file as a subject, through the real commands: the check, and the stages that read only its config and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ggufs import write_gguf
from project import run, small_params, write_params

from builders.lake.shards import file_sha256
from builders.subjects.checkpoints import SUBJECTS
from builders.text.tokens import TOKENS
from pipelines.graph.closure import ROOT
from pipelines.graph.stage import shelf
from pipelines.opened.subjects import open_subject
from pipelines.params import load

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def here(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder: a project whose subject, and whose engines, are a GGUF file."""
    write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, "Q8_0", tokenizer__chat_template=TEMPLATE)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("A shard is whole or absent, and a rerun skips the shards that are done.\n" * 40)
    engines = {kind: {"kind": kind, "path": "tiny.gguf"} for kind in ("transformers", "llamacpp")}
    subjects = {"lab": {"corpus": "topics", "path": "tiny.gguf"}}
    write_params(tmp_path, small_params() | {"subjects": subjects, "engines": engines, "behaviours": {}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_it_is_a_subject_like_any_other(here: Path) -> None:
    """The check finds it in order and writes no word beside; its stages make its row and its tokens; and its model loads."""
    checked = run(here, "pipelines", "check")
    for stage in ("corpora", "subjects", "tokens"):
        ended = run(here, f"pipelines.stages.{stage}", "topics" if stage == "corpora" else "lab")
        assert ended.returncode == 0, ended.stderr
    row = shelf("subjects", "lab").read(SUBJECTS).to_pylist()[0]

    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.splitlines()[1:] == [
        f"subject lab: LlamaForCausalLM, float32 on {DEVICE}",
        "sae topk: reads layers.1 of lab",
        "engine transformers: tiny.gguf run by transformers",
        "engine llamacpp: tiny.gguf run by llamacpp",
    ]
    assert (row["source"], row["quantisation"], row["files"]) == ("tiny.gguf", "Q8_0", [f"tiny.gguf {file_sha256(Path('tiny.gguf'))}"])
    assert shelf("tokens", "lab").rows(TOKENS) > 0
    assert open_subject(load(), "lab").model.num_parameters() == 52_448


def test_an_engine_without_a_chat_template_is_one_line(here: Path, tiny_checkpoint: Path) -> None:
    """A GGUF file that holds no conversations is refused as an engine before llama.cpp loads it."""
    write_gguf(here / "base.gguf", tiny_checkpoint)
    params = yaml.safe_load((here / "params.yaml").read_text())
    write_params(here, params | {"engines": {"base": {"kind": "llamacpp", "path": "base.gguf"}}})
    checked = run(here, "pipelines", "check")

    assert checked.stderr == "error: base.gguf: its tokenizer has no chat template; choose an instruction-tuned model\n"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "the file is cut off; fetch it again"),
        (lambda path: path.write_text("<!doctype html>"), "is no GGUF file (it begins with b'<!do')"),
        (Path.unlink, "tiny.gguf: no such GGUF file; correct `path`"),
    ],
    ids=["cut off", "page", "gone"],
)
def test_a_file_that_is_none_is_one_line(here: Path, spoil: Any, said: str) -> None:
    """A file that is cut off, another file under its name, or none, ends the check with 2 and one line."""
    spoil(here / "tiny.gguf")
    checked = run(here, "pipelines", "check")

    assert (checked.returncode, checked.stderr.count("\n")) == (2, 1)
    assert checked.stderr.startswith("error: tiny.gguf: ")
    assert said in checked.stderr
