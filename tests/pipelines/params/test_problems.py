from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from project import small_params
from pydantic import ValidationError

from pipelines.params import LabParams, Params, explain
from pipelines.params.base import PATTERNS
from pipelines.params.problems import SENTENCES

Change = Callable[[dict[str, Any]], Any]
SAE = {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 8, "k": 2}

# One mistake for each type of pydantic's errors: a change of good params, and the line that names key, mistake and remedy.
PROBLEMS: dict[str, tuple[Change, str]] = {
    "bool_parsing": (
        lambda p: p["saes"]["topk"].update(multi_topk="maybe"),
        "saes.topk.multi_topk: must be true or false (given: 'maybe')",
    ),
    "bool_type": (lambda p: p["saes"]["topk"].update(multi_topk=[1]), "saes.topk.multi_topk: must be true or false (given: [1])"),
    "dict_type": (lambda p: p.update(saes=3), "saes: must hold keys and values, not one value (given: 3)"),
    "extra_forbidden": (lambda p: p["tokens"].update(lenght=3), "tokens.lenght: unknown key; remove it or correct its name"),
    "finite_number": (
        lambda p: p["steering"].update(multipliers=[float("inf")]),
        "steering.multipliers.0: must be a finite number (given: inf)",
    ),
    "float_parsing": (lambda p: p["training"].update(lr="fast"), "training.lr: must be a number (given: 'fast')"),
    "float_type": (lambda p: p["training"].update(lr=[1]), "training.lr: must be a number (given: [1])"),
    "greater_than": (lambda p: p["training"].update(lr=0), "training.lr: must be more than 0 (given: 0)"),
    "greater_than_equal": (lambda p: p["contexts"].update(train=0), "contexts.train: must be at least 1 (given: 0)"),
    "int_from_float": (lambda p: p["contexts"].update(train=1.5), "contexts.train: must be a whole number (given: 1.5)"),
    "int_parsing": (lambda p: p["contexts"].update(train="many"), "contexts.train: must be a whole number (given: 'many')"),
    "int_type": (lambda p: p["contexts"].update(train=[1]), "contexts.train: must be a whole number (given: [1])"),
    "less_than_equal": (lambda p: p["contexts"].update(top_share=2), "contexts.top_share: must be at most 1 (given: 2)"),
    "list_type": (lambda p: p["corpora"]["topics"].update(paths="a.txt"), "corpora.topics.paths: must be a list (given: 'a.txt')"),
    "literal_error": (
        lambda p: p["contexts"].update(sampler="best"),
        "contexts.sampler: must be 'top', 'random', 'quantiles' or 'mix' (given: 'best')",
    ),
    "literal_error of two lists": (
        lambda p: p["scorers"]["fuzzing"].update(negatives="best"),
        "scorers.fuzzing.negatives: must be "
        "'random', 'similar', 'cofiring', 'decoder', 'encoder', 'row', 'decoy' or 'active' (given: 'best')",
    ),
    "literal_error of what cannot stand in": (
        lambda p: p.update(similarity={"spliced": ["seed", "layer"]}),
        "similarity.spliced.1: must be 'seed' or 'recipe' (given: 'layer')",
    ),
    "missing": (lambda p: p["tokens"].pop("bos"), "tokens.bos: missing; add it"),
    "model_attributes_type": (lambda p: p["saes"].update(topk=3), "saes.topk: must hold keys and values, not one value (given: 3)"),
    "model_type": (lambda p: p.update(tokens=3), "tokens: must hold keys and values, not one value (given: 3)"),
    "string_type": (lambda p: p["subjects"]["lab"].update(path=5), "subjects.lab.path: must be text; put it in quotes (given: 5)"),
    "string_type of an id": (lambda p: p["saes"].update({1: SAE}), "saes.1: must be text; put it in quotes (given: 1)"),
    "too_short": (lambda p: p.update(saes={}), "saes: has too few entries; give at least 1"),
    "union_tag_invalid": (
        lambda p: p["embedders"].update(letters={"kind": "magic"}),
        "embedders.letters: `kind` must be 'lexical' or 'sentence' (given: 'magic')",
    ),
    "union_tag_not_found": (lambda p: p["saes"]["topk"].pop("source"), "saes.topk: `source` is missing; add it"),
    "value_error": (lambda p: p["saes"]["topk"].update(k=65), "saes.topk: `k` (65) is larger than `width` (64)"),
    "value_error of explanations that nobody compares": (
        lambda p: p.update(similarity={"measures": ["decoder", "explanation"], "explainer": "lexical"}),
        "similarity: measure `explanation` needs an `explainer` and an `embedder`; name both, or leave the measure out",
    ),
    "value_error of explanations that nobody scores": (
        lambda p: p.update(similarity={"transferred": ["seed"], "explainer": "lexical"}),
        "similarity: `transferred` pairs need an `explainer` and a `scorer`; name both, or leave it empty",
    ),
    "value_error of a dictionary to compare": (
        lambda p: p.update(similarity={"saes": ["topk", "nobody"]}),
        "similarity.saes: 'nobody' is not defined; defined are topk",
    ),
    "value_error of who explains what is compared": (
        lambda p: p.update(similarity={"measures": ["explanation"], "explainer": "nobody", "embedder": "letters"}),
        "similarity.explainer: 'nobody' is not defined; defined are lexical",
    ),
    "value_error of what embeds what is compared": (
        lambda p: p.update(similarity={"measures": ["explanation"], "explainer": "lexical", "embedder": "minilm"}),
        "similarity.embedder: 'minilm' is not defined; defined are letters",
    ),
    "value_error of who scores what is transferred": (
        lambda p: p.update(similarity={"transferred": ["seed"], "explainer": "lexical", "scorer": "intruder"}),
        "similarity.scorer: 'intruder' is not defined; defined are detection, fuzzing",
    ),
    "value_error of the release's scorer": (
        lambda p: p["release"].update(scorer="nobody"),
        "release.scorer: 'nobody' is not defined; defined are detection, fuzzing",
    ),
    "value_error of the release's embedder": (
        lambda p: p["release"].update(embedder="minilm"),
        "release.embedder: 'minilm' is not defined; defined are letters",
    ),
    "literal_error of the release's vectors": (
        lambda p: p["release"].update(vectors="float64"),
        "release.vectors: must be 'float32' or 'float16' (given: 'float64')",
    ),
    "pattern of an id": (
        lambda p: p["saes"].update(My_SAE=SAE),
        "saes.My_SAE: an id may hold a-z, 0-9 and single dashes only (given: 'My_SAE')",
    ),
    "pattern of a commit": (
        lambda p: p["subjects"].update(lab={"repo": "org/model", "revision": "main", "corpus": "topics"}),
        "subjects.lab.revision: must be the 40-digit commit to pin (given: 'main')",
    ),
    "pattern of a device": (
        lambda p: p["subjects"]["lab"].update(device="gpu"),
        "subjects.lab.device: must be auto, cpu, mps, cuda or cuda:<number> (given: 'gpu')",
    ),
    "pattern of an address": (
        lambda p: p.update(engines={"e": {"kind": "openai", "base_url": "localhost", "model": "m"}}),
        "engines.e.base_url: must begin with http:// or https:// (given: 'localhost')",
    ),
    "pattern of a version": (
        lambda p: p["release"].update(version="1"),
        "release.version: must be three numbers with dots between them, such as 0.1.0 (given: '1')",
    ),
    "pattern of a name": (
        lambda p: p["release"].update(name="a b"),
        "release.name: may hold letters, digits, dots, dashes and underscores only (given: 'a b')",
    ),
}


def problem(change: Change) -> ValidationError:
    """Return the error of small params after *change*."""
    params = small_params()
    change(params)
    with pytest.raises(ValidationError) as caught:
        Params.model_validate(params)
    return caught.value


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_told_in_our_words(name: str) -> None:
    """The line names the key as the file has it, what is wrong, and what is allowed; the error is of the type that the table names."""
    change, line = PROBLEMS[name]
    error = problem(change)

    assert explain(error) == line
    kind = "string_pattern_mismatch" if name.startswith("pattern") else name.split()[0]
    assert error.errors()[0]["type"] == kind
    assert kind in SENTENCES or error.errors()[0]["ctx"]["pattern"] in PATTERNS


# Scorers whose windows are not drawn: what `contexts.negatives` and a scorer ask for, and how the line ends.
UNDRAWN: dict[str, tuple[dict[str, int], dict[str, Any], str]] = {
    "pool": (
        {},
        {"detection": {"negatives": "pool"}},
        "scorers.detection.negatives: no pool windows are drawn; set `contexts.negatives.pool`",
    ),
    "decoy": (
        {},
        {"fuzzing": {"negatives": "decoy"}},
        "scorers.fuzzing.negatives: no decoy windows are drawn; set `contexts.negatives.decoy`",
    ),
    "few": (
        {"decoy": 5, "latents": 3},
        {"fuzzing": {"negatives": "decoy"}},
        "scorers.fuzzing.latents: only 3 latents have decoy windows (`contexts.negatives.latents`); ask for no more",
    ),
    "marked": (
        {"decoy": 5},
        {"fuzzing": {"negatives": "decoy", "marks": "random"}},
        "scorers.fuzzing: negatives `decoy` have marks of their own; leave out `marks`",
    ),
}


@pytest.mark.parametrize("name", UNDRAWN)
def test_negatives_that_are_not_there_are_named(name: str) -> None:
    """A scorer that asks for windows or marks that there are not is told which."""
    drawn, scorers, line = UNDRAWN[name]

    def change(params: dict[str, Any]) -> None:
        params["contexts"]["negatives"] = drawn
        for scorer, spec in scorers.items():
            params["scorers"][scorer].update(spec)

    assert explain(problem(change)) == line


def test_all_latents_have_the_pool() -> None:
    """Only some latents have hard windows of their own; the pool is there for all, so a scorer of all latents may ask for it."""
    params = small_params()
    params["contexts"]["negatives"] = {"pool": 20, "latents": 3}
    params["scorers"]["detection"]["negatives"] = "pool"

    assert Params.model_validate(params).scorers["detection"].latents is None


def test_several_problems_are_one_line() -> None:
    """The first three problems are told, and how many more there are."""
    error = problem(lambda p: p.update(seed="x", corpora=3, training=3, release=3, tokens=3))

    assert explain(error).startswith("seed: must be a whole number (given: 'x'); corpora: ")
    assert explain(error).endswith(" (and 2 more)")


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"talks": []}, "checkpoints.lab-a.shape: missing; add it; checkpoints.lab-a.epochs: missing; add it"),
        (
            {"start": "lab-b", "epochs": 2, "talks": []},
            "checkpoints.lab-a.epochs: unknown key; remove it or correct its name",
        ),
    ],
)
def test_a_recipe_is_read_by_how_a_checkpoint_begins(spec: dict[str, Any], line: str) -> None:
    """A checkpoint that names its start is told about no shape, and one that names none is told about no start."""
    lesson = {"batch": 1, "lr": 0.1, "dropout": 0, "weight_decay": 0}
    recipe = {"seed": 0, "held_out": 0.1, "vocabulary": 8, "length": 8, "reading": lesson, "talking": {}, "checkpoints": {"lab-a": spec}}
    with pytest.raises(ValidationError) as caught:
        LabParams.model_validate(recipe)

    assert explain(caught.value) == line
