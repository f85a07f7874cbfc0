"""The main job through the real commands: real DVC, real load_dataset, a real checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from llm_server import MODEL, chat, serving
from project import SAE, digests, environment, fill, make_project, repro, run, sae, small_params, write_params
from shared import Once

from builders.embedders.letters import LetterEmbedder
from builders.releases.release import open_release
from builders.saes import formats
from pipelines.graph.closure import ROOT
from pipelines.registry import CONFIGS

# Configs without rows in the small project: it has one dictionary and one lens, asks no language model, and nothing fails.
OF_PAIRS = {"matches", "similarity", "splices", "stability", "stability_scores"}
OF_LENSES = {"lens_convergence", "lens_training", "lens_transfer"}
ABSENT = {"best_of", "calibration", "failures", "generations", "interventions", "judges", "pool"} | OF_PAIRS | OF_LENSES


@pytest.fixture(scope="module")
def finished(once: Once) -> Path:
    """Return a project after its first `dvc repro`; tests that change anything copy it."""
    return once("finished", fill)


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished project, free to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def test_every_config_loads(finished: Path, tmp_path: Path) -> None:
    """Every config of the release opens with load_dataset, map-style and streaming, with exactly the features that release.json tells."""
    release = finished / "build/release"
    tables = open_release(release).tables

    assert {config.table.name for config in CONFIGS} - tables.keys() <= ABSENT
    for name, table in tables.items():
        data = load_dataset(str(release), name, split="train", cache_dir=str(tmp_path))
        streamed = next(iter(load_dataset(str(release), name, split="train", streaming=True)))
        assert data.features == table.features()
        assert list(streamed) == [column.name for column in table.columns]


def test_browse_says_what_the_other_configs_say(finished: Path, tmp_path: Path) -> None:
    """The config that loads where none is named has a row for each latent, whose links lead to rows that say the same."""
    root = finished / "build/release"
    release = open_release(root)
    rows = load_dataset(str(root), split="train", cache_dir=str(tmp_path)).to_list()
    scores = {(row["latent"], row["explainer"]): row for row in release.read("scores", filters=[("scorer", "==", "detection")]).to_pylist()}
    texts = {(row["latent"], row["explainer"]): row["text"] for row in release.read("explanations").to_pylist()}
    scored = [row for row in rows if row["scorer"] is not None]

    assert [row["latent"] for row in rows] == release.read("latents")["latent"].to_pylist()
    assert {row["scorer"] for row in scored} == {"detection"}  # no scorer is named in params, and it is the first by name
    assert {row["beats_permuted"] for row in scored} == {True, False}
    for row in scored:
        key = (row["latent"], row["explainer"])
        own, twin = scores[key], scores[row["latent"], "lexical-permuted"]
        assert (row["explanation"], row["score"], row["score_se"]) == (texts[key], own["score"], own["score_se"])
        assert row["permuted_score"] == twin["score"]
        assert row["beats_permuted"] == (own["score"] - twin["score"] > 2 * math.hypot(own["score_se"], twin["score_se"]))
        assert len(row["contexts"]) == 3
        assert all(re.search("<<.+>>|⟦.+⟧", text, re.DOTALL) for text in row["contexts"])


def test_directions_and_embeddings_belong_to_their_latents(finished: Path) -> None:
    """The rows of `vectors` and `biases` are those of the dictionary's own file, and explanations have the vectors of their texts."""
    release = open_release(finished / "build/release")
    coder = formats.read(release.root / "weights" / SAE / "layers.1")
    vectors, (biases,), embedded = release.read("vectors"), release.read("biases").to_pylist(), release.read("embeddings")

    assert np.array_equal(np.array(vectors["encoder"].to_pylist(), dtype=np.float32), coder.w_enc.numpy())
    assert np.array_equal(np.array(vectors["decoder"].to_pylist(), dtype=np.float32), coder.w_dec.numpy())
    assert np.array_equal(np.array(biases["shift"], dtype=np.float32), coder.b_pre.numpy())
    own = release.read("explanations", filters=[("explainer", "==", "lexical"), ("status", "==", "ok")])
    assert embedded["text"].to_pylist() == own["text"].to_pylist()
    assert np.array_equal(
        np.array(embedded["vector"][:5].to_pylist(), dtype=np.float32), LetterEmbedder().embed(own["text"][:5].to_pylist())
    )


def test_real_explanations_beat_permuted_ones(finished: Path) -> None:
    """On a trained model, a latent's own explanation predicts it better than another latent's explanation."""
    scores = pq.read_table(finished / "build/release/scores").to_pandas()
    medians = scores.groupby(["scorer", "explainer"])["score"].median()

    assert set(scores.loc[scores["explainer"] != "none", "n"]) == {20}
    for scorer in ("detection", "fuzzing"):
        assert medians[scorer, "lexical"] > medians[scorer, "lexical-permuted"] + 0.05
        assert medians[scorer, "lexical-permuted"] == pytest.approx(0.5, abs=0.05)


def test_train_and_test_share_no_window(finished: Path) -> None:
    """No window of a latent is both a training window and a test window."""
    contexts = pq.read_table(finished / "build/release/contexts").to_pandas()
    splits = contexts.groupby(["sae", "latent", "row", "start"])["split"].nunique()

    assert len(contexts)
    assert splits.max() == 1


def test_a_latent_lies_in_one_row_group(finished: Path) -> None:
    """A filter on one latent touches a single row group of all files of activations."""
    files = [pq.ParquetFile(path) for path in sorted((finished / "build/release/activations").iterdir())]
    groups = [file.metadata.row_group(i).column(1).statistics for file in files for i in range(file.num_row_groups)]
    latents = pq.read_table(finished / "build/release/activations")["latent"].unique().to_pylist()

    for latent in latents:
        assert sum(group.min <= latent <= group.max for group in groups) == 1


RUN = {  # how a block of each language runs in a process of its own
    "python": lambda code: [sys.executable, "-c", code],
    "sql": lambda code: [sys.executable, "-c", f"import duckdb; print(duckdb.sql({code!r}))"],
    "bash": lambda code: ["bash", "-eu", "-c", re.sub(r"^interplake\b", f"{sys.executable} -m pipelines", code, flags=re.MULTILINE)],
}


def lines_of(page: Path) -> list[tuple[str, str]]:
    """Return language and text of every block of a page that a reader may paste."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [(language, code) for language, code in found if language in RUN]


def pasted(project: Path, language: str, code: str) -> str:
    """Run a block in the folder of the release, which takes the place of its name, and return what it printed."""
    release = project / "build/release"
    places = {"hf://datasets/interplake-lab@v0.1.0": release, "interplake-lab": release, "build/release": release}
    places["checkpoints/lab-transformer"] = ROOT / "checkpoints/lab-transformer"
    for name, place in places.items():
        code = code.replace(f'"{name}"', f'"{place}"')
    env = environment() | {"PYTHONPATH": str(project), "HF_DATASETS_CACHE": str(project / "cache"), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(RUN[language](code), cwd=release, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_lines_of_the_card_work_as_pasted(project: Path) -> None:
    """Every block of the card runs in the release's folder and finds something; only the name of the release is another."""
    said = [pasted(project, *block) for block in lines_of(project / "build/release/README.md")]

    assert len(said) == 9
    assert all(text.strip() for text in said)
    assert f"\n{pq.read_table(project / 'build/release/scores').num_rows}\n" in said[0]
    assert not re.search(r"\b0 rows", said[1] + said[2])
    cosines = re.findall(r"\b[01]\.\d+", said[2])
    assert max(map(float, cosines)) == pytest.approx(1.0, abs=1e-3)
    assert int(said[3].split()[0]) == 40


def test_the_lines_of_the_readme_work_as_pasted(project: Path) -> None:
    """So does the Python of the README, for a dictionary of this project."""
    blocks = [code for language, code in lines_of(ROOT / "README.md") if language == "python"]

    assert blocks
    for code in blocks:
        pasted(project, "python", code.replace("lab-l1-topk-512", SAE))


def test_the_release_says_where_it_comes_from(project: Path) -> None:
    """provenance.json has params, hashes of text, checkpoint and dictionary; made again it is the same to the byte, as is all else."""
    release = project / "build/release"
    before, found = digests(release), json.loads((release / "provenance.json").read_bytes())

    again = run(project, "pipelines.stages.release")

    assert again.returncode == 0, again.stderr
    assert digests(release) == before
    documents = hashlib.sha256((project / "build/corpora/topics/manifest.json").read_bytes()).hexdigest()
    saes = pq.read_table(release / "saes").to_pylist()
    assert found["corpora"]["topics"]["documents_sha256"] == documents
    assert [row["sha256"] for row in found["dictionaries"]] == [row["sha256"] for row in saes]
    assert found["params"]["saes"][SAE]["k"] == 6
    assert found["seeds"] == {"run": 0, "dictionaries": {SAE: 0}}
    assert {"python", "dvc", "interplake", "torch", "datasets", "kernels"} <= found["packages"].keys()
    assert not {"time", "git", "machine", "code"} & found.keys()


def test_code_that_changes_makes_its_rows_anew(project: Path) -> None:
    """After an edit of the code, outputs that are kept between runs are made again."""
    latents = project / "builders/saes/latents.py"
    latents.write_text(latents.read_text().replace("TOP = 10", "TOP = 3"))

    assert "activations" in repro(project, "activations")

    tops = pq.read_table(project / f"build/activations/{SAE}/latents-00000.parquet")["top_tokens"].to_pylist()
    assert max(map(len, tops)) == 3


def test_another_sae_that_cannot_be_explained(project: Path) -> None:
    """The release holds the SAE that params name, and nothing of the one before; where no latent fills its quota it says so.

    Then it has no scores, and lists every latent among the failures.
    """
    params = small_params()
    params["saes"] = {"other": {**sae(32), "hookpoint": "layers.2"}}
    params["contexts"]["train"] = 100_000
    write_params(project, params)

    repro(project)

    release = project / "build/release"
    assert not (project / "build/saes" / SAE).exists()
    assert set(pq.read_table(release / "latents")["sae"].to_pylist()) == {"other"}
    assert not (release / "scores").exists()
    assert "No latent could be explained and scored" in (release / "README.md").read_text()
    assert pq.read_table(release / "failures").num_rows == 32
    shown = run(project, "pipelines", "show", "other", "0")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "100000 + 10 are needed" in shown.stdout.replace("\n", " ")


def test_a_language_model_explains(project: Path) -> None:
    """An engine and an explainer in params run that explainer's stages; its texts, and what they cost, are in the release."""
    with serving(lambda body, _: chat("[EXPLANATION]: words of " + body["model"])) as server:
        params = small_params()
        price = {"prompt": 1.0, "cached": 0.5, "output": 2.0}
        params["engines"] = {"server": {"kind": "openai", "base_url": server.url, "model": MODEL, "price": price}}
        params["explainers"]["asked"] = {"kind": "default", "engine": "server", "latents": 5}
        write_params(project, params)

        ran = repro(project)

    explained = pq.read_table(project / "build/release/explanations").to_pylist()
    texts = [row["text"] for row in explained if row["explainer"] == "asked"]
    costs = json.loads((project / "build/release/metrics.json").read_text())["costs"]
    assert [stage for stage in ran if stage.startswith(("sae", "activations", "contexts"))] == []
    assert texts == [f"words of {MODEL}"] * 5
    assert [(row["name"], row["answers"], row["dollars"]) for row in costs] == [("asked", 5, pytest.approx(5 * 12e-6))]
    assert "| explanations | asked | 5 | 5 | 7 (2) | 3 | 0.00 | 1.2 |" in (project / "build/release/README.md").read_text()


def test_a_checkpoint_that_nobody_here_trained(tmp_path: Path) -> None:
    """A published TinyStories Llama with a vocabulary of 512 tokens needs nothing but params."""
    real = os.environ.get("INTERPLAKE_REAL_CHECKPOINTS")
    if not real:
        pytest.skip("INTERPLAKE_REAL_CHECKPOINTS does not name a folder of checkpoints")
    params = small_params()
    params["subjects"] = {"lab": {"path": str(Path(real) / "stories260k"), "corpus": "topics"}}
    project = make_project(tmp_path, params)

    assert "scores@detection" in repro(project, "scores@detection")

    subject = pq.read_table(project / "build/subjects/lab/subjects-00000.parquet").to_pylist()[0]
    scores = pq.read_table(project / f"build/scores/detection/{SAE}/lexical/scores-00000.parquet").to_pandas()
    assert (subject["architecture"], subject["vocabulary"], subject["source"]) == ("LlamaForCausalLM", 512, "stories260k")
    assert scores[scores["explainer"] == "lexical"]["score"].median() > 0.55


def test_show_prints_a_latent(finished: Path) -> None:
    """`interplake show` prints explanation, scores and contexts of a latent, and names what does not exist."""
    scores = pq.read_table(finished / "build/release/scores").to_pylist()
    latent = str(scores[0]["latent"])

    shown = run(finished, "pipelines", "show", SAE, latent)
    unknown = run(finished, "pipelines", "show", "nobody", latent)
    beyond = run(finished, "pipelines", "show", SAE, "64")

    assert shown.returncode == 0
    assert all(words in shown.stdout for words in ("lexical: Fires on", "detection", "activating windows, split test"))
    assert (unknown.returncode, unknown.stderr) == (2, "error: no SAE 'nobody' in this release; it has topk\n")
    assert (beyond.returncode, beyond.stderr) == (2, "error: topk has latents 0 to 63, not 64\n")
