"""examples/paper.yaml from end to end, in this process: the paper's protocol beside ours, and the best of several explanations."""

from __future__ import annotations

import hashlib
import pydoc_data.topics
import shutil
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from forms import windows_in
from llm_server import MODEL, Body, Reply, chat, content_of, serving
from project import TOPICS, write_params

from builders.contexts.contexts import CONTEXTS
from builders.explainers.explanations import EXPLANATIONS, named
from builders.saes.activations import ACTIVATIONS
from builders.scorers.agreement import AGREEMENT
from builders.scorers.best import BEST
from builders.scorers.judgements import JUDGEMENTS, SCORES
from builders.text.tokens import TOKENS
from pipelines.cli import main
from pipelines.graph.closure import ROOT
from pipelines.graph.stage import shelf
from pipelines.params import load
from pipelines.stages import (
    activations,
    agreement,
    calibration,
    contexts,
    corpora,
    explanations,
    interventions,
    neighbours,
    saes,
    scores,
    subjects,
    tokens,
)

if TYPE_CHECKING:
    from shared import Once

EXAMPLE = ROOT / "examples/paper.yaml"
SAE, LATENTS, SAMPLES = "topk", 12, 3
BRIEF, FEW = ("fuzzing", "simulation", "surprisal"), 3  # scorers that score few latents here, to save time
PAIRS = ("detection", "fuzzing", "simulation", "embedding", "surprisal")
DIFFERENT = {"negatives", "marks", "shots"}  # what the paper's protocol may say otherwise
Row = dict[str, Any]


def small() -> Row:
    """Return the params of the example on a tiny model, with few latents and small quotas; its base engine runs in this process."""
    params: Row = yaml.safe_load(EXAMPLE.read_text())
    params["corpora"] = {"python-docs": {"source": "files", "paths": ["text/*.txt"], "held_out": 0.2}}
    params["subjects"]["lab-transformer"]["path"] = "model"
    params["tokens"] |= {"length": 64, "window": 16}
    params["saes"] = {SAE: {"source": "random", "subject": "lab-transformer", "hookpoint": "layers.1", "width": 128, "k": 1}}
    params["activations"] |= {"batch_rows": 8, "chunk_rows": 16, "rare_windows": 12}
    own = params["contexts"]
    own |= {"at_least": 0, "train": 4, "test": 5, "train_random": 4, "test_random": 5, "quantiles": 2}
    own["latents"]["sample"], own["negatives"]["row"] = LATENTS, 5
    params["engines"]["base"] = {"kind": "transformers", "path": "judge"}
    for name, spec in params["explainers"].items():
        spec |= {"baseline": "none"} | ({"samples": SAMPLES} if "samples" in spec else {}) | ({"kl": 1e-4} if name == "effects" else {})
    params["judges"]["base"]["max_failed_share"] = 1.0  # its answers mean nothing
    params["embedders"] = {"minilm": {"kind": "lexical"}}
    for name in BRIEF:
        for each in (name, f"{name}-paper"):
            params["scorers"][each] |= {"latents": FEW} | ({"judge": "base", "windows": 2} if name == "simulation" else {})
    params["scorers"]["intervention"] |= {"kl": 1e-4, "prompts": 2, "tokens": 2, "latents": FEW}
    return params


def answers(body: Body, _: int) -> Reply:
    """Explain, each time in other words; judge each window by what its text and the explanation happen to be."""
    turn = body["messages"][-1]["content"]
    if not turn.startswith("Explanation: "):
        return chat(f"[EXPLANATION]: words numbered {content_of(body)}")
    explanation = turn.partition("\n")[0]
    said = [int(hashlib.sha256((explanation + text.strip()).encode()).digest()[0] % 2) for text in windows_in(turn, quoted=False)]
    return chat(str(said))


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, echoing_checkpoint: Path, once: Once) -> Path:
    """Return the project after every stage up to `agreement`."""
    return once("paper", lambda folder: fill(folder, tiny_checkpoint, echoing_checkpoint))


def fill(folder: Path, checkpoint: Path, judge: Path) -> None:
    """Build the project in *folder*."""
    (folder / "text").mkdir()
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:4000], encoding="utf-8")
    shutil.copytree(checkpoint, folder / "model")
    shutil.copytree(judge, folder / "judge")
    with chdir(folder), serving(answers) as server:
        params = small()
        params["engines"]["instruct"] |= {"base_url": server.url, "model": MODEL}
        write_params(folder, params)
        corpora.main("python-docs")
        for stage in (subjects, tokens):
            stage.main("lab-transformer")
        for stage in (saes, activations, neighbours, contexts, interventions):
            stage.main(SAE)
        for section, each in ((params["explainers"], explanations), (params["scorers"], scores)):
            for name in section:
                each.main(name)
        calibration.main()
        agreement.main()


def rows(kind: str, table: Any, *ids: str) -> list[Row]:
    """Return the rows of a table that a stage left."""
    found: list[Row] = shelf(kind, *ids).read(table).to_pylist()
    return found


def scored(scorer: str, explainer: str) -> list[Row]:
    """Return the scores of one scorer and one explainer, further samples included."""
    return rows("scores", SCORES, SAE, explainer, scorer)


def test_each_of_the_papers_scorers_differs_in_its_protocol_alone() -> None:
    """A scorer `…-paper` is like ours but for negatives, marks and worked examples, and all of these are the paper's."""
    params = load(EXAMPLE)
    asked = params.contexts.negatives
    for name in PAIRS:
        ours, theirs = (params.scorers[each].model_dump() for each in (name, f"{name}-paper"))
        assert {key for key in ours if ours[key] != theirs[key]} == DIFFERENT & set(ours)
        assert (ours["negatives"], theirs["negatives"]) == ("random", "row")
        assert theirs.get("marks", "random") == "random"
        assert theirs.get("shots", "unknown") == "unknown"
    assert (asked.row, asked.row_start, params.tokens.window, params.tokens.length) == (100, 10, 32, 256)
    assert params.judges["instruct"].model_dump()["form"] == "free"


def test_the_example_passes_the_check() -> None:
    """The real command finds no mistake in it, and says that it did not ask its servers."""
    result = CliRunner().invoke(main, ["check", "--params", str(EXAMPLE), "--offline"])

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count(", not asked") == 2


def test_silent_windows_are_tokens_of_silent_rows(here: Path) -> None:
    """Windows of kind row begin at token 10 of rows without any firing; every scored latent has them beside its random ones."""
    found = rows("contexts", CONTEXTS, SAE)
    fired = {(row["latent"], row["row"]) for row in shelf("activations", SAE).read(ACTIVATIONS).to_pylist()}
    silent = [row for row in found if row["kind"] == "row"]

    assert {(row["start"], row["split"]) for row in silent} == {(10, "test")}
    assert not {(row["latent"], row["row"]) for row in silent} & fired
    assert len({row["latent"] for row in silent}) == len({row["latent"] for row in found}) == LATENTS
    assert max(row["row"] for row in silent) < shelf("tokens", "lab-transformer").rows(TOKENS)


@pytest.mark.parametrize("scorer", PAIRS)
def test_a_latent_has_both_scores(here: Path, scorer: str) -> None:
    """Both protocols score the same explanations of the same latents, so that a difference of each latent follows, and its mean."""
    ours, theirs = ({row["latent"]: row for row in scored(each, "default")} for each in (scorer, f"{scorer}-paper"))
    both = {latent: (ours[latent]["score"], theirs[latent]["score"]) for latent in ours.keys() & theirs.keys()}
    known = np.array([pair for pair in both.values() if None not in pair], dtype=np.float64)
    found = [row for row in rows("agreement", AGREEMENT) if (row["scorer_a"], row["scorer_b"]) == (scorer, f"{scorer}-paper")]
    (row,) = [row for row in found if (row["sae"], row["explainer_a"]) == (SAE, "default")] if len(known) else [None]

    assert len(both) == (FEW if scorer in BRIEF else LATENTS)
    assert {row["negatives"] for row in ours.values()} == {"random"}
    assert {row["negatives"] for row in theirs.values()} == {"row"}
    assert scorer == "simulation" or len(known) == len(both)
    if row is not None:
        assert (row["n"], row["differ"]) == (len(known), "scorer" if scorer == "simulation" else "negatives")
        assert row["difference"] == (pytest.approx((known[:, 0] - known[:, 1]).mean()) if len(known) >= 10 else None)


def test_activating_windows_and_explanations_are_the_same(here: Path) -> None:
    """What differs is the silent windows: the same activating ones are judged in the same way by both protocols of detection."""
    judged = [rows("scores", JUDGEMENTS, SAE, "default", each) for each in ("detection", "detection-paper")]
    positive = [{(row["latent"], row["example"]) for row in some if row["truth"]} for some in judged]
    negative = [{(row["latent"], row["example"]) for row in some if not row["truth"]} for some in judged]

    assert positive[0] == positive[1]
    assert not negative[0] & negative[1]


def test_each_sample_is_asked_once_and_stands_in_a_row(here: Path) -> None:
    """An explainer that is asked several times has so many rows of each latent, with texts and requests of their own; each is scored."""
    for explainer in ("sampled", "effects"):
        found = rows("explanations", EXPLANATIONS, SAE, explainer)
        names = [named(explainer, sample) for sample in range(SAMPLES)]
        latents = sorted({row["latent"] for row in found})

        assert [(row["latent"], row["explainer"], row["sample"]) for row in found] == [
            (latent, name, sample) for latent in latents for sample, name in enumerate(names)
        ]
        assert len({row["request_sha256"] for row in found}) == len({row["text"] for row in found}) == len(found)
        assert {(row["latent"], row["explainer"]) for row in scored("detection", explainer)} == {
            (row["latent"], row["explainer"]) for row in found
        }


@pytest.mark.parametrize(("explainer", "scorer"), [("sampled", "detection"), ("sampled", "embedding-paper"), ("effects", "intervention")])
def test_the_best_of_several_is_reported_twice(here: Path, explainer: str, scorer: str) -> None:
    """What one half of the windows chooses is reported on the other, beside the largest score there, which promises more."""
    found = {(row["sae"], row["explainer"], row["scorer"]): row for row in rows("agreement", BEST)}
    row = found[SAE, explainer, scorer]

    assert not any(name.startswith("simulation") for _, _, name in found)
    assert {name for _, name, _ in found} == {"sampled", "effects"}
    assert (row["samples"], row["unit"]) == (SAMPLES, scored(scorer, explainer)[0]["unit"])
    assert found["all", explainer, scorer]["maximum"] == row["maximum"]
    if scorer == "intervention":
        assert (row["n"], row["maximum"]) == (FEW, None)
    else:
        assert row["n"] == LATENTS
        assert row["optimism"] == pytest.approx(row["maximum"] - row["chosen"])
        assert row["optimism_low"] > 0


def test_samples_are_compared_with_the_first_one_only(here: Path) -> None:
    """Agreement has each further sample beside its explainer's first one, by the same scorer, and nowhere else."""
    found = [row for row in rows("agreement", AGREEMENT) if "-sample-" in row["explainer_a"] + row["explainer_b"]]

    assert {(row["explainer_a"], row["explainer_b"], row["differ"]) for row in found} == {
        (explainer, named(explainer, sample), "sample") for explainer in ("sampled", "effects") for sample in range(1, SAMPLES)
    }
    assert all(row["scorer_a"] == row["scorer_b"] for row in found)


def test_without_samples_there_is_no_best(here: Path) -> None:
    """Where each explainer is asked once, the dataset has no rows, and no judgement is read."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    for spec in params["explainers"].values():
        spec["samples"] = 1
    write_params(Path(), params)
    for path in Path("build/scores").rglob("judgements-*.parquet"):
        path.unlink()
    agreement.main()

    assert rows("agreement", BEST) == []
