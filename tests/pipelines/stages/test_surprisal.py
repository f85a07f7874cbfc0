"""The scores stage with a surprisal scorer: a real judge in this process, and servers that score no text."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml
from explained import SAE, build, command, latents_with_contexts
from llm_server import MODEL, Reply, chat, error, scored, serving
from project import write_params

from builders.engines.requests import Score
from builders.errors import UserError
from builders.scorers.surprisal import NOTHING, prompt
from pipelines.graph.stage import folder
from pipelines.opened.engines import CACHE, open_engine, sizes
from pipelines.params import load
from pipelines.stages import explanations, scores

if TYPE_CHECKING:
    from llm_server import Server
    from shared import Once

WHO = "imported"


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, echoing_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to two explanations of each latent, with a judge in this process and one on a server."""
    return once("surprised", lambda folder: fill(folder, tiny_checkpoint, echoing_checkpoint))


def fill(folder: Path, checkpoint: Path, judge: Path) -> None:
    """Build the project in *folder*."""
    build(folder, checkpoint, 24, 4, test=3, test_random=3)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["engines"]["local"] = {"kind": "transformers", "path": str(judge), "price": {"prompt": 1.0}}
    params["direct_scorers"] = {}
    params["judges"] = {name: {"kind": "model", "engine": name} for name in ("local", "server")}
    params["scorers"] = {name: {"kind": "surprisal", "judge": name, "latents": 4} for name in ("local", "server")}
    write_params(folder, params)
    latents = latents_with_contexts(folder)
    (folder / "theirs.csv").write_text("latent,explanation\n" + "".join(f"{latent},meaning {latent}\n" for latent in latents))
    with chdir(folder):
        explanations.main(WHO, SAE)


def rows_of(scorer: str, name: str) -> list[dict[str, Any]]:
    """Return the rows that a scorer left."""
    rows: list[dict[str, Any]] = pq.read_table(folder("scores", SAE, WHO, scorer) / f"{name}-00000.parquet").to_pylist()
    return rows


def test_a_judge_in_this_process_measures_every_window(here: Path) -> None:
    """Each window's value is the difference of what the engine says after both prompts, and each score an AUROC of them."""
    scores.main("local", SAE, WHO)
    judged, found = rows_of("local", "judgements"), rows_of("local", "scores")
    contexts = {
        (row["latent"], row["example"]): row["text"]
        for path in Path("build/contexts", SAE).glob("contexts-*.parquet")
        for row in pq.read_table(path).to_pylist()
        if row["split"] == "test"
    }
    engine = open_engine(load().engines["local"])
    first = judged[0]
    text = contexts[first["latent"], first["example"]]
    outcomes = dict(engine.run([Score(prompt(words), text) for words in (f"meaning {first['latent']}", NOTHING)]))
    nats = [sum(token.logprob for token in outcomes[place].tokens) for place in (0, 1)]  # type: ignore[union-attr]

    assert {row["status"] for row in judged} == {"ok"}
    assert first["value"] == pytest.approx(nats[0] - nats[1], abs=1e-4)
    assert {row["status"] for row in found} == {"ok"}
    assert {(row["n"], row["n_positive"], row["unit"], row["chance"], row["model"]) for row in found} == {
        (6, 3, "AUROC", 0.5, "echoing-llama")
    }
    assert all(row["score"] == row["auroc"] and 0 <= row["score"] <= 1 for row in found)


def test_running_again_asks_nothing(here: Path) -> None:
    """Every answer is kept, one for each distinct prompt and window, and scoring again takes the same bytes from them."""
    scores.main("local", SAE, WHO)
    before, kept = rows_of("local", "judgements"), sizes()
    shutil.rmtree(Path("build/scores"))
    cache = CACHE.read_bytes()
    scores.main("local", SAE, WHO)

    assert rows_of("local", "judgements") == before
    assert CACHE.read_bytes() == cache
    assert [(engine, model) for engine, model, _, _ in kept] == [("transformers", "echoing-llama")]
    # With the one question whether it scores text at all.
    explained = 4 * len({row["explainer"] for row in before})
    assert kept[0][2] <= 1 + 6 * (explained + 4)


def asked_at(here: Path, server: Server) -> None:
    """Point the project's server engine to *server*."""
    params = yaml.safe_load((here / "params.yaml").read_text())
    params["engines"]["server"]["base_url"] = server.url
    write_params(here, params)


NO_TEXT: dict[str, tuple[Reply, str]] = {
    "refuses": (error(400, "echo is not supported"), "echo is not supported"),
    "ignores": (
        Reply(
            {"id": "1", "object": "text_completion", "created": 0, "model": MODEL, "choices": [{"index": 0, "text": "a", "logprobs": None}]}
        ),
        "scores no text",
    ),
    "knows conversations alone": (error(404, "no such route"), "no such route"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_a_judge_that_scores_no_text_is_told_first(here: Path, name: str) -> None:
    """One question is asked; then one line names judge, model, engine and what to choose, with exit code 2 and nothing written."""
    reply, said = NO_TEXT[name]
    with serving(lambda *_: reply) as server:
        asked_at(here, server)
        process = command(here, WHO, "server", stage="scores")
        out, err = process.communicate()

        assert len(server.bodies) == 1
    assert process.returncode == 2, out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: judges.server: no log-probabilities from {MODEL} (openai engine): ")
    assert said in line
    assert "choose an engine of kind llamacpp, vllm or transformers, or a server that scores given text" in line
    assert "Traceback" not in err
    assert not list(Path("build/scores").rglob("*.parquet"))


def test_a_server_that_scores_text_is_a_judge(here: Path) -> None:
    """A server that echoes its prompt with log-probabilities gives every window a value."""

    def script(body: dict[str, Any], _: int) -> Reply:
        text = body["prompt"]
        return scored([text[start : start + 1] for start in range(len(text))]) if "messages" not in body else chat("no")

    with serving(script) as server:
        asked_at(here, server)
        scores.main("server", SAE, WHO)

    assert {row["status"] for row in rows_of("server", "judgements")} == {"ok"}
    # The script's log-probability falls with the place, and both prompts are of different lengths.
    assert all(row["value"] != 0 for row in rows_of("server", "judgements"))


def test_a_server_that_is_gone_is_told(here: Path) -> None:
    """A server that nobody reaches ends the stage with one line."""
    with serving(lambda *_: chat("no")) as gone:
        asked_at(here, gone)

    with pytest.raises(UserError, match="cannot be reached; start the server, or correct `base_url`"):
        scores.main("server", SAE, WHO)
