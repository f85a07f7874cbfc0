"""Stage `explanations` in this process, its language model a scripted server."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from explained import KINDS, SAE, build, change, command, explains, latents_with_contexts, table, text_of, usage_of
from llm_server import MODEL, Body, Reply, Script, Server, chat, content_of, error, serving
from project import digests, write_params

from builders.engines.cache import Cache
from builders.engines.requests import Answer
from builders.errors import UserError
from builders.explainers import chat as chat_explainer
from pipelines.opened.engines import prune_cache
from pipelines.stages import explanations, interventions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared import Once

WIDTH = 48


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to the contexts and interventions."""

    def fill(folder: Path) -> None:
        build(folder, tiny_checkpoint, WIDTH, 4)
        with chdir(folder):
            interventions.main(SAE)

    return once("explained", fill)


@pytest.fixture
def server(here: Path) -> Iterator[Server]:
    """Return a server that explains everything, which the project's engine asks."""
    with serving(explains) as serving_:
        change(here, {"base_url": serving_.url})
        yield serving_


def faulty(body: Body, _: int) -> Reply:
    """Answer two questions of seven with an explanation, and each other in a way of its own."""
    told = f"[EXPLANATION]: {text_of(body)}"
    replies = [
        chat(told),
        chat(f"1. …\n{told}"),
        error(400, "This model's maximum context length is 64 tokens. However, you requested 99."),
        chat(None, refusal="I must not."),
        chat("I cannot say."),
        chat(told, finish="length"),
        error(500, "out of memory"),
    ]
    return replies[number_of(body)]


def number_of(body: Body) -> int:
    """Return which of the seven replies a question gets."""
    return int(content_of(body), 16) % 7


STATUSES = ["ok", "ok", "too long", "refused", "no explanation", "cut off", "HTTP 500"]


def test_every_latent_ends_as_ok_or_as_a_failure(here: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Each latent with contexts has one row; those without a text have a failure row with the reason; a line sums up."""
    server.script = faulty
    change(here, default={"max_failed_share": 1.0})
    explanations.main("default", SAE)

    rows, failures = table(here, "default"), table(here, "default", "failures")
    expected = Counter(STATUSES[number_of(body)] for body in server.bodies)
    failed = {row["latent"]: row["status"] for row in rows if row["status"] != "ok"}
    lines = capsys.readouterr().out.splitlines()

    assert set(expected) == set(STATUSES)
    assert [row["latent"] for row in rows] == latents_with_contexts(here)
    assert Counter(row["status"] for row in rows) == expected
    assert {row["text"] for row in rows if row["status"] == "ok"} == {text_of(body) for body in server.bodies if number_of(body) < 2}
    assert all((row["text"] is None) == (row["status"] != "ok") for row in rows)
    assert [(row["latent"], row["stage"], row["item"]) for row in failures] == [(latent, "explanations", "default") for latent in failed]
    assert all(len(row["reason"]) > len(failed[row["latent"]]) for row in failures)
    (line,) = [line for line in lines if line.startswith(f"explanations of {SAE} by default: ")]
    assert f"{len(failed)} of {len(rows)} latents failed (" in line
    assert all(f"{status} {number}" in line for status, number in expected.items() if status != "ok")


def test_what_was_answered_is_kept_beside_the_text(here: Path, server: Server) -> None:
    """A row tells the whole answer, who gave it, to which prompt and request, and what was read and written."""
    explanations.main("chain-of-thought", SAE)
    rows = table(here, "chain-of-thought")

    assert {row["response"] for row in rows} == {f"Let me see.\n[EXPLANATION]: {text_of(body)}" for body in server.bodies}
    assert {(row["engine"], row["model"], row["prompt_sha256"]) for row in rows} == {
        ("openai", MODEL, chat_explainer.prompt_sha256("chain-of-thought"))
    }
    assert len({row["request_sha256"] for row in rows}) == len(rows)
    assert {(row["prompt_tokens"], row["cached_tokens"], row["output_tokens"]) for row in rows} == {(7, 2, 3)}
    assert all(row["source_latent"] == row["latent"] for row in rows)


def test_too_many_failures_end_the_stage(here: Path, server: Server) -> None:
    """More failed requests than allowed are one line with their kinds, the first reason, and what to do; nothing is built."""
    server.script = faulty
    with pytest.raises(UserError) as caught:
        explanations.main("default", SAE)

    said = str(caught.value)
    assert said.startswith(f"explanations of {SAE} by default: ")
    assert "latents failed (" in said
    assert said.endswith("; mend the cause and run it again: answers are kept, only what failed is asked")
    assert "\n" not in said
    assert not list(Path("build/explanations").rglob("*.parquet"))


def test_the_command_tells_too_many_failures(here: Path, server: Server) -> None:
    """The real command ends with 2 and the one line."""
    server.script = faulty
    process = command(here, "default")
    _, said = process.communicate(timeout=120)

    assert process.returncode == 2, said
    assert said.count("\n") == 1
    assert said.startswith(f"error: explanations of {SAE} by default: ")


@pytest.mark.parametrize(("share", "raises"), [(0.5, False), (0.49, True)])
def test_the_share_is_a_limit_not_a_target(here: Path, server: Server, share: float, raises: bool) -> None:
    """Exactly the share that is allowed may fail."""
    change(here, default={"max_failed_share": share, "latents": 10})
    seen: list[str] = []

    def half(body: Body, attempt: int) -> Reply:
        seen.append(content_of(body))
        return error(400, "no") if len(seen) % 2 else explains(body, attempt)

    server.script = half
    change(here, {"concurrency": 1})
    if raises:
        with pytest.raises(UserError, match="5 of 10 latents failed"):
            explanations.main("default", SAE)
    else:
        explanations.main("default", SAE)

    assert len(seen) == 10


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_rerun_asks_only_what_failed(here: Path, server: Server, share: float) -> None:
    """Whether the stage ended well or not, the next run asks again exactly what failed, and a third nothing."""
    server.script = lambda body, attempt: explains(body, attempt) if number_of(body) < 4 else error(500, "out of memory")
    change(here, default={"max_failed_share": share})
    if share:
        explanations.main("default", SAE)
    else:
        with pytest.raises(UserError):
            explanations.main("default", SAE)
    failed = {content_of(body) for body in server.bodies if number_of(body) >= 4}
    server.forget()
    server.script = explains
    explanations.main("default", SAE)
    again = dict(server.asked)
    server.forget()
    explanations.main("default", SAE)

    assert again == dict.fromkeys(failed, 1)
    assert failed
    assert not server.asked
    assert {row["status"] for row in table(here, "default")} == {"ok"}


def test_an_answer_that_explains_nothing_is_paid_once(here: Path, server: Server) -> None:
    """An answer in which no explanation can be found is an answer: it is kept, shown in the row, counted, and not asked for again."""
    server.script = lambda *_: chat("I cannot say.")
    change(here, default={"max_failed_share": 1.0})
    explanations.main("default", SAE)
    server.forget()
    explanations.main("default", SAE)
    rows = table(here, "default")

    assert not server.asked
    assert {(row["status"], row["response"]) for row in rows} == {("no explanation", "I cannot say.")}
    assert usage_of(here, "default")["answers"] == len(rows)


# What the model does with a question, by what its windows happen to be; and what comes of it.
HABITS = ("own words", "copies once", "copies twice", "means it")
STATUS_OF = dict(zip(HABITS, ("ok", "ok", "copied", "ok"), strict=True))
COPYING = {"default": 1, "chain-of-thought": 1, "single-token": 1, "intervention": 1, "no-activations": 3}  # kinds, and their samples


def habit_of(body: Body) -> str:
    """Return what the model does when it is shown these windows, whatever worked examples come before."""
    return HABITS[int(hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest(), 16) % 4]


def worked(body: Body) -> list[str]:
    """Return the worked answers that a question shows."""
    return [message["content"] for message in body["messages"] if message["role"] == "assistant"]


def parrot(meant: str) -> Script:
    """Return a script that copies worked examples as the habit is, and where it means it says *meant*, shown or not."""

    def script(body: Body, attempt: int) -> Reply:
        habit, examples = habit_of(body), worked(body)
        if habit == "means it":
            return chat(f"[EXPLANATION]: {meant}")
        copies = habit == "copies twice" or (habit == "copies once" and len(examples) == 3)
        return chat(examples[0]) if copies else explains(body, attempt)

    return script


@pytest.mark.parametrize(("kind", "samples"), COPYING.items())
def test_copies_of_worked_examples_are_asked_once_more(here: Path, server: Server, kind: str, samples: int) -> None:
    """The last answer stands, with its request and tokens; both are paid for, and a rerun asks and changes nothing."""
    shot = chat_explainer.PROMPTS.shots("effects.yaml" if kind == "intervention" else "shots.yaml")[-1]
    meant = shot["words" if kind == "single-token" else "explanation"]
    server.script = parrot(meant)
    change(here, **{kind.replace("-", "_"): {"max_failed_share": 1.0, "samples": samples, "temperature": 0.7 * (samples > 1)}})
    explanations.main(kind, SAE)
    rows, failures, bodies, digest = table(here, kind), table(here, kind, "failures"), list(server.bodies), digests(here / "build")
    server.forget()
    explanations.main(kind, SAE)
    last = [body for body in bodies if len(worked(body)) == 2 or habit_of(body) == "own words"]
    paid = (here / f"build/explanations/{kind}/{SAE}/answers.txt").read_text().split()

    assert set(map(habit_of, bodies)) == set(HABITS)
    assert len(rows) == len(last) == samples * len(latents_with_contexts(here))
    assert Counter(row["status"] for row in rows) == Counter(STATUS_OF[habit_of(body)] for body in last)
    assert sorted(row["response"] for row in rows) == sorted(content(server.script(body, 1)) for body in last)
    assert [row["text"] for row in rows].count(meant) == [habit_of(body) for body in last].count("means it")
    assert len(failures) == sum(row["status"] == "copied" for row in rows)
    assert all(row["reason"].startswith("two answers in turn repeat worked examples of the prompt, the last one ") for row in failures)
    assert {row["prompt_tokens"] for row in rows} == {7}
    assert {row["request_sha256"] for row in rows} < set(paid)
    assert usage_of(here, kind)["answers"] == len(paid) == len(bodies) == len(set(map(content_of, bodies)))
    assert (server.bodies, digests(here / "build")) == ([], digest)


def content(reply: Reply) -> str:
    """Return the text of a chat completion."""
    text: str = reply.body["choices"][0]["message"]["content"]
    return text


def test_a_second_request_that_failed_is_the_only_one_made_again(here: Path, server: Server) -> None:
    """Where the server breaks at what is asked once more, those latents are failures, and the next run asks exactly that."""
    server.script = lambda body, _: chat(worked(body)[1]) if len(worked(body)) == 3 else error(500, "out of memory")
    change(here, default={"max_failed_share": 1.0})
    explanations.main("default", SAE)
    first, again = table(here, "default"), {content_of(body) for body in server.bodies if len(worked(body)) == 2}
    server.forget()
    server.script = explains
    explanations.main("default", SAE)

    assert {(row["status"], row["response"]) for row in first} == {("HTTP 500", None)}
    assert set(server.asked) == again
    assert len(again) == len(first)
    assert {row["status"] for row in table(here, "default")} == {"ok"}


def test_usage_is_told_and_paid(here: Path, server: Server) -> None:
    """usage.json adds up every answer, at the engine's prices, the same when all came from the cache."""
    change(here, {"price": {"prompt": 1.0, "cached": 0.5, "output": 2.0}})
    explanations.main("default", SAE)
    first = usage_of(here, "default")
    explanations.main("default", SAE)
    count = len(latents_with_contexts(here))

    assert first == {
        "answers": count, "prompt_tokens": 7 * count, "cached_tokens": 2 * count, "output_tokens": 3 * count,
        "dollars": pytest.approx(count * (5 * 1.0 + 2 * 0.5 + 3 * 2.0) / 1e6, abs=1e-6),
    }  # fmt: skip
    assert usage_of(here, "default") == first


def test_pruning_keeps_what_the_rows_use(here: Path, server: Server) -> None:
    """The addresses beside the rows are those of the answers: pruning drops every other answer, and a rerun asks nothing."""
    explanations.main("default", SAE)
    cache = Cache(here / ".interplake/answers.sqlite")
    cache.put("0" * 64, "openai", MODEL, Answer("of a prompt that has changed since"))
    cache.close()
    dropped = prune_cache()
    server.forget()
    explanations.main("default", SAE)
    used = (here / f"build/explanations/default/{SAE}/answers.txt").read_text().splitlines()

    assert dropped == 1
    assert not server.asked
    assert used == sorted(row["request_sha256"] for row in table(here, "default"))


def test_a_permuted_text_is_never_ones_own(here: Path, server: Server) -> None:
    """In the baseline every explained latent has the text of another, each text is given once, and its answer stays with it."""
    change(here, default={"baseline": "permuted"})
    explanations.main("default", SAE)
    rows = table(here, "default")
    own = {row["latent"]: row for row in rows if row["explainer"] == "default"}
    other = {row["latent"]: row for row in rows if row["explainer"] == "default-permuted"}

    assert set(own) == set(other)
    assert all(row["source_latent"] != latent and row["text"] != own[latent]["text"] for latent, row in other.items())
    assert all(row["text"] == own[row["source_latent"]]["text"] for row in other.values())
    assert {row["source_latent"] for row in other.values()} == set(own)


def test_a_sample_of_latents_is_the_same_each_time(here: Path, server: Server) -> None:
    """`latents` draws that many by address: the same on every run and for every explainer, and a smaller draw lies in a larger."""
    drawn: dict[tuple[str, int], list[int]] = {}
    for explainer, most in (("default", 12), ("logits", 12), ("default", 5), ("default", 1000)):
        change(here, **{explainer.replace("-", "_"): {"latents": most}})
        explanations.main(explainer, SAE)
        drawn[explainer, most] = [row["latent"] for row in table(here, explainer)]

    assert drawn["default", 12] == drawn["logits", 12] == sorted(drawn["default", 12])
    assert len(drawn["default", 12]) == 12
    assert set(drawn["default", 5]) < set(drawn["default", 12])
    assert drawn["default", 12] != drawn["default", 1000][:12]
    assert drawn["default", 1000] == latents_with_contexts(here)


@pytest.mark.parametrize("explainer", KINDS)
def test_only_the_dictionaries_named_are_explained(here: Path, server: Server, explainer: str) -> None:
    """`saes` that names other dictionaries only leaves an empty table, and nothing is asked."""
    params = yaml.safe_load((here / "params.yaml").read_text())
    params["saes"]["other"] = params["saes"][SAE]
    params["explainers"][explainer]["saes"] = ["other"]
    write_params(here, params)
    explanations.main(explainer, SAE)

    assert table(here, explainer) == []
    assert server.bodies == []


SHOWN: dict[str, tuple[str, bool]] = {
    "default": ("Activations: (", True),
    "no-activations": ("Activations: (", False),
    "chain-of-thought": ("Activations: (", True),
    "logits": ("Made more likely: ", True),
    "contrastive": ("Excerpts in which it is silent:", True),
    "single-token": ("Activations: (", True),
    "intervention": ("More likely: ", True),
}


@pytest.mark.parametrize("kind", [*KINDS, "intervention"])
def test_every_kind_runs(here: Path, server: Server, kind: str) -> None:
    """Each kind of explainer asks about every latent once, shows what it is there to show, and explains all."""
    explanations.main(kind, SAE)
    rows = table(here, kind)
    piece, there = SHOWN[kind]
    last = [body["messages"][-1]["content"] for body in server.bodies]
    first = {json.dumps(body["messages"][:-1]) for body in server.bodies}
    marks = {tuple(re.findall(r"between (\S+) and (\S+?)[ .]", body["messages"][0]["content"])) for body in server.bodies}

    assert [(row["latent"], row["status"]) for row in rows] == [(latent, "ok") for latent in latents_with_contexts(here)]
    assert set(server.asked.values()) == {1}
    assert len(server.asked) == len(rows)
    assert {piece in text for text in last} == {there}
    assert len(first) == len(marks)  # the prefix that engines need to read once, but where a window holds the usual marks itself
    assert [message["role"] for message in server.bodies[0]["messages"]][:2] == ["system", "user"]
    assert table(here, kind, "failures") == []


def test_somebodys_explanations_are_imported(here: Path) -> None:
    """A file's texts become rows without any engine; latents that it passes over are failures."""
    latents = latents_with_contexts(here)
    Path("theirs.csv").write_text("latent,explanation\n" + "".join(f"{latent},about {latent}\n" for latent in latents[1:]))
    explanations.main("imported", SAE)
    rows = [row for row in table(here, "imported") if row["explainer"] == "imported"]

    assert [(row["latent"], row["text"]) for row in rows] == [(latents[0], None), *((latent, f"about {latent}") for latent in latents[1:])]
    assert [(row["latent"], row["reason"]) for row in table(here, "imported", "failures")] == [(latents[0], "not in the file")]
    assert {row["engine"] for row in rows} == {"import"}


@pytest.mark.parametrize("beyond", [[WIDTH], [-1], [WIDTH + 7, WIDTH, 0]])
def test_an_import_of_another_sae(here: Path, beyond: list[int]) -> None:
    """A file that explains latents which the SAE does not have is one line that lists them."""
    Path("theirs.csv").write_text("latent,explanation\n" + "".join(f"{latent},x\n" for latent in beyond))
    named = ", ".join(str(latent) for latent in sorted(beyond, key=str) if latent)

    with pytest.raises(UserError) as caught:
        explanations.main("imported", SAE)

    told = f"theirs.csv: explains latents that {SAE} does not have (its latents are 0 to {WIDTH - 1}): "
    assert str(caught.value) == told + named


def test_the_key_is_in_no_file(here: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stage whose server even repeats the key, no file of the project holds it."""
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("OUR_TEST_KEY", key)

    def tells(body: Body, attempt: int) -> Reply:
        return error(401, f"Incorrect API key provided: {key}.") if number_of(body) == 2 else explains(body, attempt)

    server.script = tells
    change(here, {"key_variable": "OUR_TEST_KEY"}, default={"max_failed_share": 1.0})
    explanations.main("default", SAE)
    files = [path for path in here.rglob("*") if path.is_file()]
    holding = [path.relative_to(here).as_posix() for path in files if key.encode() in path.read_bytes()]

    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {key}"}
    assert here / ".interplake/answers.sqlite" in files
    assert holding == []


@pytest.mark.parametrize("script", [explains, faulty])
def test_equal_runs_give_equal_bytes(here: Path, server: Server, script: Script) -> None:
    """Two runs from empty caches leave the same bytes, in whatever order answers came."""
    server.script = script
    change(here, default={"max_failed_share": 1.0, "baseline": "permuted"})
    explanations.main("default", SAE)
    first = digests(here / "build/explanations")
    shutil.rmtree(here / ".interplake")
    change(here, {"concurrency": 4})
    explanations.main("default", SAE)

    assert digests(here / "build/explanations") == first


def test_an_engine_that_is_gone_is_told_first(here: Path) -> None:
    """A server that nobody reaches ends the stage with one line, before any latent is asked about."""
    with serving(explains) as gone:
        change(here, {"base_url": gone.url})

    with pytest.raises(UserError, match="cannot be reached; start the server, or correct `base_url`"):
        explanations.main("default", SAE)
    assert not list(Path("build/explanations").rglob("*.parquet"))
