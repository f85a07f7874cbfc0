"""Real vLLM on the CPU, in this process and as a server: stages that explain and score, log-probabilities, limits (`make test-vllm`)."""

from __future__ import annotations

import functools
import json
import os
import pydoc_data.topics
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from project import TOPICS, small_params, write_params

from builders.engines.local import LocalEngine, LocalSettings
from builders.engines.requests import Answer, Chat, Failure, Message, Score
from builders.engines.schemas import fits, one_of
from builders.subjects.places import Source
from pipelines.opened.engines import open_engine
from pipelines.params import OpenAiEngineParams, VllmEngineParams
from pipelines.stages import activations, contexts, corpora, explanations, interventions, saes, scores, subjects, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builders.engines.requests import Engine

pytest.importorskip("vllm", reason="vLLM has an environment of its own; run `make test-vllm`")

LIMIT = 4096
TEXT = "words about boats"
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GB


def hello(number: int, **settings: Any) -> Chat:
    """Return a small conversation."""
    return Chat((Message("system", "Speak of boats. " * 20), Message("user", f"Hello {number}")), **{"max_tokens": 60, **settings})


@pytest.fixture(scope="module")
def in_process(talker: Path) -> Engine:
    """Return the model loaded by vLLM into this process, as params would have it."""
    return open_engine(VllmEngineParams(kind="vllm", path=str(talker), context=LIMIT, dtype="float32"))


@pytest.fixture(scope="module")
def served(talker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `vllm serve` on loopback and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # What `vllm serve` runs; its console script looks for a package called vllm, which the CPU build is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(talker), "--served-model-name", "talker"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(LIMIT), "--max-logprobs", "20"]
    with (tmp_path_factory.mktemp("serve") / "log").open("w+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        tick = threading.Event()
        while not _answers(f"http://127.0.0.1:{port}/health"):
            log.seek(0)
            assert server.poll() is None, log.read()[-2000:]
            tick.wait(0.2)
        yield f"http://127.0.0.1:{port}/v1"
        os.killpg(server.pid, 15)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:  # noqa: S310  # loopback
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Path]:
    """Go to a project with a random SAE whose contexts are ready to be explained."""
    here = tmp_path_factory.mktemp("project")
    (here / "text").mkdir()
    for topic in TOPICS:
        (here / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:4000], encoding="utf-8")
    shutil.copytree(tiny_checkpoint, here / "model")
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {"random": {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 24, "k": 4}}
    before = Path.cwd()
    os.chdir(here)
    write_params(here, params)
    for stage, name in ((corpora, "topics"), (subjects, "lab"), (tokens, "lab"), (saes, "random"), (activations, "random")):
        stage.main(name)
    contexts.main("random")
    interventions.main("random")
    yield here
    os.chdir(before)


def explained(here: Path, engine: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    """Run the explanations stage with an engine and return its rows, in an empty cache."""
    shutil.rmtree(here / ".interplake", ignore_errors=True)
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {"random": {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 24, "k": 4}}
    params["engines"] = {"talker": {**engine, "price": {"prompt": 1.0, "cached": 0.1, "output": 2.0}}}
    params["explainers"] = {"talker": {"kind": "default", "engine": "talker", "examples": 4, "max_tokens": 60, **settings}}
    write_params(here, params)
    explanations.main("talker", "random")
    return pq.read_table("build/explanations/talker/random/explanations-00000.parquet").to_pylist()


def test_the_whole_stage_in_this_process(
    project: Path, in_process: Engine, talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every latent gets the text that the model wrote, and prompt, answer and cost are counted."""
    monkeypatch.setattr("pipelines.opened.engines.open_engine", functools.cache(lambda _: in_process))  # loaded once for all tests

    rows = explained(project, {"kind": "vllm", "path": str(talker), "context": LIMIT, "dtype": "float32"})
    spent = json.loads((project / "build/explanations/talker/random/usage.json").read_text())
    own = [row for row in rows if row["explainer"] == "talker"]

    assert len(own) >= 10
    assert {(row["status"], row["text"], row["engine"], row["model"]) for row in own} == {("ok", TEXT, "vllm", "talker")}
    assert spent["prompt_tokens"] == sum(row["prompt_tokens"] for row in own)
    assert spent["cached_tokens"] > 0.5 * spent["prompt_tokens"], "latents share the longest prefix, which is read once"
    assert f"explanations of random by talker: 0 of {len(own)} latents failed" in capsys.readouterr().out


def test_the_whole_stage_over_http(project: Path, served: str) -> None:
    """The same stage against `vllm serve` gives every latent the same text."""
    rows = explained(project, {"kind": "openai", "base_url": served, "model": "talker"})

    assert {(row["status"], row["text"], row["engine"]) for row in rows} == {("ok", TEXT, "openai")}
    assert all(row["prompt_tokens"] > 500 and row["output_tokens"] == 3 for row in rows)


JUDGED = {
    "detection": {"kind": "detection"},
    "fuzzing": {"kind": "fuzzing"},
    "simulation": {"kind": "simulation", "form": "all-at-once", "windows": 5},
    "surprisal": {"kind": "surprisal"},
}
Rows = list[dict[str, Any]]
Judged = Callable[[str, str], tuple[Rows, Rows]]


@pytest.fixture(scope="module")
def judged(project: Path, in_process: Engine, talker: Path) -> Judged:
    """Return what makes rows of judgements and scores by a scorer of JUDGED and a judge, `vllm` or `transformers`."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {"random": {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 24, "k": 4}}
    kinds = {"vllm": {"context": LIMIT}, "transformers": {}}
    params["engines"] = {kind: {"kind": kind, "path": str(talker), "dtype": "float32", **more} for kind, more in kinds.items()}
    params["judges"] = {kind: {"kind": "model", "engine": kind, "form": "free", "logprobs": True} for kind in kinds} | {
        "lexical": {"kind": "lexical"}
    }
    params["scorers"] = {f"{name}-{kind}": {**spec, "judge": kind, "latents": 1} for name, spec in JUDGED.items() for kind in kinds}

    @functools.cache
    def made(scorer: str, judge: str) -> tuple[Rows, Rows]:
        write_params(project, params)
        explanations.main("lexical", "random")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.opened.engines.open_engine", lambda spec: in_process if spec.kind == "vllm" else open_engine(spec))
            scores.main(f"{scorer}-{judge}", "random", "lexical")
        folder = Path("build/scores", f"{scorer}-{judge}", "random/lexical")
        judgements, found = (pq.read_table(folder / f"{name}-00000.parquet").to_pylist() for name in ("judgements", "scores"))
        return judgements, found

    return made


@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_windows_are_judged(judged: Judged, scorer: str) -> None:
    """Every five windows get the list that the model writes, each 1 with a probability above a half and each 0 with one below."""
    rows, found = judged(scorer, "vllm")

    assert {(row["status"], row["judge"]) for row in rows} == {("ok", "vllm")}
    assert sum(row["answer"] for row in rows) == 3 * len(rows) / 5
    assert all((row["probability"] > 0.5) == row["answer"] for row in rows)
    assert {(row["status"], row["model"], row["n"], row["unit"]) for row in found} == {("ok", "talker", 20, "balanced accuracy")}
    assert len(found) == 2, "a latent with its own explanation and with another's"
    assert sum(row["cached_tokens"] for row in found) > 0.5 * sum(row["prompt_tokens"] for row in found)


def test_simulation_reads_the_level_of_every_token(judged: Judged) -> None:
    """All at once, every window has a level at each token, and the correlation is that of the transformers engine."""
    rows, found = judged("simulation", "vllm")
    expected = judged("simulation", "transformers")[1]

    assert {row["status"] for row in rows} == {"ok"}
    assert [(row["status"], row["n"]) for row in found] == [("ok", 10)] * 2
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-2)
    assert len({row["score"] for row in found}) > 1


def test_surprisal_is_that_of_the_model(judged: Judged) -> None:
    """Every window's nats are those that the transformers engine gives, which reads in batches of its own."""
    rows, found = judged("surprisal", "vllm")
    expected, _ = judged("surprisal", "transformers")

    assert {row["status"] for row in rows} == {"ok"}
    assert [row["value"] for row in rows] == pytest.approx([row["value"] for row in expected], abs=1e-3)
    assert max(abs(row["value"]) for row in rows) > 0.01, "the description changes what the model expects"
    assert [(row["status"], row["n"], row["unit"]) for row in found] == [("ok", 20, "AUROC")] * 2


@pytest.fixture(scope="module")
def engines(in_process: Engine, served: str, talker: Path) -> dict[str, Engine]:
    """Return the three engines that run the same weights."""
    return {
        "vllm": in_process,
        "openai": open_engine(OpenAiEngineParams(kind="openai", base_url=served, model="talker")),
        "transformers": LocalEngine(LocalSettings(Source(path=str(talker)), "float32", "cpu")),
    }


@pytest.mark.parametrize("name", ["vllm", "openai"])
def test_log_probabilities_are_those_of_the_model(engines: dict[str, Engine], name: str) -> None:
    """Each token of an answer has its log-probability and the likeliest alternatives, as a plain forward pass gives them."""
    request = hello(1, top_logprobs=3)
    found, expected = (dict(engines[one].run([request]))[0] for one in (name, "transformers"))

    assert isinstance(found, Answer)
    assert isinstance(expected, Answer)
    assert found.text == expected.text
    pairs = list(zip(found.tokens, expected.tokens, strict=False))
    assert len(pairs) >= 2
    for mine, theirs in pairs:
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert mine.top[0][1] == pytest.approx(theirs.top[0][1], abs=1e-3)
        assert len(mine.top) == 3


@pytest.mark.parametrize("name", ["vllm", "openai"])
def test_a_continuation_is_scored_as_by_the_model(engines: dict[str, Engine], name: str) -> None:
    """The log-probabilities of a given continuation, and of nothing before it, are those of a plain forward pass."""
    request = Score("The boats were", " red and the river", 2)
    found, expected = (dict(engines[one].run([request]))[0] for one in (name, "transformers"))

    assert isinstance(found, Answer)
    assert isinstance(expected, Answer)
    assert "".join(token.text for token in found.tokens) == " red and the river"
    assert [token.logprob for token in found.tokens] == pytest.approx([token.logprob for token in expected.tokens], abs=1e-3)


def test_requests_keep_their_own_sampling(engines: dict[str, Engine]) -> None:
    """A request for one token beside requests for many shortens none of them, and asks log-probabilities for none."""
    found = dict(engines["vllm"].run([hello(1), hello(2, max_tokens=1, top_logprobs=2), hello(3)]))

    texts = [outcome.text for outcome in found.values() if isinstance(outcome, Answer)]
    assert [text.endswith(TEXT) for text in texts] == [True, False, True]
    assert [bool(outcome.tokens) for outcome in found.values() if isinstance(outcome, Answer)] == [False, True, False]


@pytest.mark.parametrize("name", ["vllm", "openai"])
def test_a_prompt_that_is_too_long_fails_alone(engines: dict[str, Engine], name: str) -> None:
    """The request that does not fit fails with the limit in its reason, and the others are answered."""
    found = dict(engines[name].run([hello(1), Chat((Message("user", "x " * LIMIT),), 10), hello(2)]))

    assert isinstance(found[1], Failure)
    assert (found[1].status, str(LIMIT) in found[1].reason) == ("too long", True)
    assert all(isinstance(found[place], Answer) for place in (0, 2))


@pytest.mark.parametrize("schema", [{"type": "string", "enum": ["yes", "no"]}, one_of([0, 1])], ids=["words", "a digit"])
def test_an_answer_keeps_to_its_form(engines: dict[str, Engine], schema: dict[str, Any]) -> None:
    """With a form the answer is what the JSON schema allows, whatever the model would rather say."""
    found = dict(engines["vllm"].run([hello(1, form=json.dumps(schema))]))[0]

    assert isinstance(found, Answer)
    assert fits(schema, json.loads(found.text))
