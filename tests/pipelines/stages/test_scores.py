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
from forms import schema_of, windows_in, written
from llm_server import MODEL, Body, Reply, Server, chat, content_of, error, serving, token
from project import digests, write_params

from builders.contexts.pool import POOL
from builders.engines.schemas import named, one_of, several
from builders.errors import UserError
from builders.lake.shards import Shelf
from builders.scorers.forms import FORMS
from builders.scorers.judging import PROMPTS
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.stage import folder
from pipelines.parts.windows import windows
from pipelines.stages import direct, explanations, scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared import Once

WHO = "imported"
ACTIVE, SILENT = 6, 7  # test windows of a latent: three prompts of five, five and three
LATENTS = 10
JUDGES: dict[str, Any] = {
    "reader": {"kind": "model", "engine": "server", "form": "free"},
    "sure": {"kind": "model", "engine": "server", "form": "free", "logprobs": True},
    "listing": {"kind": "model", "engine": "server", "logprobs": True},
    "alone": {"kind": "model", "engine": "server", "form": "single", "logprobs": True},
    "lexical": {"kind": "lexical"},
}
SCORERS: dict[str, Any] = {
    "detection": {"kind": "detection", "judge": "reader", "latents": LATENTS},
    "fuzzing": {"kind": "fuzzing", "judge": "reader", "latents": LATENTS},
    "neighbours": {"kind": "fuzzing", "judge": "reader", "negatives": "decoder", "latents": LATENTS},
    "misplaced": {"kind": "fuzzing", "judge": "reader", "negatives": "active", "latents": LATENTS},
    "decoys": {"kind": "fuzzing", "judge": "reader", "negatives": "decoy", "latents": LATENTS},
    "pool": {"kind": "detection", "judge": "reader", "negatives": "pool", "latents": LATENTS},
    "sure": {"kind": "detection", "judge": "sure", "latents": LATENTS},
    "listed": {"kind": "detection", "judge": "listing", "latents": LATENTS},
    "listed-fuzzing": {"kind": "fuzzing", "judge": "listing", "latents": LATENTS},
    "single": {"kind": "detection", "judge": "alone", "latents": LATENTS},
    "single-fuzzing": {"kind": "fuzzing", "judge": "alone", "latents": LATENTS},
    "lexical": {"kind": "detection", "judge": "lexical", "latents": LATENTS},
}
FORM = {"detection": "free", "sure": "free", "listed": "list", "single": "single"}  # of scorers that are asked without marks
DIRECT: dict[str, Any] = {
    "intruder": {"kind": "intruder", "judge": "reader", "shown": 4, "trials": 5, "latents": LATENTS},
    "internal": {"kind": "intruder", "judge": "reader", "shown": 3, "trials": 5, "negatives": "internal", "latents": LATENTS},
    "numbered": {"kind": "intruder", "judge": "listing", "shown": 4, "trials": 5, "latents": LATENTS},
    "counted": {"kind": "intruder", "judge": "lexical", "shown": 4, "trials": 5, "latents": LATENTS},
    "crowded": {"kind": "intruder", "judge": "reader", "shown": 9, "trials": 2, "latents": LATENTS},
}


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to somebody's explanations, one of which is missing."""
    return once("scored", lambda folder: fill(folder, tiny_checkpoint))


def fill(folder: Path, checkpoint: Path) -> None:
    """Build the project in *folder*."""
    build(folder, checkpoint, 48, 4, test=ACTIVE, test_random=SILENT, negatives={"decoder": 2, "decoy": 2, "pool": 40})
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
    turn, quoted = body["messages"][-1]["content"], schema_of(body) is not None
    return [text.strip() for text in windows_in(turn, quoted=quoted)]


def first_asked(server: Server) -> list[Body]:
    """Return the questions that show all worked examples, so not those that are put once more without one whose list was answered."""
    most = max(len(body["messages"]) for body in server.bodies)
    return [body for body in server.bodies if len(body["messages"]) == most]


def draw(text: str) -> int:
    """Return a number that belongs to a text, whatever stands around it."""
    return int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:4], "big")


def judges(body: Body, _: int) -> Reply:
    """Answer by what each example's text happens to be, in the form and with the log-probabilities that are asked for."""
    numbers, schema = [draw(text) for text in examples_of(body)], schema_of(body)
    if "intruder" in body["messages"][0]["content"]:
        slot = 1 + int(np.argmax(numbers))
        return chat(f"Well.\n[RESPONSE]: {slot}" if schema is None else json.dumps({"intruder": slot}))
    told = [number % 2 for number in numbers]
    text = written(schema, told)
    if not body.get("logprobs"):
        return chat(text)
    before, *between, after = re.split(r"[01]", text)
    tokens = [token(before, -0.1)] if before else []
    for yes, number, following in zip(told, numbers, [*between, after], strict=True):
        p = 0.5 + (number % 1000) / 2001
        tokens.append(token(str(yes), math.log(p), (str(1 - yes), math.log(1 - p))))
        tokens += [token(following, -0.1)] if following else []
    return chat(text, logprobs=tokens)


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


@pytest.mark.parametrize("scorer", FORM)
def test_every_window_gets_its_own_answer(here: Path, server: Server, scorer: str) -> None:
    """Each test window of each explained latent has one row with its truth and what was answered to its text, whatever its batch."""
    scores.main(scorer, SAE, WHO)
    rows, known = rows_of("scores", scorer, "judgements"), windows_by_number()
    latents = {row["latent"] for row in rows}

    assert {(row["latent"], row["example"]) for row in rows} == {key for key in known if key[0] in latents}
    assert len(rows) == len(latents) * (ACTIVE + SILENT)
    for row in rows:
        text, truth = known[row["latent"], row["example"]]
        assert (row["truth"], row["answer"], row["status"]) == (truth, bool(draw(text) % 2), "ok")
    judge = SCORERS[scorer]["judge"]
    assert {(row["explainer"], row["scorer"], row["negatives"], row["judge"]) for row in rows} == {(WHO, scorer, "random", judge)}
    assert {row["probability"] is None for row in rows} == {scorer == "detection"}


DIGIT = one_of([0, 1])


SCHEMAS: dict[str, Callable[[int], Any]] = {
    "listed": lambda n: named(answers=several(DIGIT, n)),
    "listed-fuzzing": lambda n: named(answers=several(DIGIT, n)),
    "single": lambda n: DIGIT if n == 1 else None,
    "single-fuzzing": lambda n: DIGIT if n == 1 else None,
    "numbered": lambda n: named(intruder=one_of(range(1, n + 1))),
}


@pytest.mark.parametrize("scorer", SCHEMAS)
def test_the_form_of_answers_reaches_the_server(here: Path, server: Server, scorer: str) -> None:
    """Every question tells the server the JSON schema of an answer about the windows that it shows; no window is lost."""
    stage = run_by_id(scorer)
    rows, found = rows_of(stage, scorer, "judgements"), rows_of(stage, scorer, "scores")

    assert all(schema_of(body) == SCHEMAS[scorer](len(examples_of(body))) for body in server.bodies)
    assert {row["status"] for row in rows} <= {"ok", "no marks fit"}
    assert {row["status"] for row in found} == {"ok"}
    assert server.asked.total() == len(server.asked), "nothing is asked twice"


def run_by_id(scorer: str) -> str:
    """Run a scorer of either stage, and return which."""
    if scorer in DIRECT:
        direct.main(scorer, SAE)
        return "direct"
    scores.main(scorer, SAE, WHO)
    return "scores"


@pytest.mark.parametrize("scorer", ["listed", "single"])
@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (chat("Sure! The first one fits."), "its answer is 'Sure! The first one fits.'"),
        (chat("[1, 0, 0, 1, 0]"), "its answer is '[1, 0, 0, 1, 0]'"),
        (error(400, "schema must be of type object"), "schema must be of type object"),
    ],
)
def test_a_server_without_forms_is_told_first(here: Path, server: Server, scorer: str, reply: Reply, why: str) -> None:
    """Where the first answer does not fit the schema, or the server does not take it, the stage ends after one question with what to do."""
    judge = SCORERS[scorer]["judge"]
    server.script = lambda *_: reply
    amend(here, "judges", judge, logprobs=False)

    with pytest.raises(UserError) as told:
        scores.main(scorer, SAE, WHO)

    said = str(told.value)
    assert said.startswith(f"judges.{judge}.form: {MODEL} (openai engine) keeps to no JSON schema: ")
    assert why in said
    assert said.endswith("or set the judge's `form` to `free`")
    assert len(server.bodies) == 1
    assert not list(Path("build/scores").rglob("*.parquet"))


@pytest.mark.parametrize("scorer", ["detection", "listed"])
def test_what_cannot_be_read_is_asked_again_in_parts(here: Path, server: Server, scorer: str) -> None:
    """A judge that answers readably about two windows at most loses none; each answer is paid for once, and a rerun asks nothing.

    Five windows become three and two, three become two and one, and three of a half single windows. The first question of all is
    answered, since it tries whether the server keeps to a schema.
    """
    begun: list[Any] = []

    def reads_few(body: Body, attempt: int) -> Reply:
        turn = body["messages"][-1]
        begun.append(turn)
        return judges(body, attempt) if len(examples_of(body)) <= 2 or turn == begun[0] else chat("I cannot say.")

    server.script = reads_few
    amend(here, "judges", SCORERS[scorer]["judge"], logprobs=False)
    scores.main(scorer, SAE, WHO)
    rows, found, known = rows_of("scores", scorer, "judgements"), rows_of("scores", scorer, "scores"), windows_by_number()
    sizes, count, first = Counter(len(examples_of(body)) for body in server.bodies), len(server.bodies), digests(here / "build/scores")
    server.forget()
    scores.main(scorer, SAE, WHO)

    assert {(row["status"], row["answer"] == bool(draw(known[row["latent"], row["example"]][0]) % 2)) for row in rows} == {("ok", True)}
    assert {row["n_failed"] for row in found} == {0}
    n = len(found)
    assert sizes == {5: 2 * n, 3: n + 2 * n - 1, 2: 3 * n - 1, 1: n + 3 * (2 * n - 1)}
    assert sum(row["prompt_tokens"] for row in found) == 7 * count
    assert usage_of("scores", SAE, WHO, scorer)["answers"] == count
    assert (server.bodies, digests(here / "build/scores")) == ([], first)


@pytest.mark.parametrize("scorer", ["detection", "listed"])
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_copied_list_is_asked_for_once_more(here: Path, server: Server, scorer: str, stubborn: bool) -> None:
    """A judge that repeats a worked example's list is asked without it; if it repeats another one, its windows are failures.

    Both answers are paid for once, and a rerun asks nothing.
    """

    def parrot(body: Body, attempt: int) -> Reply:
        shown = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        if len(examples_of(body)) == 5 and (stubborn or len(shown) == 3):
            return chat(shown[0 if len(shown) == 3 else -1])
        return judges(body, attempt)

    server.script = parrot
    amend(here, "judges", SCORERS[scorer]["judge"], logprobs=False)
    scores.main(scorer, SAE, WHO)
    rows, found, known = rows_of("scores", scorer, "judgements"), rows_of("scores", scorer, "scores"), windows_by_number()
    n, count, first = len(found), len(server.bodies), digests(here / "build/scores")
    right = [row["answer"] == bool(draw(known[row["latent"], row["example"]][0]) % 2) for row in rows if row["status"] == "ok"]
    server.forget()
    scores.main(scorer, SAE, WHO)

    assert count == 3 * n + 2 * n
    assert all(right)
    assert Counter(row["status"] for row in rows) == ({"ok": 3 * n, "copied": 10 * n} if stubborn else {"ok": 13 * n})
    assert {row["n_failed"] for row in found} == {10 if stubborn else 0}
    reasons = [row["reason"] for row in rows_of("scores", scorer, "failures")]
    assert all(text.startswith("10 of 13 examples without an answer: two answers in turn repeat the lists") for text in reasons)
    assert len(reasons) == n * stubborn
    assert sum(row["prompt_tokens"] for row in found) == 7 * count
    assert usage_of("scores", SAE, WHO, scorer)["answers"] == count
    assert (server.bodies, digests(here / "build/scores")) == ([], first)


def test_an_answer_that_stays_unreadable_is_bounded(here: Path, server: Server) -> None:
    """One window about which nothing can be read leaves the other twelve; the score has the bounds of that window wrong and right."""
    contexts = windows_by_number()
    latent = latents_with_contexts(here)[1]
    mute = next(text for (owner, _), (text, truth) in contexts.items() if owner == latent and truth).strip()
    server.script = lambda body, attempt: chat("Hm.") if mute in examples_of(body) else judges(body, attempt)
    amend(here, "scorers", "detection", latents=10_000)
    scores.main("detection", SAE, WHO)
    found = {row["latent"]: row for row in rows_of("scores", "detection", "scores")}
    own = [row for row in rows_of("scores", "detection", "judgements") if row["latent"] == latent]

    hits = sum(row["answer"] for row in own if row["truth"] and row["status"] == "ok")
    kept = sum(not row["answer"] for row in own if not row["truth"]) / SILENT
    assert [row["status"] for row in own].count("no list") == found[latent]["n_failed"] == 1
    assert found[latent]["score"] == pytest.approx((hits / (ACTIVE - 1) + kept) / 2)
    assert found[latent]["score_low"] == pytest.approx((hits / ACTIVE + kept) / 2)
    assert found[latent]["score_high"] == pytest.approx(((hits + 1) / ACTIVE + kept) / 2)
    assert all(row["score_low"] == row["score"] == row["score_high"] for row in found.values() if not row["n_failed"])


def test_a_prompt_that_is_too_long_is_asked_in_parts(here: Path, server: Server) -> None:
    """Where the server reads three windows at most, requests of more fail; none counts, since all windows are answered in parts."""
    long = error(400, "This model's maximum context length is 300 tokens")
    server.script = lambda body, attempt: judges(body, attempt) if len(examples_of(body)) <= 3 else long
    amend(here, "judges", "reader", max_failed_share=0.0)
    scores.main("detection", SAE, WHO)

    assert {row["status"] for row in rows_of("scores", "detection", "judgements")} == {"ok"}
    assert rows_of("scores", "detection", "failures") == []


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
        assert (score["model"], score["prompt_sha256"], score["auroc"]) == (MODEL, PROMPTS.sha256(FORMS["free"].files), None)
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


@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_some_windows_are_judged(here: Path, server: Server, scorer: str) -> None:
    """With `windows` so many activating windows of a latent are judged, from the strongest to the weakest, and as many silent ones."""
    amend(here, "scorers", scorer, windows=3)
    scores.main(scorer, SAE, WHO)
    rows, known = rows_of("scores", scorer, "judgements"), windows_by_number()
    latents = {row["latent"] for row in rows}
    active = {latent: sorted(number for own, number in known if own == latent and known[own, number][1]) for latent in latents}
    judged = {latent: [row["example"] for row in rows if row["latent"] == latent and row["truth"]] for latent in latents}

    assert len(rows) == 6 * len(latents)
    assert all((own[0], own[-1], len(own)) == (active[latent][0], active[latent][-1], 3) for latent, own in judged.items())


def test_only_the_dictionaries_named_are_scored(here: Path, server: Server) -> None:
    """`saes` that names other dictionaries only leaves empty tables, and nothing is asked."""
    params = yaml.safe_load((here / "params.yaml").read_text())
    params["saes"]["other"] = params["saes"][SAE]
    write_params(here, params)
    amend(here, "scorers", "detection", saes=["other"])
    scores.main("detection", SAE, WHO)

    assert rows_of("scores", "detection", "scores") == []
    assert server.bodies == []


def test_a_dictionary_that_is_not_scored_has_no_scores(here: Path) -> None:
    """With `scored: false` no scorer works on a dictionary, whether it needs explanations or not; its earlier scores are gone."""

    def found() -> list[bool]:
        scores.main("lexical", SAE, WHO)
        direct.main("counted", SAE)
        return [bool(rows_of(*place, "scores")) for place in (("scores", "lexical"), ("direct", "counted"))]

    before = found()
    amend(here, "saes", SAE, scored=False)

    assert (before, found()) == ([True, True], [False, False])


@pytest.mark.parametrize(
    ("scorer", "negatives", "count"),
    [
        ("fuzzing", "random", ACTIVE + SILENT),
        ("misplaced", "active", 2 * ACTIVE),
        ("neighbours", "decoder", ACTIVE + 2),
        ("decoys", "decoy", ACTIVE + 2),
    ],
)
def test_fuzzing_marks_every_window(here: Path, server: Server, scorer: str, negatives: str, count: int) -> None:
    """Every example that is shown has marks; misplaced ones are the activating windows once more, neighbours' are windows of theirs."""
    scores.main(scorer, SAE, WHO)
    rows, found = rows_of("scores", scorer, "judgements"), rows_of("scores", scorer, "scores")

    assert all("<<" in text for body in server.bodies for text in examples_of(body))
    assert len(rows) == count * len(found)
    assert sum(len(examples_of(body)) for body in first_asked(server)) == sum(row["status"] == "ok" for row in rows)
    assert {row["status"] for row in rows} <= {"ok", "no marks fit"}
    assert {row["negatives"] for row in found} == {negatives}


def test_a_latent_is_judged_on_the_pool_s_windows_in_which_it_is_silent(here: Path, server: Server) -> None:
    """Besides activating windows a judge reads those of the pool that are open to the latent, numbered after all its test windows."""
    scores.main("pool", SAE, WHO)
    contexts = Shelf(Path("build/contexts", SAE))
    pieces, pool = text_pieces(contexts.read(VOCABULARY)), contexts.read(POOL).to_pylist()
    last = {examples.latent: int(examples.number.max()) for examples in windows(contexts, "test")}
    rows, found = rows_of("scores", "pool", "judgements"), rows_of("scores", "pool", "scores")
    for score in found:
        latent = score["latent"]
        open_ = [record for record in pool if latent not in [*record["firing"], *record["drawn"]]]
        silent = [row for row in rows if row["latent"] == latent and not row["truth"]]
        assert [row["example"] for row in silent] == [last[latent] + 1 + record["window"] for record in open_]
        texts = [b"".join(pieces[one] for one in record["tokens"]).decode("utf-8", "replace") for record in open_]
        assert [row["answer"] for row in silent] == [bool(draw(text) % 2) for text in texts]
        assert (score["n"], score["n_positive"], score["negatives"]) == (ACTIVE + len(open_), ACTIVE, "pool")
        assert score["specificity"] == pytest.approx(1 - sum(row["answer"] for row in silent) / len(silent))
    assert max(score["n"] for score in found) > ACTIVE + SILENT


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
    told = r"Error code: 500 - out of memory|the answer holds no list of zeros and ones|the answer has \d entries for \d examples"
    assert all(re.match(told, reason.split(": ", 1)[1]) for reason in reasons.values())


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
    turns = [body["messages"][-1]["content"].split("\n", 1) for body in first_asked(server)]
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
