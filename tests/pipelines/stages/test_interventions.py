"""Stage `interventions` in this process, and its scorer; subject and judge are one checkpoint, with a longer context as judge."""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
from contextlib import chdir
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from project import TOPICS, digests, small_params, write_params

from builders.errors import UserError
from builders.interventions.generations import GENERATIONS
from builders.interventions.interventions import INTERVENTIONS
from builders.lake.failures import FAILURES
from builders.lake.shards import Shards
from builders.scorers.judgements import JUDGEMENTS, SCORES
from pipelines.graph.stage import shelf
from pipelines.opened.dictionaries import reopened
from pipelines.opened.subjects import Subjects
from pipelines.params import load
from pipelines.parts.windows import drawn_latents, windows
from pipelines.stages import activations, contexts, corpora, explanations, interventions, neighbours, saes, scores, subjects, tokens
from pipelines.stages.interventions import asked_of

if TYPE_CHECKING:
    from pathlib import Path

    from shared import Once

SAE, RULES = "random", "rules"
CONTEXT = 160  # of the subject, whose rows have 128 tokens
PUSHED: dict[str, Any] = {"kind": "intervention", "judge": "tiny", "kl": 1e-4, "prompts": 4, "tokens": 3, "latents": 3}


def params_of() -> dict[str, Any]:
    """Return params with a random SAE and rules over text, and two intervention scorers with one judge."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {
        SAE: {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 32, "k": 4},
        RULES: {"source": "planted", "subject": "lab"},
    }
    params["contexts"] |= {"train": 4, "test": 4, "train_random": 3, "test_random": 2, "quantiles": 2}
    params["engines"] = {"tiny": {"kind": "transformers", "path": "judge"}}
    params["judges"]["tiny"] = {"kind": "model", "engine": "tiny", "max_failed_share": 1.0}
    params["scorers"] |= {"pushed": PUSHED, "silenced": PUSHED | {"ablate": True, "latents": 2}}
    return params


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to the interventions and explanations."""
    return once("pushed", lambda folder: fill(folder, tiny_checkpoint))


def fill(folder: Path, checkpoint: Path) -> None:
    """Build the project in *folder*."""
    (folder / "text").mkdir()
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:3000], encoding="utf-8")
    for name, length in (("model", CONTEXT), ("judge", 2048)):
        shutil.copytree(checkpoint, folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps(config | {"max_position_embeddings": length}))
    write_params(folder, params_of())
    with chdir(folder):
        corpora.main("topics")
        for stage in (subjects, tokens):
            stage.main("lab")
        for name in (SAE, RULES):
            for stage in (saes, activations, neighbours, contexts, interventions):
                stage.main(name)
            explanations.main("lexical", name)


def change(folder: Path, section: str, **values: Any) -> None:
    """Change entries of a section of params."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params[section] |= values
    write_params(folder, params)


def test_what_scorers_ask_is_written(here: Path) -> None:
    """Each scorer has rows for the latents that are drawn for it and no others; both see the same beginnings."""
    rows = shelf("interventions", SAE).read(GENERATIONS)
    GENERATIONS.validate(rows)
    by_scorer = {name: [row for row in rows.to_pylist() if row["scorer"] == name] for name in ("pushed", "silenced")}
    for name, most in (("pushed", 3), ("silenced", 2)):
        wanted = drawn_latents(shelf("contexts", SAE), 0, SAE, most)
        assert len(wanted) == most
        assert {row["latent"] for row in by_scorer[name]} == wanted
        directions = ["latent", "random"] if name == "pushed" else ["latent"]
        assert [row["direction"] for row in by_scorer[name]] == [direction for direction in directions for _ in range(4)] * most
    clean = {(row["latent"], row["prompt"]): row["clean_tokens"] for row in by_scorer["pushed"]}
    assert {(row["latent"], row["prompt"]): row["clean_tokens"] for row in by_scorer["silenced"]}.items() <= clean.items()


def test_the_latent_fires_at_the_end_of_every_beginning(here: Path) -> None:
    """The model reads each beginning alone, and at its last token the latent fires as strongly as stored: in all cases, in either table."""
    change(here, "explainers", effects={"kind": "intervention", "engine": "tiny", "examples": 4, "kl": 0.02})
    interventions.main(SAE)
    encoder = reopened(Subjects(load()), SAE, shelf("saes", SAE), shelf("tokens", "lab"))
    for table, split in ((INTERVENTIONS, "train"), (GENERATIONS, "test")):
        rows = shelf("interventions", SAE).read(table).to_pylist()
        assert len(rows) > 20
        assert max(len(row["tokens"]) for row in rows) > 100
        stored = {own.latent: own for own in windows(shelf("contexts", SAE), split)}
        for row in rows:
            assert row["tokens"][0] == 0  # BOS
            text = pa.table({"row": [0], "ids": [row["tokens"]], "special": [[False] * len(row["tokens"])]})
            found, last = encoder.firings(text), len(row["tokens"]) - 1
            value = found.value[(found.latent == row["latent"]) & (found.position == last)]
            own, offset = stored[row["latent"]], last - row["start"]
            same = (own.start == row["start"]) & (own.tokens[:, : offset + 1] == row["tokens"][row["start"] :]).all(axis=1)
            assert np.isclose(own.activations[same, offset], value, rtol=1e-3).any()


def test_the_divergence_is_as_asked(here: Path) -> None:
    """Every latent and every random direction whose status is ok has the KL asked for within a tenth, where it is scored."""
    rows = [row for row in shelf("interventions", SAE).read(GENERATIONS).to_pylist() if row["scorer"] == "pushed"]
    assert {row["status"] for row in rows} == {"ok"}
    assert all(abs(row["kl"] / row["kl_asked"] - 1) <= 0.1 for row in rows)


def test_nobody_asks_nothing_is_written(here: Path) -> None:
    """Without an intervention explainer or scorer both tables are empty, and the model's files are not opened."""
    change(here, "scorers", pushed={"kind": "detection", "judge": "lexical"}, silenced={"kind": "detection", "judge": "lexical"})
    shutil.rmtree(here / "model")
    interventions.main(SAE)
    assert [shelf("interventions", SAE).rows(table) for table in (INTERVENTIONS, GENERATIONS)] == [0, 0]


def test_effects_are_those_of_the_latents_that_explainers_draw(here: Path) -> None:
    """Among explainers with the same KL, the one that draws most latents decides how many have effects."""
    asking = {"kind": "intervention", "engine": "tiny", "examples": 2, "kl": 0.02, "latents": 1}
    change(here, "explainers", few=asking, many=asking | {"examples": 3, "latents": 2}, strong=asking | {"kl": 0.03})
    interventions.main(SAE)
    rows = shelf("interventions", SAE).read(INTERVENTIONS).to_pylist()
    for kl, most, count in ((0.02, 2, 3), (0.03, 1, 2)):
        own = [row for row in rows if row["kl_asked"] == kl]
        assert {row["latent"] for row in own} == drawn_latents(shelf("contexts", SAE), 0, SAE, most)
        assert len(own) == most * count


def test_what_is_done_is_not_done_again(here: Path) -> None:
    """A stage that was stopped just before its end continues from its shards, without loading the model, to the same bytes."""
    whole = digests(here / "build/interventions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "finish", lambda _: None)
        interventions.main(SAE)
    shutil.rmtree(here / "model")
    interventions.main(SAE)
    assert digests(here / "build/interventions") == whole


def test_nobody_scores_what_nobody_explains(here: Path) -> None:
    """A scorer of all latents has those of the explainer that explains most, if all explain but some."""
    change(here, "scorers", pushed={**PUSHED, "latents": None})
    assert asked_of(load()).latents["pushed"] is None
    asking = {"kind": "default", "engine": "tiny", "latents": 5}
    change(here, "explainers", lexical=asking, other=asking | {"latents": 7})
    assert asked_of(load()).latents == {"pushed": 7, "silenced": 2}


def test_rules_have_no_direction(here: Path) -> None:
    """A dictionary that is in no model gets no rows, a failure for each latent and scorer, and scores that say why there are none."""
    held = shelf("interventions", RULES)
    assert [held.rows(table) for table in (INTERVENTIONS, GENERATIONS)] == [0, 0]
    failed = held.read(FAILURES).to_pylist()
    assert {(row["item"], row["latent"]) for row in failed} == {
        (name, latent)
        for name, most in (("pushed", 3), ("silenced", 2))
        for latent in drawn_latents(shelf("contexts", RULES), 0, RULES, most)
    }
    scores.main("pushed", RULES, "lexical")
    rows = shelf("scores", RULES, "lexical", "pushed").read(SCORES).to_pylist()
    assert {(row["status"], row["score"]) for row in rows} == {("no direction", None)}


@pytest.mark.parametrize("scorer", ["pushed", "silenced"])
def test_explanations_and_their_baseline_are_scored(scorer: str, here: Path) -> None:
    """Both the explanation and that of another latent are scored on the same passages, in nats against chance 0, with their error."""
    scores.main(scorer, SAE, "lexical")
    held = shelf("scores", SAE, "lexical", scorer)
    rows, judged = held.read(SCORES).to_pylist(), held.read(JUDGEMENTS).to_pylist()
    written = [row for row in shelf("interventions", SAE).read(GENERATIONS).to_pylist() if row["scorer"] == scorer]
    kl = {row["latent"]: row["kl"] for row in written if row["direction"] == "latent"}
    assert {row["explainer"] for row in rows} == {"lexical", "lexical-permuted"}
    for row in rows:
        assert (row["unit"], row["chance"], row["negatives"], row["judge"], row["n"]) == ("nats", 0, "none", "tiny", 4)
        assert (row["status"], row["kl"]) == ("ok", kl[row["latent"]])
        own = [one for one in judged if (one["latent"], one["explainer"]) == (row["latent"], row["explainer"])]
        assert row["score"] == pytest.approx(sum(one["value"] for one in own) / 4, abs=1e-9)
        if scorer == "silenced":
            assert {row["null_score"], row["over_null"], *(one["null_value"] for one in own)} == {None}
        else:
            assert row["null_score"] == pytest.approx(sum(one["null_value"] for one in own) / 4, abs=1e-9)
            assert row["over_null"] == pytest.approx(row["score"] - row["null_score"], abs=1e-9)
            assert row["null_score_se"] is not None
            assert row["over_null_se"] is not None


def test_new_passages_are_scored_anew(here: Path) -> None:
    """The output of stage `interventions` is among the inputs of this scorer."""
    scores.main("pushed", SAE, "lexical")
    before = shelf("scores", SAE, "lexical", "pushed").manifest["inputs"]
    change(here, "scorers", silenced=PUSHED | {"ablate": True, "tokens": 2})
    interventions.main(SAE)
    scores.main("pushed", SAE, "lexical")
    after = shelf("scores", SAE, "lexical", "pushed").manifest["inputs"]
    assert {name for name in before if before[name] != after[name]} == {"interventions"}


def test_a_row_that_leaves_no_room_is_a_mistake(here: Path) -> None:
    """If rows and the tokens to write are longer than the subject reads, the stage ends in one line with all numbers."""
    change(here, "scorers", pushed=PUSHED | {"tokens": 33})
    with pytest.raises(UserError, match=r"scorers\.pushed\.tokens: a row of 128 tokens and 33 more are longer than the 160 .*length"):
        interventions.main(SAE)


def test_shards_hold_so_many_latents(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash costs the latents of one shard: with two in a shard, three latents are two shards, and the rows are the same."""
    before = shelf("interventions", SAE).read(GENERATIONS)
    monkeypatch.setattr(interventions, "TOGETHER", 2)
    shutil.rmtree(here / "build/interventions" / SAE)
    interventions.main(SAE)
    paths = shelf("interventions", SAE).paths(GENERATIONS)
    assert [len(set(pq.read_table(path)["latent"].to_pylist())) for path in paths] == [2, 1]
    assert shelf("interventions", SAE).read(GENERATIONS).equals(before)
