"""Stages `scores` and `direct` in this process, their judge a scripted server."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from explained import SAE, build, change, command, latents_with_contexts
from llm_server import MODEL, Body, Reply, Server, chat, content_of, error, serving, token
from project import digests, write_params

from builders.errors import UserError
from builders.lake.shards import Shelf
from builders.scorers import chat as judging
from builders.scorers.judging import PROMPTS
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.stage import folder
from pipelines.parts.windows import windows
from pipelines.stages import direct, explanations, scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared import Once

WHO = "imported"
ACTIVE, SILENT = 6, 7  # test windows of a latent: three prompts of five, five and three
LATENTS = 10
JUDGES: dict[str, Any] = {
    "reader": {"kind": "model", "engine": "server"},
    "sure": {"kind": "model", "engine": "server", "logprobs": True},
    "lexical": {"kind": "lexical"},
}
SCORERS: dict[str, Any] = {
    "detection": {"kind": "detection", "judge": "reader", "latents": LATENTS},
    "fuzzing": {"kind": "fuzzing", "judge": "reader", "latents": LATENTS},
    "neighbours": {"kind": "fuzzing", "judge": "reader", "negatives": "decoder", "latents": LATENTS},
    "misplaced": {"kind": "fuzzing", "judge": "reader", "negatives": "active", "latents": LATENTS},
    "sure": {"kind": "detection", "judge": "sure", "latents": LATENTS},
    "lexical": {"kind": "detection", "judge": "lexical", "latents": LATENTS},
}
DIRECT: dict[str, Any] = {
    "intruder": {"kind": "intruder", "judge": "reader", "shown": 4, "trials": 5, "latents": LATENTS},
    "internal": {"kind": "intruder", "judge": "reader", "shown": 3, "trials": 5, "negatives": "internal", "latents": LATENTS},
    "counted": {"kind": "intruder", "judge": "lexical", "shown": 4, "trials": 5, "latents": LATENTS},
    "crowded": {"kind": "intruder", "judge": "reader", "shown": 9, "trials": 2, "latents": LATENTS},
}


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to somebody's explanations, one of which is missing."""
    return once("scored", lambda folder: fill(folder, tiny_checkpoint))


def fill(folder: Path, checkpoint: Path) -> None:
    """Build the project in *folder*."""
    build(folder, checkpoint, 48, 4, test=ACTIVE, test_random=SILENT)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["explainers"][WHO]["baseline"] = "none"
    write_params(folder, params | {"judges": JUDGES, "scorers": SCORERS, "direct_scorers": DIRECT})
    known = latents_with_contexts(folder)[1:]
    (folder / "theirs.csv").write_text("latent,explanation\n" + "".join(f"{latent},meaning {latent}\n" for latent in known))
    with chdir(folder):
        explanations.main(WHO, SAE)


@pytest.fixture
def server(here: Path) -> Iterator[Server]:
    """Return a server that judges everything, which the project's engine asks."""
    with serving(judges) as serving_:
        change(here, {"base_url": serving_.url})
        yield serving_


def amend(folder: Path, section: str, name: str, **spec: Any) -> None:
    """Change params of a judge or a scorer."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params[section][name] |= spec
    write_params(folder, params)


def examples_of(body: Body) -> list[str]:
    """Return the examples that a question shows last."""
    return [text.strip() for text in re.split(r"^Example \d+:", body["messages"][-1]["content"], flags=re.M)[1:]]


def draw(text: str) -> int:
    """Return a number that belongs to a text, whatever stands around it."""
    return int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:4], "big")


def judges(body: Body, _: int) -> Reply:
    """Answer by what each example's text happens to be, with log-probabilities where they are asked for."""
    numbers = [draw(text) for text in examples_of(body)]
    if "intruder" in body["messages"][0]["content"]:
        return chat(f"Well.\n[RESPONSE]: {1 + int(np.argmax(numbers))}")
    told = [number % 2 for number in numbers]
    if not body.get("logprobs"):
        return chat(str(told))
    tokens = [token("[", -0.1)]
    for place, (yes, number) in enumerate(zip(told, numbers, strict=True)):
        p = 0.5 + (number % 1000) / 2001
        tokens += [token(", ", -0.1)] if place else []
        tokens.append(token(str(yes), math.log(p), (str(1 - yes), math.log(1 - p))))
    return chat(str(told), logprobs=[*tokens, token("]", -0.1)])


def faulty(body: Body, attempt: int) -> Reply:
    """Answer two questions of five, and fail each other in a way of its own."""
    n = len(examples_of(body))
    others = [error(500, "out of memory"), chat("I cannot say."), chat(str([1] * (n + 1)))]
    number = int(content_of(body), 16) % 5
    return judges(body, attempt) if number < 2 else others[number - 2]


def rows_of(stage: str, scorer: str, name: str) -> list[dict[str, Any]]:
    """Return the rows that a scorer left."""
    ids = (WHO, scorer) if stage == "scores" else (scorer,)
    rows: list[dict[str, Any]] = pq.read_table(folder(stage, SAE, *ids) / f"{name}-00000.parquet").to_pylist()
    return rows


def usage_of(*ids: str) -> dict[str, Any]:
    """Return what a scorer's answers cost."""
    told: dict[str, Any] = json.loads((folder(*ids) / "usage.json").read_text())
    return told


def windows_by_number(silent: str = "random") -> dict[tuple[int, int], tuple[str, bool]]:
    """Return the text and the truth of each activating test window and each *silent* one, by latent and number."""
    contexts = Shelf(Path("build/contexts", SAE))
    pieces = text_pieces(contexts.read(VOCABULARY))
    found = {}
    for every in windows(contexts, "test"):
        examples = every.against(silent)
        for number, tokens, truth in zip(examples.number.tolist(), examples.tokens, examples.activating.tolist(), strict=True):
            found[examples.latent, number] = (b"".join(pieces[one] for one in tokens).decode("utf-8", "replace"), truth)
    return found


def test_every_window_gets_its_own_answer(here: Path, server: Server) -> None:
    """Each test window of each explained latent has one row with its truth and what was answered to its text, whatever its batch."""
    scores.main("detection", SAE, WHO)
    rows, known = rows_of("scores", "detection", "judgements"), windows_by_number()
    latents = {row["latent"] for row in rows}

    assert {(row["latent"], row["example"]) for row in rows} == {key for key in known if key[0] in latents}
    assert len(rows) == len(latents) * (ACTIVE + SILENT)
    for row in rows:
        text, truth = known[row["latent"], row["example"]]
        assert (row["truth"], row["answer"], row["status"]) == (truth, bool(draw(text) % 2), "ok")
    assert {(row["explainer"], row["scorer"], row["negatives"], row["judge"]) for row in rows} == {(WHO, "detection", "random", "reader")}
    assert {row["probability"] for row in rows} == {None}


def test_a_score_tells_its_pedigree(here: Path, server: Server) -> None:
    """A score follows from its latent's rows, and says by which model, prompt and how many tokens."""
    scores.main("detection", SAE, WHO)
    judged, found = rows_of("scores", "detection", "judgements"), rows_of("scores", "detection", "scores")
    drawn = set(latents_with_contexts(here)[1:]) & {row["latent"] for row in found}

    assert LATENTS - 1 <= len(found) == len(drawn) <= LATENTS
    for score in found:
        own = [row for row in judged if row["latent"] == score["latent"]]
        rates = [np.mean([row["answer"] == row["truth"] for row in own if row["truth"] == truth]) for truth in (True, False)]
        assert score["score"] == pytest.approx(np.mean(rates))
        assert (score["n"], score["n_failed"], score["n_positive"], score["status"]) == (ACTIVE + SILENT, 0, ACTIVE, "ok")
        assert (score["model"], score["prompt_sha256"], score["auroc"]) == (MODEL, PROMPTS.sha256(judging.FILES), None)
        assert [score[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens")] == [21, 6, 9]
    assert rows_of("scores", "detection", "failures") == []


def test_windows_come_five_at_a_time(here: Path, server: Server) -> None:
    """A latent's 13 windows are asked about in three prompts; all but the last turn of every prompt is the same."""
    scores.main("detection", SAE, WHO)
    sizes = Counter(len(examples_of(body)) for body in server.bodies)
    latents = len(rows_of("scores", "detection", "scores"))

    assert sizes == {5: 2 * latents, 3: latents}
    assert len({json.dumps(body["messages"][:-1]) for body in server.bodies}) == 1
    assert {body["temperature"] for body in server.bodies} == {0}
    assert not any("mark" in body["messages"][0]["content"] for body in server.bodies)


@pytest.mark.parametrize(
    ("scorer", "negatives", "count"),
    [("fuzzing", "random", ACTIVE + SILENT), ("misplaced", "active", 2 * ACTIVE), ("neighbours", "decoder", ACTIVE + 2)],
)
def test_fuzzing_marks_every_window(here: Path, server: Server, scorer: str, negatives: str, count: int) -> None:
    """Every example that is shown has marks; misplaced ones are the activating windows once more, neighbours' are windows of theirs."""
    scores.main(scorer, SAE, WHO)
    rows, found = rows_of("scores", scorer, "judgements"), rows_of("scores", scorer, "scores")

    assert all("<<" in text for body in server.bodies for text in examples_of(body))
    assert len(rows) == count * len(found)
    assert sum(len(examples_of(body)) for body in server.bodies) == sum(row["status"] == "ok" for row in rows)
    assert {row["status"] for row in rows} <= {"ok", "no marks fit"}
    assert {row["negatives"] for row in found} == {negatives}


def test_what_answers_cost_is_told_once(here: Path, server: Server) -> None:
    """usage.json adds up each answer once, at the engine's prices, and answers.txt names them; a rerun tells the same."""
    change(here, {"price": {"prompt": 1.0, "cached": 0.5, "output": 2.0}})
    scores.main("detection", SAE, WHO)
    first, count = usage_of("scores", SAE, WHO, "detection"), len(server.bodies)
    server.forget()
    scores.main("detection", SAE, WHO)

    assert first == {
        "answers": count, "prompt_tokens": 7 * count, "cached_tokens": 2 * count, "output_tokens": 3 * count,
        "dollars": pytest.approx(count * (5 * 1.0 + 2 * 0.5 + 3 * 2.0) / 1e6, abs=1e-6),
    }  # fmt: skip
    assert usage_of("scores", SAE, WHO, "detection") == first
    assert not server.bodies
    assert len(Path(f"build/scores/detection/{SAE}/{WHO}/answers.txt").read_text().split()) == count


def test_a_failed_prompt_fails_its_own_windows(here: Path, server: Server) -> None:
    """Windows whose prompt failed have its status and no answer; they are counted, and the latent has a failure row with the reason."""
    server.script = faulty
    amend(here, "judges", "reader", max_failed_share=1.0)
    scores.main("detection", SAE, WHO)
    rows, found = rows_of("scores", "detection", "judgements"), rows_of("scores", "detection", "scores")
    known, answered = windows_by_number(), set()
    for body in server.bodies:
        if int(content_of(body), 16) % 5 < 2:
            answered |= set(examples_of(body))
    failed = Counter(row["latent"] for row in rows if row["status"] != "ok")

    assert {row["status"] for row in rows} == {"ok", "HTTP 500", "no list", "wrong number"}
    for row in rows:
        text, _ = known[row["latent"], row["example"]]
        assert row["answer"] == (bool(draw(text) % 2) if row["status"] == "ok" else None)
        assert (row["status"] == "ok") <= (text.strip() in answered)
    assert {score["latent"]: score["n_failed"] for score in found} == {score["latent"]: failed[score["latent"]] for score in found}
    assert all(score["n"] + score["n_failed"] == ACTIVE + SILENT for score in found)
    reasons = {row["latent"]: row["reason"] for row in rows_of("scores", "detection", "failures")}
    assert set(reasons) == set(failed)
    assert all(reason.startswith(f"{failed[latent]} of 13 examples without an answer: ") for latent, reason in reasons.items())
    assert {reason.split(": ", 1)[1].split(" (")[0] for reason in reasons.values()} <= {
        "Error code: 500 - out of memory", "the answer holds no list of zeros and ones", "the answer has 6 entries for 5 examples",
        "the answer has 4 entries for 3 examples",
    }  # fmt: skip


def test_too_many_failures_end_the_stage(here: Path, server: Server) -> None:
    """The real command ends with 2 and one line that says how many failed of what, and leaves no table."""
    server.script = lambda body, attempt: error(500, "out of memory") if int(content_of(body), 16) % 2 else judges(body, attempt)
    process = command(here, WHO, "detection", stage="scores")
    _, said = process.communicate(timeout=120)
    asked, failed = len(server.asked), sum(int(content_of(body), 16) % 2 for body in server.bodies)

    assert process.returncode == 2
    assert said.splitlines()[-1].startswith(
        f"error: detection of {SAE}: {failed} of {asked} requests failed (HTTP 500 {failed}), more than max"
    )
    assert "Traceback" not in said
    assert not list(Path("build/scores").rglob("*.parquet"))


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_rerun_asks_only_what_failed(here: Path, server: Server, share: float) -> None:
    """Whether the stage ended well or not, the next run asks again exactly what failed, and then has every answer."""
    server.script = lambda body, attempt: error(500, "no") if int(content_of(body), 16) % 3 == 0 else judges(body, attempt)
    amend(here, "judges", "reader", max_failed_share=share)
    if share:
        scores.main("detection", SAE, WHO)
    else:
        with pytest.raises(UserError):
            scores.main("detection", SAE, WHO)
    failed = {content_of(body) for body in server.bodies if int(content_of(body), 16) % 3 == 0}
    server.forget()
    server.script = judges
    scores.main("detection", SAE, WHO)

    assert dict(server.asked) == dict.fromkeys(failed, 1)
    assert failed
    assert {row["status"] for row in rows_of("scores", "detection", "judgements")} == {"ok"}


@pytest.mark.parametrize("script", [judges, faulty])
def test_judging_twice_gives_equal_bytes(here: Path, server: Server, script: Any) -> None:
    """Two runs from empty caches leave the same bytes, in whatever order answers came."""
    server.script = script
    amend(here, "judges", "reader", max_failed_share=1.0)
    scores.main("fuzzing", SAE, WHO)
    direct.main("intruder", SAE)
    first = digests(here / "build/scores") | digests(here / "build/direct")
    shutil.rmtree(here / ".interplake")
    scores.main("fuzzing", SAE, WHO)
    direct.main("intruder", SAE)

    assert digests(here / "build/scores") | digests(here / "build/direct") == first


def test_all_explanations_are_judged_on_equal_trials(here: Path, server: Server) -> None:
    """The permuted baseline is asked about the same windows in the same batches, under another explanation."""
    change(here, imported={"baseline": "permuted"})
    explanations.main(WHO, SAE)
    scores.main("fuzzing", SAE, WHO)
    turns = [body["messages"][-1]["content"].split("\n", 1) for body in server.bodies]
    batches = Counter(examples for _, examples in turns)
    found = rows_of("scores", "fuzzing", "scores")

    assert {row["explainer"] for row in found} == {WHO, f"{WHO}-permuted"}
    assert set(batches.values()) == {2}
    assert len({(explanation, examples) for explanation, examples in turns}) == len(turns)


def test_probabilities_are_read(here: Path, server: Server) -> None:
    """With `logprobs` five alternatives are asked for, each row has the probability of its own answer, and the score an area."""
    scores.main("sure", SAE, WHO)
    rows, known = rows_of("scores", "sure", "judgements"), windows_by_number()

    assert {(body["logprobs"], body["top_logprobs"]) for body in server.bodies} == {(True, 5)}
    for row in rows:
        number = draw(known[row["latent"], row["example"]][0])
        p = 0.5 + (number % 1000) / 2001
        assert row["probability"] == pytest.approx(p if number % 2 else 1 - p, abs=1e-6)
        assert row["answer"] == bool(number % 2)
    assert all(0 <= score["auroc"] <= 1 for score in rows_of("scores", "sure", "scores"))


def test_a_server_without_probabilities_is_told(here: Path, server: Server) -> None:
    """Where log-probabilities are asked for and none come, no answer counts, and the reason says so."""
    server.script = lambda body, attempt: judges(body | {"logprobs": False}, attempt)
    amend(here, "judges", "sure", max_failed_share=1.0)
    scores.main("sure", SAE, WHO)

    assert {row["status"] for row in rows_of("scores", "sure", "judgements")} == {"no log-probabilities"}
    assert {(row["status"], row["score"]) for row in rows_of("scores", "sure", "scores")} == {("no answers", None)}
    assert all("gives no log-probabilities" in row["reason"] for row in rows_of("scores", "sure", "failures"))


def test_the_lexical_judge_needs_no_server(here: Path) -> None:
    """Without any engine the lexical judge scores what it can read: of these explanations nothing, which is a status."""
    scores.main("lexical", SAE, WHO)

    assert {(row["status"], row["model"]) for row in rows_of("scores", "lexical", "scores")} == {("no answers", None)}
    assert not Path(f"build/scores/lexical/{SAE}/{WHO}/usage.json").exists()


@pytest.mark.parametrize(("scorer", "shown"), [("intruder", 4), ("internal", 3)])
def test_intruders_are_looked_for(here: Path, server: Server, scorer: str, shown: int) -> None:
    """Each trial is one prompt with as many marked windows; its row tells which slot was named, and whether rightly."""
    direct.main(scorer, SAE)
    rows, found = rows_of("direct", scorer, "judgements"), rows_of("direct", scorer, "scores")

    assert len(found) == LATENTS
    assert {len(examples_of(body)) for body in server.bodies} == {shown}
    assert all("<<" in text for body in server.bodies for text in examples_of(body))
    assert len(rows) == 5 * LATENTS
    assert all(1 <= row["value"] <= shown and row["truth"] for row in rows)
    assert {(row["explainer"], row["chance"], row["unit"], row["n"], row["n_failed"]) for row in found} == {
        ("none", 1 / shown, "accuracy", 5, 0)
    }
    for score in found:
        own = [row["answer"] for row in rows if row["latent"] == score["latent"]]
        assert score["score"] == pytest.approx(np.mean(own))
    assert usage_of("direct", SAE, scorer)["answers"] == len(server.asked)


def test_failed_trials_are_no_wrong_answers(here: Path, server: Server) -> None:
    """A trial whose answer fails has its status, and neither answer nor value."""
    server.script = faulty
    amend(here, "judges", "reader", max_failed_share=1.0)
    direct.main("intruder", SAE)
    rows = rows_of("direct", "intruder", "judgements")

    assert {row["status"] for row in rows} == {"ok", "HTTP 500", "no response"}
    assert all((row["answer"] is None) == (row["value"] is None) == (row["status"] != "ok") for row in rows)
    assert sum(score["n_failed"] for score in rows_of("direct", "intruder", "scores")) == sum(row["status"] != "ok" for row in rows)


def test_intruders_are_counted_without_a_server(here: Path) -> None:
    """The lexical finder needs no engine; every trial has an answer."""
    direct.main("counted", SAE)

    assert {(row["n"], row["n_failed"], row["status"], row["judge"]) for row in rows_of("direct", "counted", "scores")} == {
        (5, 0, "ok", "lexical")
    }


def test_too_few_windows_are_no_trial(here: Path, server: Server) -> None:
    """Where a trial needs more windows than a latent has, nothing is asked and every trial has that status."""
    direct.main("crowded", SAE)

    assert {row["status"] for row in rows_of("direct", "crowded", "judgements")} == {"too few windows"}
    assert {(row["status"], row["n_failed"]) for row in rows_of("direct", "crowded", "scores")} == {("no answers", 2)}
    assert not server.bodies


def test_a_judge_that_is_gone_is_told_first(here: Path) -> None:
    """A server that nobody reaches ends the stage with one line, before anything is asked."""
    with serving(judges) as gone:
        change(here, {"base_url": gone.url})

    with pytest.raises(UserError, match="cannot be reached; start the server, or correct `base_url`"):
        scores.main("detection", SAE, WHO)
    assert not list(Path("build/scores").rglob("*.parquet"))
