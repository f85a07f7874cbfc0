"""Stage `steering` in this process: a transformer and a recurrent model, generated people and files, ratings, and mistakes."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from llm_server import MODEL, chat, error, serving
from project import digests, small_params, write_params
from recurrent import tiny
from transformers import AutoTokenizer

from builders.errors import UserError
from builders.lake.shards import Shards
from builders.steering import townsfolk
from builders.steering.effects import STEERING, STEERING_ANSWERS, STEERING_VECTORS
from builders.steering.orders import numbers_of
from builders.steering.ranges import STEERING_RANGES
from builders.steering.ratings import STEERING_TEXTS
from builders.steering.ways import Push
from builders.subjects.states import family_of
from pipelines.graph.stage import shelf
from pipelines.opened.behaviours import some_of
from pipelines.params import SteeringParams, load
from pipelines.parts.steered_answers import ways
from pipelines.stages import steering, subjects

if TYPE_CHECKING:
    from pyarrow import Table
    from shared import Once

ROOT = Path(__file__).resolve().parents[3]
REAL = "INTERPLAKE_REAL_DATA"
SUBJECTS = ("llama", "rwkv")
TABLES = (STEERING, STEERING_ANSWERS, STEERING_RANGES, STEERING_VECTORS, STEERING_TEXTS)
BOLD = {"source": "townsfolk", "disposition": "bold", "describes": "dares"}
FILES = {"source": "files", "generate": "pairs.json", "test": "tests.json", "open": "open.json", "describes": "says yes"}
PAIRS = [
    {"question": f"{what}?\n\nChoices:\n (A) Yes\n (B) No", "answer_matching_behavior": yes, "answer_not_matching_behavior": no}
    for what in ("Shall we", "Would you", "Do they", "May I", "Can it be")
    for yes, no in (("(A)", "(B)"),)
]


def params_of(**settings: Any) -> dict[str, Any]:
    """Return params with two subjects, two behaviours and few questions."""
    params = small_params()
    params["subjects"] = {name: {"path": name, "corpus": "topics", "template": "Ask: {question}\nReply:"} for name in SUBJECTS}
    params["saes"] = {name: some | {"subject": "llama"} for name, some in params["saes"].items()}
    params["behaviours"] = {"bold": {**BOLD}, "yes": {**FILES}}
    params["steering"] = {
        "methods": ["difference", "lda"],
        "sites": ["residual", "state", "both"],
        "phases": ["late"],
        "multipliers": [-2.0, 2.0],
        "nulls": {"permuted": 2, "random": 1},
        "pairs": 12,
        "questions": 8,
        "batch": 16,
        "open": {"questions": 2, "tokens": 3, "multipliers": [0.0, 2.0]},
        **settings,
    }
    return params


@pytest.fixture(scope="module")
def built(once: Once) -> Path:
    """Return a project with two checkpoints as subjects and a behaviour's files."""
    return once("steered", fill)


def fill(folder: Path) -> None:
    """Make the project in *folder*."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "checkpoints/lab-transformer")
    for name in SUBJECTS:
        tiny(name, vocabulary=len(tokenizer)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "pairs.json").write_text(json.dumps(PAIRS))
    (folder / "tests.json").write_text(json.dumps([{**pair, "question": f"Well, {pair['question']}"} for pair in PAIRS]))
    (folder / "open.json").write_text(json.dumps(["What now?", "Why {so}?", "Where?"]))


def make(folder: Path, name: str, params: dict[str, Any]) -> dict[str, Table]:
    """Run the stages of subject *name* and return what they leave, by name of table."""
    write_params(folder, params)
    subjects.main(name)
    steering.main(name)
    return {table.name: shelf("steering", name).read(table) for table in TABLES}


def test_a_recurrent_model_is_steered_everywhere(here: Path) -> None:
    """Both sites and both together have effects at every layer for both behaviours; every table is what its schema says."""
    found = make(here, "rwkv", params_of(methods=["difference"]))
    for table in TABLES:
        table.validate(found[table.name])
    effects = found["steering"].to_pandas()
    steered = effects[effects["site"] != "none"]
    assert set(effects["behaviour"]) == {"bold", "yes"}
    assert set(effects["status"]) == {"ok"}
    assert len(steered) == 2 * 3 * 3 * 2 * 2  # behaviours, sites, layers, multipliers, halves
    assert (steered["effect"] != 0).all()
    assert (effects[effects["site"] == "none"]["effect"] == 0).all()
    assert set(effects[effects["behaviour"] == "bold"]["n"]) == {4}
    assert sorted(effects[effects["behaviour"] == "yes"]["n"].unique()) == [2, 3]
    chosen = steered[steered["chosen"]].groupby(["behaviour", "site"])["layer"].nunique()
    assert (chosen == 1).all()
    assert len(chosen) == 6
    ranges = found["steering_ranges"].to_pandas()
    assert len(ranges) == 2 * 3 * (3 + 3)  # behaviours, sites, layers and choices
    assert set(zip(ranges["permuted_draws"], ranges["random_draws"], strict=True)) == {(2, 1)}
    ends = steered[steered["half"] == "test"].assign(along=lambda rows: rows["effect"] * rows["multiplier"].map({2.0: 0.5, -2.0: -0.5}))
    halves = ends.groupby(["behaviour", "site", "layer"])["along"].sum()
    told = ranges[ranges["choice"] == "layer"].set_index(["behaviour", "site", "layer"])["half_range"]
    assert (halves - told).abs().max() < 1e-9
    best = ranges[ranges["choice"] == "best"].set_index(["behaviour", "site"])["layer"]
    assert (best == steered[steered["chosen"]].groupby(["behaviour", "site"])["layer"].first()).all()
    parts = found["steering_vectors"].to_pandas().groupby("part")["layer"].nunique()
    assert parts.to_dict() == dict.fromkeys(("residual", "feed_forward", "attention", "value", "weight"), 3)


def test_a_transformer_has_no_state(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """State steering of a model without a state is skipped: rows without numbers that say why, and a word about it; the rest is done."""
    effects = make(here, "llama", params_of())["steering"].to_pandas()
    skipped = effects[effects["site"].isin(["state", "both"])]
    assert set(skipped["status"]) == {"no recurrent state to be steered"}
    assert skipped[["matching", "effect", "effect_se"]].isna().all(axis=None)
    assert set(effects[effects["site"] == "residual"]["method"]) == {"difference", "lda"}
    assert set(effects[effects["site"] == "residual"]["status"]) == {"ok"}
    assert "skipped difference, state: no recurrent state to be steered" in capsys.readouterr().out


def test_lda_leaves_the_state_alone(here: Path) -> None:
    """LDA makes vectors for the residual stream only, and says so where the state was asked for."""
    effects = make(here, "rwkv", params_of(methods=["lda"]))["steering"].to_pandas()
    assert set(effects[effects["site"].isin(["state", "both"])]["status"]) == {"lda makes vectors for the residual stream only"}
    assert set(effects[effects["site"] == "residual"]["status"]) == {"ok"}


def test_the_answers_are_there_one_by_one(here: Path) -> None:
    """Every question has an answer under every way to steer; their means are the effects, and effects are differences."""
    found = make(here, "rwkv", params_of(methods=["difference"]))
    answers, effects = (found[name].to_pandas() for name in ("steering_answers", "steering"))
    key = ["subject", "behaviour", "method", "site", "phase", "layer", "multiplier", "half"]
    means = answers.groupby(key)[["matching", "nonsense", "effect"]].mean()
    assert answers.groupby("behaviour")["order"].max().to_dict() == {"bold": 1, "yes": 1}
    assert answers.groupby("behaviour")["letter"].value_counts().groupby("behaviour").nunique().tolist() == [1, 1]  # letters alike
    expected = effects.set_index(key)[["matching", "nonsense", "effect"]]
    assert len(means) == len(expected)
    assert (means - expected).abs().max(axis=None) < 1e-6


def test_numbers_instead_of_letters(here: Path) -> None:
    """The 1-2 format tests with numbers, and its rows say so; vectors come from letters, as in the paper."""
    letters, numbers = (make(here, "llama", params_of(answers=kind)) for kind in ("letters", "numbers"))
    effects = {name: found["steering"].to_pandas() for name, found in (("letters", letters), ("numbers", numbers))}
    assert set(effects["numbers"]["answers"]) == {"numbers"}
    assert (effects["numbers"]["nonsense"].dropna() != effects["letters"]["nonsense"].dropna()).all()
    assert set(numbers["steering_answers"]["letter"].to_pylist()) == {"1", "2", " 3", " 4"}
    assert numbers["steering_vectors"].equals(letters["steering_vectors"])


def test_orders_as_given(here: Path) -> None:
    """Questions that all match with (A) are refused as they are given, since their letter looks like the behaviour."""
    params = params_of(orders="given")
    params["behaviours"] = {"yes": FILES}
    with pytest.raises(UserError, match=r"every answer that matches the behaviour is \(A\), .*`steering.orders: both`"):
        make(here, "llama", params)


def test_labels_by_coin_have_no_effect(here: Path) -> None:
    """Labels that mean nothing, 70 % of them (A): what pushes towards a letter is an effect as the paper reads it, and none balanced."""
    for name, word, count in (("pairs.json", "learn", 60), ("tests.json", "ask", 40)):
        rows = []
        for number in range(count):
            letters = ("(A)", "(B)") if number % 10 < 7 else ("(B)", "(A)")
            question = f"Number {number}, to {word}?\n (A) Yes\n (B) No"
            rows.append({"question": question, "answer_matching_behavior": letters[0], "answer_not_matching_behavior": letters[1]})
        (here / name).write_text(json.dumps(rows))
    params = params_of(
        orders="given", methods=["difference"], sites=["residual"], pairs=60, questions=40, nulls={"permuted": 8, "random": 0}
    )
    params["behaviours"] = {"coin": {key: value for key, value in FILES.items() if key != "open"}}
    ranges = make(here, "llama", params)["steering_ranges"].to_pandas().set_index("choice")
    best, paper = ranges.loc["largest"], ranges.loc["paper"]
    assert best["letter_high"] > 0.001
    assert best["letter_low"] == pytest.approx(-best["letter_high"], rel=0.2)
    assert abs(best["half_range"]) < 0.1 * best["letter_high"]
    assert abs(paper["half_range"]) > 3 * abs(best["half_range"])


def test_both_phases_and_every_part(here: Path) -> None:
    """Each part of the state is a site of its own; a part whose phase makes no difference has one; texts are of the whole state only."""
    found = make(here, "rwkv", params_of(methods=["difference"], sites=["state", "parts"], phases=["late", "aligned"]))
    ranges = found["steering_ranges"].to_pandas()
    phases = ranges.groupby("site")["phase"].unique().map(sorted).to_dict()
    both = ["aligned", "late"]
    assert phases == {"state": both, "feed_forward": both, "attention": both, "value": ["late"], "weight": ["late"]}
    assert ranges[ranges["site"] == "state"]["permuted_draws"].eq(2).all()
    assert ranges[ranges["site"] != "state"]["permuted_draws"].eq(0).all()
    texts = found["steering_texts"].to_pandas()
    assert set(map(tuple, texts[["site", "phase"]].to_numpy())) == {("none", "none"), ("state", "late"), ("state", "aligned")}


def test_texts_are_written_with_and_without(here: Path) -> None:
    """Open questions are answered without steering once, and at the chosen layer of each site; nobody rates them unless asked to."""
    found = make(here, "rwkv", params_of(methods=["difference"]))
    texts, effects = found["steering_texts"].to_pandas(), found["steering"].to_pandas()
    chosen = effects[effects["chosen"] & (effects["multiplier"] == 2)].groupby(["behaviour", "site"])["layer"].first()
    steered = texts[texts["site"] != "none"]
    assert texts.groupby(["behaviour", "site"]).size().tolist() == [2] * 8
    assert steered.groupby(["behaviour", "site"])["layer"].first().to_dict() == chosen.to_dict()
    assert set(texts["rating_status"]) == {"not rated"}
    assert texts[texts["behaviour"] == "yes"]["prompt"].unique().tolist() == ["What now?", "Why {so}?"]
    assert texts[texts["behaviour"] == "bold"]["prompt"].unique().tolist() == townsfolk.open_questions("bold")[:2]


def test_a_judge_rates_the_texts(here: Path) -> None:
    """With a judge every text has its rating, what it cost lies beside the rows, and a rerun asks nothing again."""
    with serving(lambda _, __: chat("It dares.\nRating: 7")) as server:
        params = params_of(methods=["difference"], sites=["residual"])
        params["engines"] = {"server": {"kind": "openai", "base_url": server.url, "model": MODEL}}
        params["judges"]["rater"] = {"kind": "model", "engine": "server"}
        params["steering"]["open"]["judge"] = "rater"
        texts = make(here, "rwkv", params)["steering_texts"].to_pandas()
        asked = server.asked.total()
        again = make(here, "rwkv", params)["steering_texts"].to_pandas()
        assert server.asked.total() == asked
    usage = json.loads((here / "build/steering/rwkv/usage.json").read_text())
    assert set(texts["rating"]) == {7.0}
    assert set(texts["judge"]) == {"rater"}
    assert usage["answers"] == texts["request_sha256"].nunique()
    assert again.equals(texts)


def test_a_rerun_is_the_same_bytes_and_resumes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends after one behaviour goes on with the other, and leaves the bytes of an undisturbed run."""
    make(here, "rwkv", params_of())
    whole = digests(here / "build/steering")
    (here / "build/steering/rwkv/manifest.json").unlink()
    written: list[str] = []
    real = Shards.write

    def stops(self: Shards, table: Any, groups: Any, index: int = 0) -> None:
        if index == 1 and not written.count("stopped"):
            written.append("stopped")
            raise KeyboardInterrupt
        written.append(f"{table.name} {index}")
        real(self, table, groups, index)

    monkeypatch.setattr(Shards, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        steering.main("rwkv")
    steering.main("rwkv")
    assert [one for one in written if one.endswith("0")] == [f"{table.name} 0" for table in steering.TABLES]
    assert digests(here / "build/steering") == whole


def test_no_behaviours_no_rows(here: Path) -> None:
    """Without behaviours the stage leaves empty tables, at once."""
    params = params_of()
    params["behaviours"] = {}
    assert {name: table.num_rows for name, table in make(here, "llama", params).items()} == {table.name: 0 for table in TABLES}


def test_long_questions_are_told(here: Path) -> None:
    """A question that is longer than the subject reads is a row with the reason, counted as failed, and no number."""
    long = {**PAIRS[0], "question": "Please " * 200 + PAIRS[0]["question"]}
    (here / "tests.json").write_text(json.dumps([*PAIRS, long]))
    (here / "pairs.json").write_text(json.dumps([{**pair, "question": f"So {pair['question']}"} for pair in PAIRS]))
    params = params_of()
    params["behaviours"] = {"yes": FILES}
    found = make(here, "llama", params)
    answers = found["steering_answers"].to_pandas()
    told = answers[answers["status"] != "ok"]
    assert set(told["question"]) == {5}
    assert told["matching"].isna().all()
    assert told["status"].str.startswith("longer than the").all()
    assert found["steering"].to_pandas().groupby("half")["n_failed"].max().sum() == 1


MISTAKES = {
    "template drops the question": (
        lambda params, _: params["subjects"]["llama"].update(template="Say: ("),
        "subjects.llama.template: contains `{question}` 0 times; put it where the question belongs, exactly once",
    ),
    "question without options": (
        lambda _, folder: (folder / "pairs.json").write_text(json.dumps([{**PAIRS[0], "question": "Shall we?"}])),
        "pairs.json[0]: the question has no option (A) at the beginning of a line; give each option a line of its own",
    ),
    "letter of several tokens": (
        lambda _, folder: (folder / "pairs.json").write_text(json.dumps([{**PAIRS[0], "answer_matching_behavior": "(AB)"}])),
        "'answer_matching_behavior' is '(AB)'; give one letter or digit in brackets, such as '(A)'",
    ),
    "questions that are tested and taught": (
        lambda params, _: params["behaviours"]["yes"].update(test="pairs.json"),
        "behaviours.yes.test: 5 of its questions are in `generate` too; test with others",
    ),
    "too few to test with": (
        lambda _, folder: (folder / "tests.json").write_text(json.dumps(PAIRS[:3])),
        "behaviours.yes.test: 3 questions, of which half choose a layer; give at least 4",
    ),
    "no such number": (lambda params, _: params["steering"].update(multipliers=[float("inf")]), "steering.multipliers"),
    "missing file": (
        lambda params, _: params["behaviours"]["yes"].update(test="nowhere.json"),
        "behaviours.yes.test: nowhere.json is not there; correct the path",
    ),
    "judge that is no model": (
        lambda params, _: params["steering"]["open"].update(judge="lexical"),
        "steering.open.judge: ratings ask a language model; choose a judge of kind `model`",
    ),
    "the same site twice": (lambda params, _: params["steering"].update(sites=["state", "state"]), "steering.sites: names one thing twice"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str, here: Path) -> None:
    """What a person got wrong is told in one line that says where, and nothing is left as if it were done."""
    params = params_of()
    change, line = MISTAKES[mistake]
    change(params, here)
    with pytest.raises(UserError) as caught:
        make(here, "llama", params)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (
        not (here / "build/steering/llama/manifest.json").exists()
        or not json.loads((here / "build/steering/llama/manifest.json").read_text())["complete"]
    )


def few(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Return so many rows, one at least of every letter that matches."""
    of_letters = list({row["answer_matching_behavior"]: row for row in rows}.values())
    return [*of_letters, *[row for row in rows if row not in of_letters][: count - len(of_letters)]]


@pytest.mark.parametrize("name", [name for name, spec in load(ROOT / "params.yaml").subjects.items() if not spec.reinitialised])
def test_the_published_behaviours_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every behaviour of the published data, answers from C to H among them, is steered towards on every subject of the default run."""
    if REAL not in os.environ:
        pytest.skip(f"{REAL} does not name a folder of data")
    data = Path(os.environ[REAL]).resolve() / "caa"
    behaviours = sorted(path.name for path in (data / "test").iterdir())
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["behaviours"], letters = {}, set()
    for behaviour in behaviours:
        files = {"generate": data / f"generate/{behaviour}/generate_dataset.json", "test": data / f"test/{behaviour}/test_dataset_ab.json"}
        for kind, path in files.items():
            some = few(json.loads(path.read_text()), 8)
            letters |= {row["answer_matching_behavior"].strip(" ()") for row in some}
            (tmp_path / f"{behaviour}-{kind}.json").write_text(json.dumps(some))
        spec = {kind: f"{behaviour}-{kind}.json" for kind in files}
        params["behaviours"][behaviour.lower()] = {"source": "files", "describes": behaviour, **spec}
    params["steering"] |= {"multipliers": [-1.0, 1.0], "methods": ["difference"], "nulls": {"permuted": 2, "random": 1}}
    params["subjects"][name]["path"] = str(ROOT / params["subjects"][name]["path"])
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    subjects.main(name)
    steering.main(name)
    frame = shelf("steering", name).read(STEERING).to_pandas()
    counts = frame[(frame["site"] == "residual") & (frame["multiplier"] == 1)].groupby(["behaviour", "layer"])[["n", "n_failed"]].sum()
    assert len(behaviours) == 7
    assert set(frame["behaviour"]) == {behaviour.lower() for behaviour in behaviours}
    assert letters == set("ABCDEFGH")
    assert (counts.sum(axis=1) == 8).all()
    assert (counts["n"] > 0).all()
    ranges = shelf("steering", name).read(STEERING_RANGES)
    STEERING_RANGES.validate(ranges)
    assert set(ranges["permuted_draws"].to_pylist()) <= {2, 0}


@pytest.mark.parametrize(("held_out", "orders"), [(False, 4), (True, 2)])
def test_all_orders_of_a_question_are_drawn_together(held_out: bool, orders: int) -> None:
    """A draw holds so many questions, each with all orders of its options, and a larger draw holds every smaller one."""
    pairs = townsfolk.pairs("bold", held_out)
    small, large = (some_of(pairs, most, 7) for most in (5, 20))
    assert (len(small), len(large)) == (5 * orders, 20 * orders)
    assert all(large.count(pair) == 1 for pair in small)
    assert set(Counter(pair.matching for pair in small).values()) == {5 * orders // 2}
    assert numbers_of(small) == [number for number in range(5) for _ in range(orders)]
    assert some_of(pairs, len(pairs), 7) == pairs


def test_layers_without_a_state_are_skipped_alone() -> None:
    """In a hybrid the state is steered where there is one; at other layers that is skipped, and so is the state for LDA."""
    settings = SteeringParams(methods=["difference", "lda"], sites=["residual", "state"], phases=["late"], multipliers=[0.0, 1.0])
    allowed, skipped = ways(settings, [["ssm"], []], family_of(tiny("mamba")))
    assert allowed == [
        Push("difference", "residual", 0, 1.0),
        Push("difference", "residual", 1, 1.0),
        Push("difference", "state", 0, 1.0),
        Push("lda", "residual", 0, 1.0),
        Push("lda", "residual", 1, 1.0),
    ]
    assert skipped == [
        (Push("difference", "state", 1, 1.0), "no recurrent state to be steered"),
        (Push("lda", "state", 0, 1.0), "lda makes vectors for the residual stream only"),
        (Push("lda", "state", 1, 1.0), "no recurrent state to be steered"),
    ]


def test_only_every_nth_layer() -> None:
    """With `every: 2`, layers 1, 3, 5 of six are tried, counted from 0."""
    settings = SteeringParams(sites=["residual"], multipliers=[1.0], every=2)
    allowed, skipped = ways(settings, [[]] * 6, family_of(tiny("llama")))
    assert ([push.layer for push in allowed], skipped) == ([1, 3, 5], [])


def test_a_judge_that_fails_stops_the_stage(here: Path) -> None:
    """Where too many ratings fail nothing is written as if it were done, so that the next run asks again."""
    with serving(lambda _, __: error(400, "no")) as server:
        params = params_of(methods=["difference"], sites=["residual"])
        params["engines"] = {"server": {"kind": "openai", "base_url": server.url, "model": MODEL}}
        params["judges"]["rater"] = {"kind": "model", "engine": "server"}
        params["steering"]["open"]["judge"] = "rater"
        with pytest.raises(UserError, match=r"ratings of texts about bold: 4 of 4 texts failed"):
            make(here, "rwkv", params)
    assert not (here / "build/steering/rwkv/manifest.json").exists()


def test_texts_too_long_to_be_written_say_so(here: Path) -> None:
    """Where a prompt and what is to be written do not fit into the subject, there is no text, the reason is told, and nobody rates it."""
    params = params_of(methods=["difference"], sites=["residual"])
    params["steering"]["open"]["tokens"] = 500
    texts = make(here, "llama", params)["steering_texts"].to_pandas()
    assert set(texts["rating_status"]) == {"no text"}
    assert set(texts["text"]) == {""}
    assert texts["reason"].str.contains("longer than the").all()
