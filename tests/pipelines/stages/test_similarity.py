"""Stage `similarity` in this process: sisters, a known copy, other layers, subjects and tokenizers, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from coders import noise
from compared import DEAD, MEASURES, ORIGIN, PAIRS, RANDOM, TOPK, WIDTH, alive, change, fill, make, pair_of, rows, written
from forms import schema_of
from forms import written as as_asked
from llm_server import MODEL, Body, Reply, chat, content_of, error, serving
from project import digests, write_params
from safetensors.torch import save_file
from sentences import make_model

from builders.errors import UserError
from builders.explainers.explanations import EXPLANATIONS
from builders.saes import formats
from builders.similarity.partners import MATCHES
from builders.similarity.similarity import SIMILARITY
from builders.similarity.splices import SPLICES
from builders.similarity.stability import STABILITY, STABILITY_SCORES
from pipelines.graph.stage import folder, shelf
from pipelines.params import load
from pipelines.parts.views import Views
from pipelines.stages import agreement, calibration, explanations, scores, similarity

if TYPE_CHECKING:
    from shared import Once
    from transformers import PreTrainedTokenizerBase

SHARES = ("shared-0.3", "shared-0.5", "shared-0.7", "shared-0.9")
PLAIN = {"matched", "mutual", "best", "best-back", *SHARES}
CLOSER = {"decoder": {"overlap-shared", "overlap-rest"}, "pearson": {"svcca", "rsa"}}  # of relations `seed` and `recipe`
TRANSFERS = ("transfer", "transfer-own", "transfer-other")
NO_TEXT = "no text that both subjects read"


@pytest.fixture(scope="module")
def built(once: Once, tiny_tokenizer: PreTrainedTokenizerBase) -> Path:
    """Return a project in which all dictionaries have been compared."""
    return once("compared", lambda folder: fill(folder, tiny_tokenizer))


# What is written of every pair


@pytest.mark.parametrize(
    ("a", "b", "relation", "layers"),
    [
        ("one", "two", "seed", 0),
        ("far", "one", "layer", 2),
        ("copy", "one", "recipe", 0),
        ("neurons", "one", "hookpoint", 0),
        ("one", "rules", "hookpoint", None),
        ("mamba", "one", "subject", None),
        ("apart", "one", "subject", None),
        ("blank", "one", "reinitialised", None),
        ("blank", "mamba", "reinitialised", None),
    ],
)
def test_a_pair_says_how_it_is_related(here: Path, a: str, b: str, relation: str, layers: int | None) -> None:
    """Every row of a pair has its relation and the number of layers between its hookpoints."""
    assert {(row["relation"], row["layers"]) for row in rows(SIMILARITY, a, b)} == {(relation, layers)}


def test_every_pair_has_every_measure(here: Path) -> None:
    """By each measure a pair has all statistics with their n, interval and chance, or one row that says why it has none."""
    for a, b in PAIRS:
        for measure in MEASURES:
            found = {row["statistic"]: row for row in rows(SIMILARITY, a, b, measure=measure)}
            if set(found) == {"none"}:
                nothing = [found["none"][name] for name in ("value", "low", "high", "permuted", "untrained")]
                assert (found["none"]["n"], nothing) == (0, [None] * 5)
                assert found["none"]["status"] != "ok"
                assert not rows(MATCHES, a, b, measure=measure)
                continue
            agree = {"agree"} if measure == "decoder" and rows(MATCHES, a, b, measure="encoder") else set()
            closer = CLOSER.get(measure, set()) if found["matched"]["relation"] in {"seed", "recipe"} else set()
            assert PLAIN | agree <= set(found) <= PLAIN | agree | closer
            for statistic in PLAIN | agree:
                row = found[statistic]
                assert row["status"] == "ok"
                assert row["low"] <= row["value"] + 1e-9
                assert row["value"] <= row["high"] + 1e-9
                assert row["permuted"] is not None
            assert found["mutual"]["n"] == min(found["best"]["n"], found["best-back"]["n"])


WHY: dict[tuple[str, str], dict[str, str]] = {
    ("one", "two"): {},
    ("copy", "one"): {},
    ("far", "one"): {},
    ("blank", "one"): {},
    ("neurons", "one"): {"decoder": "decoder rows of 384 and 128 dimensions", "encoder": "no encoder rows in neurons"},
    ("mamba", "one"): {"decoder": "decoder rows of 16 and 128 dimensions", "encoder": "no encoder rows in mamba"},
    ("one", "rules"): {"decoder": "no decoder rows in rules", "encoder": "no encoder rows in rules"},
    ("mamba-rules", "rules"): {"decoder": "no decoder rows in mamba-rules", "encoder": "no encoder rows in mamba-rules"},
    ("apart", "one"): {"pearson": NO_TEXT, "jaccard": NO_TEXT, "explanation": "no explanations of apart by lexical"},
}


@pytest.mark.parametrize(("a", "b"), WHY)
def test_what_cannot_be_compared_says_why(here: Path, a: str, b: str) -> None:
    """Other sizes, coders without rows, subjects without common text and missing explanations are reasons; all other measures run."""
    told = {row["measure"]: row["status"] for row in rows(SIMILARITY, a, b) if row["status"] != "ok"}

    assert told == WHY[a, b]
    assert {row["measure"] for row in rows(MATCHES, a, b)} == set(MEASURES) - set(told)


def test_a_dictionary_that_never_fires_says_so(here: Path) -> None:
    """Where no latent of a dictionary fires there is nothing to compare, by any measure, and the run goes on."""
    silent = formats.read(Path("copy"))
    silent.b_enc[:] = -1e9
    formats.write(silent, Path("mute"))
    mute = {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "mute"}
    change(here, saes={"mute": mute}, similarity={"saes": ["mute", "one"]})
    make("mute")
    similarity.main()

    told = {row["measure"]: row["status"] for row in rows(SIMILARITY, "mute", "one")}
    assert told == {
        **dict.fromkeys(MEASURES[:4], "no latent of mute fires on this text"),
        "explanation": "no explanations of mute by lexical",
    }
    assert rows(MATCHES, "mute", "one") == rows(SPLICES, "mute", "one") == []


@pytest.mark.numeric
@pytest.mark.parametrize("measure", MEASURES[:4])
def test_a_copy_is_recovered_latent_by_latent(here: Path, measure: str) -> None:
    """A copy in another order is recovered exactly, by nearest, mutual and one-to-one partners, from both sides."""
    known = {latent: int(origin) for latent, origin in enumerate(ORIGIN) if origin in alive("one") and latent != DEAD}
    back = {origin: latent for latent, origin in known.items()}

    for sae, wanted in (("copy", known), ("one", back)):
        found = rows(MATCHES, "copy", "one", sae=sae, measure=measure)
        assert {row["latent"]: row["partner"] for row in found} == wanted
        assert {row["latent"]: row["assigned"] for row in found} == wanted
        assert all(row["mutual"] for row in found)
        assert {row["agree"] for row in found} == {True if measure in {"decoder", "encoder"} else None}
        assert [row["assigned_value"] for row in found] == pytest.approx([1] * len(found), abs=1e-5)
    ones = ("matched", "mutual", "best", "best-back", *SHARES)
    told = {row["statistic"]: row for row in rows(SIMILARITY, "copy", "one", measure=measure)}
    assert [told[name]["value"] for name in ones] == pytest.approx([1] * len(ones), abs=1e-5)
    assert told["matched"]["untrained"] < 0.5
    assert told["mutual"]["permuted"] == len(known) / (2 * len(known) - 1)


@pytest.mark.numeric
def test_a_copy_is_alike_as_a_whole(here: Path) -> None:
    """The shared latents of a copy span one space, and what they do correlates as the original's does; chance is far below."""
    found = {row["statistic"]: row for row in rows(SIMILARITY, "copy", "one")}

    for statistic in ("overlap-shared", "svcca", "rsa", "agree"):
        assert found[statistic]["value"] == pytest.approx(1, abs=1e-4)
        assert found[statistic]["permuted"] < 0.5
    assert "overlap-rest" not in found  # nothing is left that is not shared
    assert [found[name]["untrained"] < 0.9 for name in ("svcca", "rsa", "agree")] == [True] * 3


def test_a_latent_that_never_fires_has_no_partner_and_is_none(here: Path) -> None:
    """It is not in `matches` on either side, although it writes what another latent writes."""
    assert DEAD not in alive("copy")
    for pair in PAIRS:
        if "copy" in pair:
            own, others = ([row for row in rows(MATCHES, *pair) if row[side] == "copy"] for side in ("sae", "other"))
            assert DEAD not in {row["latent"] for row in own}
            assert DEAD not in {latent for row in others for latent in (row["partner"], row["assigned"])}


def test_both_sides_tell_the_same_pairs(here: Path) -> None:
    """One-to-one partners are the same from both sides, with the same value."""
    found = rows(MATCHES, "one", "two")
    sides = [
        {(row["measure"], row["latent"], row["assigned"]): row["assigned_value"] for row in found if row["sae"] == sae}
        for sae in ("one", "two")
    ]
    turned = {(measure, assigned, latent): value for (measure, latent, assigned), value in sides[1].items() if assigned is not None}

    assert {key: value for key, value in sides[0].items() if key[2] is not None} == turned
    assert {measure for measure, _, _ in turned} == set(MEASURES)


@pytest.mark.numeric
def test_sisters_are_nearer_than_chance(here: Path) -> None:
    """SAEs of two seeds are more alike than an SAE and an untrained one, and than latents in random order; so are neighbouring layers."""
    for pair in (("one", "two"), ("far", "one")):
        for measure in MEASURES[:4]:
            (row,) = rows(SIMILARITY, *pair, measure=measure, statistic="matched")
            assert row["low"] > row["untrained"] > row["permuted"]


@pytest.mark.numeric
def test_one_text_is_read_by_two_tokenizers(here: Path) -> None:
    """Rules that both tokenizers' tokens follow find themselves again by how they fire on the bytes that both have."""
    found = rows(MATCHES, "mamba-rules", "rules", sae="rules", measure="pearson")
    itself = [row["partner"] == row["latent"] and row["value"] > 0.5 for row in found]

    views = Views(load())
    assert views.spans("lab", "mamba").count < len(views.spans("lab", "lab").a.span)
    assert len(found) >= 10
    assert np.mean(itself) >= 0.9
    (row,) = rows(SIMILARITY, "mamba", "one", measure="pearson", statistic="matched")
    assert row["n"] == len(alive("mamba"))
    assert row["untrained"] is not None


def test_the_order_of_two_subjects_changes_no_span(here: Path) -> None:
    """The spans of B and A are those of A and B with the sides exchanged."""
    views = Views(load())
    there, back = views.spans("lab", "mamba"), views.spans("mamba", "lab")

    assert there.a is back.b
    assert there.b is back.a
    assert there.count == back.count > 0


# What is done for some relations only


@pytest.mark.numeric
def test_partners_do_the_work_of_latents(here: Path) -> None:
    """Sisters are spliced, and beside them an untrained twin. A copy loses nothing, a partner some, another latent more."""
    names = ("original", "partner", "random", "removed")
    found = {(row["partners"], row["variant"]): row for row in rows(SPLICES, "one", "two")}
    copied = {row["variant"]: row for row in rows(SPLICES, "copy", "one", partners="sae_b")}

    assert set(found) == {(partners, variant) for partners in ("sae_b", "untrained") for variant in names}
    assert {row["latents"] for row in found.values()} == {len(alive("one")) // 2 * 2}
    assert found["sae_b", "original"]["added"] == 0
    assert found["sae_b", "partner"]["added"] < found["sae_b", "random"]["added"] < found["sae_b", "removed"]["added"]
    assert found["sae_b", "partner"]["recovered"] > found["untrained", "partner"]["recovered"]
    assert copied["partner"]["added"] == pytest.approx(0, abs=1e-5)
    assert copied["partner"]["recovered"] == pytest.approx(1, abs=1e-5)
    removed = {row["partners"]: row["ce"] for row in rows(SPLICES, "copy", "one", variant="removed")}
    assert removed["untrained"] == removed["sae_b"]  # the same latents are left out, whoever was to stand in
    assert not any(pair_of(*pair).rows(SPLICES) for pair in PAIRS if pair not in {("one", "two"), ("copy", "one")})


def test_too_few_partners_are_not_spliced(here: Path) -> None:
    """Two dictionaries of one latent each have a partner, and no other partner to compare its loss with."""
    narrow = {**RANDOM, "subject": "lab", "width": 1, "k": 1}
    change(here, saes={f"narrow-{seed}": {**narrow, "seed": seed} for seed in (0, 1)}, similarity={"saes": ["narrow-0", "narrow-1"]})
    make("narrow-0", "narrow-1")
    similarity.main()

    (row,) = rows(SIMILARITY, "narrow-0", "narrow-1", measure="decoder", statistic="matched")
    assert (row["relation"], row["n"]) == ("seed", 1)
    assert rows(SPLICES, "narrow-0", "narrow-1") == []


def test_transcoders_are_spliced_without_a_twin(here: Path) -> None:
    """Between vectors of two sizes an untrained twin cannot both read and write, so that only partners are put in place."""
    d_in, d_out, saes = 384, 128, {}
    for number in (0, 1):
        shapes = {"encoder.weight": (24, d_in), "encoder.bias": (24,), "W_dec": (24, d_out), "b_dec": (d_out,)}
        place = Path(f"transcoder-{number}")
        place.mkdir()
        save_file(
            {name: noise(10 * number + place, *shape) for place, (name, shape) in enumerate(shapes.items())}, place / "sae.safetensors"
        )
        (place / "cfg.json").write_text(json.dumps({"d_in": d_in, "k": 4, "num_latents": 24, "transcode": True}))
        places = {"hookpoint": "layers.1.mlp.down_proj.input", "writes": "layers.1.mlp", "path": str(place)}
        saes[str(place)] = {"source": "pretrained", "subject": "lab", **places}
    change(here, saes=saes, similarity={"saes": list(saes)})
    make(*saes)
    similarity.main()

    assert {row["partners"] for row in rows(SPLICES, *saes)} == {"sae_b"}
    assert len(rows(SPLICES, *saes)) == 4
    assert {row["untrained"] is None for row in rows(SIMILARITY, *saes, measure="decoder", statistic="matched")} == {False}


def test_explanations_are_tried_on_partners(here: Path) -> None:
    """With `transferred` there are three means over the same latents; other relations, and the other rows, stay as they were."""
    before = {pair: pair_of(*pair).read(SIMILARITY) for pair in PAIRS}
    change(here, similarity={"transferred": ["seed"], "saes": ["far", "one", "two"]})
    similarity.main()
    told = {row["statistic"]: row for row in rows(SIMILARITY, "one", "two", measure="explanation") if row["statistic"] in TRANSFERS}

    assert tuple(told) == tuple(sorted(TRANSFERS))
    assert {row["n"] for row in told.values()} == {5}
    assert all(row["low"] <= row["value"] <= row["high"] for row in told.values())
    assert [row for row in rows(SIMILARITY, "one", "two") if row["statistic"] not in TRANSFERS] == before["one", "two"].to_pylist()
    assert rows(SIMILARITY, "far", "one") == before["far", "one"].to_pylist()


def planted_twice(here: Path, **similarity_: Any) -> None:
    """Add the planted rules once more, and the same explanations for both, and compare these two alone."""
    change(here, saes={"rules-again": {"source": "planted", "subject": "lab"}})
    make("rules-again")
    known = shelf("explanations", "rules", "lexical").read(EXPLANATIONS).to_pylist()
    lines = [json.dumps({"latent": row["latent"], "explanation": row["text"]}) for row in known if row["text"]]
    Path("theirs.jsonl").write_text("\n".join(lines))
    given: dict[str, Any] = {"explainer": "given", "saes": ["rules", "rules-again"], "transferred": ["hookpoint"], "transfers": 8}
    change(here, explainers={"given": {"kind": "import", "path": "theirs.jsonl"}}, similarity=given | similarity_)
    for sae_id in given["saes"]:
        explanations.main("given", sae_id)


def test_a_rule_s_explanation_fits_the_same_rule(here: Path) -> None:
    """Where partners mean the same and have one explanation, it scores on the partner what the partner's own scores, above others."""
    planted_twice(here)
    similarity.main()
    told = {row["statistic"]: row for row in rows(SIMILARITY, "rules", "rules-again", measure="explanation")}

    assert all(row["partner"] == row["latent"] for row in rows(MATCHES, "rules", "rules-again", measure="pearson"))
    assert told["transfer"]["value"] == told["transfer-own"]["value"] > told["transfer-other"]["high"]
    assert told["matched"]["value"] == pytest.approx(1, abs=1e-5)


def asked(here: Path, url: str, share: float) -> None:
    """Let a language model at *url* judge the transferred explanations of rules; at most *share* of its answers may fail."""
    engines = {"server": {"kind": "openai", "model": MODEL, "base_url": url, "retries": 0}}
    judges = {"asks": {"kind": "model", "engine": "server", "max_failed_share": share}}
    change(here, engines=engines, judges=judges, scorers={"asked": {"kind": "detection", "judge": "asks", "windows": 2}})
    planted_twice(here, scorer="asked")


def answers(body: Body, _: int) -> Reply:
    """Answer that the first window fits, and no other."""
    schema = schema_of(body)
    return chat(as_asked(schema, [1] + [0] * (schema["properties"]["answers"]["minItems"] - 1)))


def some_fail(body: Body, attempt: int) -> Reply:
    """Fail about every third question."""
    return error(500, "out of memory") if int(content_of(body), 16) % 3 == 0 else answers(body, attempt)


def test_a_judge_s_failures_are_asked_again(here: Path) -> None:
    """Answers are counted beside the rows; the next run asks what failed and nothing else, and a third run asks nothing."""
    place = folder("similarity", "rules", "rules-again")
    with serving(some_fail) as server:
        asked(here, server.url, share=1.0)
        similarity.main()
        failed = {content_of(body) for body in server.bodies if int(content_of(body), 16) % 3 == 0}
        first, count = json.loads((place / "usage.json").read_text()), len(server.asked)
        server.script = answers
        server.forget()
        similarity.main()
        again = dict(server.asked)
        server.forget()
        similarity.main()

    assert failed
    assert (first["answers"], json.loads((place / "usage.json").read_text())["answers"]) == (count - len(failed), count)
    assert len((place / "answers.txt").read_text().split()) == count
    assert again == dict.fromkeys(failed, 1)
    assert not server.bodies


def test_a_judge_that_fails_too_often_ends_the_stage(here: Path) -> None:
    """More failures than `max_failed_share` are one line, and the pair has no rows."""
    with serving(some_fail) as server:
        asked(here, server.url, share=0.0)
        with pytest.raises(UserError, match=r"^explanations of rules on rules-again: \d+ of \d+ requests failed \(HTTP 500 \d+\)"):
            similarity.main()

    assert not list(folder("similarity", "rules", "rules-again").glob("*.parquet"))


# When a pair is made anew


def test_a_pair_is_kept_until_one_of_its_dictionaries_changes(here: Path) -> None:
    """Nothing is written a second time, and after a dictionary has changed only its own pairs are."""
    before = written(*PAIRS)
    similarity.main()
    again = written(*PAIRS)
    change(here, saes={"two": {**TOPK, "seed": 2}})
    make("two")
    similarity.main()
    after = written(*PAIRS)

    assert again == before
    assert {pair for pair in PAIRS if after[pair] != before[pair]} == {pair for pair in PAIRS if "two" in pair}


def test_a_pair_has_the_same_bytes_alone_and_again(here: Path) -> None:
    """Three dictionaries compared alone, from nothing, give the bytes that they had among all; folders of other pairs are removed.

    A sister is compared with its sister only.
    """
    some = ("mamba", "one", "two")
    kept = {name: value for name, value in digests(Path("build/similarity")).items() if set(Path(name).parts[:2]) <= {*some}}
    shutil.rmtree("build/similarity")
    change(here, similarity={"saes": list(some)})
    similarity.main()

    assert digests(Path("build/similarity")) == kept
    assert {Path(name).parts[:2] for name in kept} == {("one", "mamba"), ("two", "one")}


def test_an_embedder_that_was_missing_compares_anew(here: Path) -> None:
    """Explanations are compared by the fallback while the embedder is missing, and anew once it is there; the manifest says by which."""
    change(here, embedders={"small": {"kind": "sentence", "path": "small", "fallback": "lexical"}})
    change(here, similarity={"embedder": "small", "measures": ["explanation"], "saes": ["one", "two"], "spliced": []})
    names, values = [], []
    for _ in range(2):
        similarity.main()
        names.append(pair_of("one", "two").manifest["params"]["embedded by"]["name"])
        values.append(rows(SIMILARITY, "one", "two", statistic="matched")[0]["value"])
        make_model(here / "small")

    assert names == ["lexical (for small)", "small"]
    assert values[0] != values[1]


def test_a_damaged_folder_is_made_again(here: Path) -> None:
    """A file that is cut short, although the pair was noted as done, is written again as it was."""
    before = digests(folder("similarity", "one", "two"))
    path = next(folder("similarity", "one", "two").glob("matches-*.parquet"))
    path.write_bytes(path.read_bytes()[:-50])
    similarity.main()

    assert digests(folder("similarity", "one", "two")) == before


def test_one_dictionary_is_no_pair(here: Path) -> None:
    """With one dictionary there is nothing to compare, and the stage leaves an empty folder."""
    change(here, similarity={"saes": ["one"]})
    similarity.main()

    assert list(Path("build/similarity").iterdir()) == []


# What follows from pairs


def test_stability_reaches_the_scores(here: Path) -> None:
    """Stage `agreement` writes how well each latent of a sister came back, and how that goes with its scores; others have no row."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["saes"] = {name: params["saes"][name] for name in ("far", "one", "two")}
    write_params(here, params)
    for sae_id in params["saes"]:
        scores.main("detection", sae_id, "lexical")
    calibration.main()
    similarity.main()
    agreement.main()
    found, related = (shelf("agreement").read(table).to_pylist() for table in (STABILITY, STABILITY_SCORES))

    assert {row["sae"] for row in found} == {row["sae"] for row in related} == {"one", "two"}
    own = {row["latent"]: row for row in found if (row["sae"], row["measure"]) == ("one", "pearson")}
    matched = {row["latent"]: row for row in rows(MATCHES, "one", "two", sae="one", measure="pearson")}
    assert own.keys() == matched.keys() == set(alive("one").tolist())
    for latent, row in own.items():
        known = matched[latent]
        assert row["sisters"] == 1
        assert row["value"] == known["value"]
        assert row["found"] == float(known["mutual"] and known["value"] >= 0.7)
    (told,) = (row for row in related if (row["sae"], row["measure"], row["scorer"]) == ("one", "pearson", "detection"))
    assert told["n"] <= WIDTH
    assert told["spearman_low"] <= told["spearman"] <= told["spearman_high"]
