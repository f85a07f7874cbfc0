"""What a person can get wrong, and the one line that says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from project import small_params

from builders.saes import sparsify
from builders.saes.coder import SparseCoder, TopK
from pipelines.cli import main

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def here(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a corpus and a checkpoint (width 32, three blocks, context 128), which is the working folder."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("Some text.")
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(here: Path, change: Change | None = None) -> Result:
    """Run `interplake check` on small params after *change*."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    if change is not None:
        change(params)
    (here / "params.yaml").write_text(yaml.safe_dump(params))
    return CliRunner().invoke(main, ["check"])


def test_good_params_pass(here: Path) -> None:
    """Params in order give a line for each corpus, subject and SAE, and exit code 0."""
    result = check(here)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "corpus topics: begins with 'a.txt'",
        f"subject lab: LlamaForCausalLM, float32 on {'cuda' if torch.cuda.is_available() else 'cpu'}",
        "sae topk: reads layers.1 of lab",
    ]


MISTAKES: dict[str, tuple[Change, str]] = {
    "unknown key": (lambda p: p["tokens"].update(lenght=3), "params.yaml: tokens.lenght: unknown key; remove it or correct its name"),
    "missing key": (lambda p: p["tokens"].pop("bos"), "params.yaml: tokens.bos: missing"),
    "wrong type": (lambda p: p["contexts"].update(train="many"), "params.yaml: contexts.train: input should be a valid integer"),
    "value not allowed": (
        lambda p: p["contexts"].update(sampler="best"),
        "params.yaml: contexts.sampler: input should be 'top', 'random', 'quantiles' or 'mix' (given: 'best')",
    ),
    "id": (lambda p: p["saes"].update(My_SAE=p["saes"]["topk"]), "saes.My_SAE: an id may hold a-z, 0-9 and single dashes only"),
    "dangling name": (
        lambda p: p["saes"]["topk"].update(subject="nobody"),
        "saes.topk.subject: 'nobody' is not defined; defined are lab",
    ),
    "k above width": (lambda p: p["saes"]["topk"].update(k=65), "saes.topk.train: `k` (65) is larger than `width` (64)"),
    "sparsity of another activation": (
        lambda p: p["saes"]["topk"].update(activation="relu"),
        "saes.topk.train: activation `relu` takes `l1`, not `k`",
    ),
    "neurons of no module": (
        lambda p: p["saes"].update(n={"source": "neurons", "subject": "lab", "hookpoint": "layers.1.mlp.down.input", "k": 3}),
        "saes.n: hookpoint 'layers.1.mlp.down.input' does not exist in this model; near it: ",
    ),
    "no such dictionary": (
        lambda p: p["saes"].update(x={"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "nowhere"}),
        "nowhere: no such dictionary; set `path` to the folder (or file) that holds one",
    ),
    "a folder of no format": (
        lambda p: p["saes"].update(x={"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "text"}),
        "text: holds no dictionary of a format read here (there is: a.txt); looked for cfg.json and sae.safetensors (sparsify); ",
    ),
    "baseline's name": (
        lambda p: p["explainers"].update({"lexical-permuted": p["explainers"]["lexical"]}),
        "explainers.lexical-permuted: `-permuted` is how baselines are called; choose another id",
    ),
    "device": (lambda p: p["subjects"]["lab"].update(device="mps"), "device 'mps' is not there on this machine"),
    "window": (lambda p: p["tokens"].update(window=7), "tokens: `length` (128) must be a multiple of `window` (7)"),
    "unpinned repository": (
        lambda p: p["subjects"].update(lab={"repo": "org/model", "corpus": "topics"}),
        "subjects.lab: a `repo` needs its `revision`, the 40-digit commit to pin",
    ),
    "hookpoint": (
        lambda p: p["saes"]["topk"].update(hookpoint="layers.7"),
        "saes.topk: hookpoint 'layers.7' does not exist in this model; near it: layers, layers.0, layers.1, layers.1.mlp, layers.2",
    ),
    "no checkpoint": (lambda p: p["subjects"]["lab"].update(path="nowhere"), "nowhere: no such checkpoint folder"),
    "context": (
        lambda p: p["tokens"].update(length=256),
        "tokens.length is 256, but lab reads 128 tokens at most; lower it",
    ),
    "no file": (lambda p: p["corpora"]["topics"].update(paths=["nothing/*.txt"]), "corpus: no file matches 'nothing/*.txt'"),
    "kind of file": (lambda p: p["corpora"]["topics"].update(paths=["model/config.json"]), "config.json ends in '.json'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(here: Path, name: str) -> None:
    """A mistake in params.yaml ends with 2 and one line that says what is wrong, where, and what is allowed."""
    change, said = MISTAKES[name]

    result = check(here, change)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_a_corpus_without_text(here: Path) -> None:
    """Files that hold no text are told before anything runs."""
    (here / "text/a.txt").write_text(" \n")

    result = check(here)

    assert (result.exit_code, result.stderr) == (2, "error: corpora.topics: holds no text; check its paths and column\n")


def test_a_checkpoint_without_weights(here: Path) -> None:
    """A folder with config.json alone is refused."""
    (here / "model/model.safetensors").unlink()

    result = check(here)

    assert (result.exit_code, result.stderr) == (2, "error: model: no weights (*.safetensors) beside config.json\n")


def test_pickled_weights(here: Path) -> None:
    """Weights that can run code are refused, by name."""
    (here / "model/model.safetensors").rename(here / "model/pytorch_model.bin")

    result = check(here)

    assert result.exit_code == 2
    assert result.stderr == "error: model: only pickled weights (pytorch_model.bin), which can run code; convert them to safetensors\n"


def test_an_sae_of_another_width(here: Path) -> None:
    """An SAE that reads vectors of another size than its hookpoint gives is refused with both numbers."""
    zeros = torch.zeros(48)
    sparsify.write(SparseCoder(torch.eye(48), zeros, torch.eye(48), zeros, TopK(4), b_pre=zeros), here / "sae")
    spec = {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "sae"}

    result = check(here, lambda p: p["saes"].update(other=spec))

    assert result.exit_code == 2
    assert "error: saes.other: reads vectors of 48 dimensions, but layers.1 gives 32" in result.stderr


def test_yaml_that_is_none(here: Path) -> None:
    """A file that is not YAML is told with the place of the fault."""
    (here / "params.yaml").write_text("seed: [1")

    result = CliRunner().invoke(main, ["check"])

    assert result.exit_code == 2
    assert result.stderr.startswith("error: params.yaml: not YAML: while parsing a flow sequence")
    assert result.stderr.count("\n") == 1


def test_no_params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a project the command says where it belongs."""
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, ["check"])

    assert (result.exit_code, result.stderr) == (2, "error: params.yaml: not found; run this in the project's folder\n")


def test_an_unknown_architecture(here: Path) -> None:
    """A checkpoint that the transformers library does not know says how its own code may be allowed."""
    config = json.loads((here / "model/config.json").read_text()) | {"model_type": "unheard-of"}
    (here / "model/config.json").write_text(json.dumps(config))

    result = check(here)

    assert result.exit_code == 2
    assert "trust_remote_code" in result.stderr
    assert result.stderr.count("\n") == 1
