"""Stage `saes`, run in this process on a random checkpoint: every source of dictionaries, and training in one pass."""

from __future__ import annotations

import pydoc_data.topics
import shutil
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import torch
from project import TOPICS, digests, small_params, write_params

from builders.errors import UserError
from builders.saes import formats
from builders.saes.coder import SparseCoder, TopK
from builders.saes.formats import sparsify
from builders.saes.planted import RULES
from pipelines.parts import ahead, reading, training
from pipelines.stages import activations, corpora, saes, subjects, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared import Once

MLP = {"subject": "lab", "hookpoint": "layers.1.mlp.input", "writes": "layers.1.mlp"}
SAES: dict[str, dict[str, Any]] = {
    "topk": {"source": "train", "subject": "lab", "hookpoint": "layers.0", "activation": "topk", "width": 48, "k": 4, "multi_topk": True},
    "jumprelu": {"source": "train", "subject": "lab", "hookpoint": "layers.1", "activation": "jumprelu", "width": 32, "k": 4},
    "relu": {"source": "train", "subject": "lab", "hookpoint": "layers.1", "activation": "relu", "width": 32, "l1": 0.1},
    "neurons": {"source": "neurons", "subject": "lab", "hookpoint": "layers.1.mlp.down_proj.input", "k": 8},
    "rotated": {"source": "neurons", "subject": "lab", "hookpoint": "layers.1.mlp.down_proj.input", "k": 8, "rotated": True},
    "random": {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 64, "k": 4},
    "planted": {"source": "planted", "subject": "lab"},
    "transcoder": {"source": "pretrained", "path": "transcoder", **MLP},
}


@pytest.fixture(scope="module")
def tokenized(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to its tokens."""
    return once("tokenized", lambda folder: fill(folder, tiny_checkpoint))


def fill(folder: Path, checkpoint: Path) -> None:
    """Build the project in *folder*."""
    (folder / "text").mkdir()
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:3000], encoding="utf-8")
    shutil.copytree(checkpoint, folder / "model")
    write_transcoder(folder / "transcoder")
    write_params(folder, params_of(SAES))
    with chdir(folder):
        corpora.main("topics")
        subjects.main("lab")
        tokens.main("lab")


def params_of(saes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return params of the tiny checkpoint with some dictionaries."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    return params | {"saes": saes}


@pytest.fixture
def start(tmp_path: Path, tokenized: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a project with some dictionaries, up to their tokens, and goes there."""

    def made(name: str, saes: dict[str, dict[str, Any]]) -> Path:
        here = shutil.copytree(tokenized, tmp_path / name)
        write_params(here, params_of(saes))
        monkeypatch.chdir(here)
        return here

    return made


def write_transcoder(folder: Path) -> None:
    """Write a sparsify transcoder of random weights for vectors of size 32."""
    generator = torch.Generator().manual_seed(0)
    w_enc, w_dec = (torch.randn(40, 32, generator=generator) for _ in range(2))
    sparsify.write(SparseCoder(w_enc, torch.zeros(40), w_dec, torch.zeros(32), TopK(4), b_pre=torch.zeros(32)), folder)
    config = folder / "cfg.json"
    config.write_text(config.read_text().replace('"transcode": false', '"transcode": true'))


def ready() -> list[str]:
    """Return the SAEs that are trained and wait for their stage."""
    return sorted(path.name for path in (ahead.READY / "saes").iterdir() if any(some.is_dir() for some in path.iterdir()))


def row_of(name: str) -> dict[str, Any]:
    """Return the `saes` row of a finished dictionary."""
    row: dict[str, Any] = pq.read_table(f"build/saes/{name}/saes-00000.parquet").to_pylist()[0]
    return row


def test_every_source_gives_a_measured_dictionary(start: Callable[..., Path]) -> None:
    """Trained, published, neuron, random and planted dictionaries each get a row with their properties and their fidelity."""
    start("all", SAES)
    for name in SAES:
        saes.main(name)

    rows = {name: row_of(name) for name in SAES}

    assert {name: (row["kind"], row["activation"], row["format"]) for name, row in rows.items()} == {
        "topk": ("trained", "topk", "sparsify"),
        "jumprelu": ("trained", "jumprelu", "saelens"),
        "relu": ("trained", "relu", "saelens"),
        "neurons": ("neurons", "topk", "none"),
        "rotated": ("neurons", "topk", "none"),
        "random": ("random", "topk", "sparsify"),
        "planted": ("planted", "rule", "none"),
        "transcoder": ("pretrained", "topk", "sparsify"),
    }
    assert (rows["transcoder"]["hookpoint"], rows["transcoder"]["writes"]) == ("layers.1.mlp.input", "layers.1.mlp")
    assert rows["neurons"]["width"] == rows["neurons"]["d_in"] == 64
    assert rows["topk"]["fvu"] < rows["random"]["fvu"]
    assert (rows["planted"]["fvu"], rows["planted"]["width"]) == (None, len(RULES))
    assert all(row["loss_added"] is not None for name, row in rows.items() if name != "planted")


@pytest.mark.parametrize("name", ["neurons", "planted", "transcoder"])
def test_every_source_can_be_read_again(start: Callable[..., Path], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The activations stage opens what stage `saes` left, and its self-test finds the same values."""
    start(name, {name: SAES[name]})
    saes.main(name)
    activations.main(name)

    latents = pq.read_table(f"build/activations/{name}/latents-00000.parquet").to_pylist()

    assert "100 stored activations recomputed" in capsys.readouterr().out
    assert sum(row["count"] for row in latents) > 100
    assert [row["truth"] for row in latents] == ([rule.truth.words for rule in RULES] if name == "planted" else [None] * len(latents))
    assert {len(row["promotes"]) for row in latents} == ({0} if name == "planted" else {10})


def test_one_pass_trains_all_and_each_as_if_alone(start: Callable[..., Path]) -> None:
    """The first stage trains its companions too, their stages take what is ready, and an SAE does not depend on its companions."""
    trained = {name: SAES[name] for name in ("topk", "jumprelu", "relu")}
    together = start("together", trained)
    saes.main("topk")
    waiting = ready()
    saes.main("relu")
    saes.main("jumprelu")
    left = ready()
    alone = {}
    for name, spec in trained.items():
        here = start(f"{name}-alone", {name: spec})
        saes.main(name)
        alone[name] = digests(here / "build/saes" / name)

    assert waiting == ["jumprelu", "relu"]
    assert left == []
    assert alone == {name: digests(together / "build/saes" / name) for name in trained}


def test_what_is_trained_already_is_not_trained_again(start: Callable[..., Path]) -> None:
    """An SAE that is finished is no companion of one that is added later."""
    here = start("later", {"topk": SAES["topk"]})
    saes.main("topk")
    write_params(here, params_of({"topk": SAES["topk"], "relu": SAES["relu"]}))
    saes.main("relu")

    assert ready() == []


def test_other_code_trains_all_again_together(start: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """When the code has changed, the first stage that runs again trains its finished companions too."""
    start("code", {name: SAES[name] for name in ("topk", "relu")})
    saes.main("topk")
    saes.main("relu")
    monkeypatch.setattr(training, "code", lambda stage: f"other code of {stage}")
    saes.main("topk")

    assert ready() == ["relu"]


def test_one_pass_reads_for_all_that_are_made(start: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage that comes first reads for its finished companions, which read nothing themselves and end in the same bytes."""
    both = {name: SAES[name] for name in ("topk", "relu", "jumprelu")}
    here = start("pass", both)
    for name in both:
        saes.main(name)
    manifest = here / "build/saes/jumprelu/manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    activations.main("topk")
    waiting = sorted(path.name for path in (ahead.READY / "activations").iterdir() if any(some.is_dir() for some in path.iterdir()))
    monkeypatch.setattr(reading, "read_together", None)
    activations.main("relu")
    together = digests(here / "build/activations/relu")
    monkeypatch.undo()
    alone = start("read-alone", {"relu": SAES["relu"]})
    saes.main("relu")
    activations.main("relu")

    assert waiting == ["relu"]
    assert together == digests(alone / "build/activations/relu")


def test_a_transcoder_needs_its_other_end(start: Callable[..., Path]) -> None:
    """A published transcoder without `writes` is refused with the missing key."""
    spec = {name: value for name, value in SAES["transcoder"].items() if name != "writes"}
    start("half", {"half": spec})

    with pytest.raises(UserError, match=r"saes\.half: is a transcoder; give the hookpoint it `writes`"):
        saes.main("half")


def test_a_centered_dictionary_reads_vectors_less_their_mean(start: Callable[..., Path]) -> None:
    """With `centered` the stored weights are the same, and the measured fidelity is not."""
    here = start("center", {"a": {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 64, "k": 4}})
    saes.main("a")
    shutil.copytree(here / "build/saes/a/weights", here / "own")
    first = row_of("a")
    spec = {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "own"}
    write_params(here, params_of({"plain": spec, "centered": {**spec, "centered": True}}))
    saes.main()

    assert row_of("plain")["fvu"] == pytest.approx(first["fvu"])
    assert row_of("centered")["fvu"] != pytest.approx(row_of("plain")["fvu"], rel=1e-3)
    assert torch.equal(formats.read(here / "build/saes/centered/weights").w_enc, formats.read(here / "own").w_enc)
