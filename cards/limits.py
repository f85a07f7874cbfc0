"""Limits and pitfalls that hold for a release: those that its authors, critics and the papers name, told where its params make them true.

Paulo et al. (arXiv 2410.13928) found most of them: sections 3 to 5, and their guidelines for practice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EASY = "random"  # the negatives that are easy to tell from activating windows
ENOUGH = 40  # activating windows after which explanations got no better in the paper
SAMPLERS = {"top": "the strongest windows only: explanations tend to be too narrow, and fail on weaker activations"}
WHOLE = "windows from the whole range of activations: where weak activations are noise, explanations tend to be too broad"


def limits(facts: Mapping[str, Any]) -> list[str]:
    """Return the sentences that hold, in Markdown.

    *facts* has the params `tokens`, `contexts`, `scorers`, `direct_scorers`, `explainers` and `judges`; the *kinds* of its dictionaries,
    and the *names* of its configs.
    """
    return [words for holds, words in (*_of_explanations(facts), *_of_scores(facts), *_of_the_rest(facts)) if holds]


def _of_explanations(facts: Mapping[str, Any]) -> list[tuple[bool, str]]:
    contexts, window = facts["contexts"], facts["tokens"]["window"]
    lexical = any(explainer["kind"] == "lexical" for explainer in facts["explainers"].values())
    asking = any(explainer["kind"] not in {"lexical", "import"} for explainer in facts["explainers"].values())
    return [
        (True, f"A latent that depends on more than the {window} tokens of a window scores low, whatever its explanation says."),
        (True, f"Explainers saw {SAMPLERS.get(contexts['sampler'], WHOLE)}."),
        (
            contexts["train"] < ENOUGH,
            f"Explainers saw {contexts['train']} activating windows of a latent; the paper's saw {ENOUGH}.",
        ),
        (lexical, "The lexical explainer and judge know tokens and no meanings: their rows are a baseline for language models."),
        (asking, "A small language model explains and judges worse: in the paper, 8 billion parameters lose 4 to 6 points to 70 billion."),
        (
            True,
            "Latents that fire in too few windows have no explanation (see `failures`): scores hold for the more frequent ones.",
        ),
    ]


def _of_scores(facts: Mapping[str, Any]) -> list[tuple[bool, str]]:
    scorers = {**facts["scorers"], **facts["direct_scorers"]}
    hard = sorted(name for name, scorer in scorers.items() if scorer.get("negatives", EASY) != EASY)
    causal = sorted(name for name, scorer in scorers.items() if scorer["kind"] == "intervention")
    fuzzed = any(scorer["kind"] == "fuzzing" for scorer in scorers.values())
    broad = "; `anatomy` says how broad it is" if "anatomy" in facts["names"] else ""
    told = f"harder ones are those of {', '.join(f'`{name}`' for name in hard)}" if hard else "no scorer here has harder ones"
    return [
        (True, "Compare scores of the same `scorer`, `judge`, `negatives`, `n` and `unit` only: each of them moves a score by itself."),
        (True, "Read a score beside its `chance` and beside the `-permuted` explainer's, and trust no scorer alone."),
        (bool(scorers), f"Random silent windows are easy to tell from activating ones; {told}."),
        (True, f"No score falls when an explanation gets longer or vaguer{broad}."),
        (fuzzed, "Fuzzing gives explanations that are too broad high scores: the marked tokens lie in a window of the right kind anyway."),
        (not causal, "A latent that is better described by what it causes than by what triggers it scores low: no scorer here intervenes."),
        (bool(causal), f"What a latent causes is measured by {', '.join(causal)} alone, each at a fixed KL divergence."),
        (True, "Where `n_failed` is not 0, `score_low` and `score_high` say what the missing answers could change."),
    ]


def _of_the_rest(facts: Mapping[str, Any]) -> list[tuple[bool, str]]:
    kinds, configs = set(facts["kinds"]), set(facts["names"])
    return [
        (
            "random" in kinds,
            "Latents of untrained dictionaries (`random`) score above chance, too: compare trained ones with them.",
        ),
        (bool(facts["contexts"].get("latents")), "Scored latents are a sample: weigh each by 1 / `latents.inclusion`, as this card does."),
        (
            "stability" in configs,
            "Many latents do not come back when training has another seed: see `stability` before naming one.",
        ),
        (
            "steering" in configs,
            "Effects of steering say which of two letters a model prefers after one prompt, not what it would write.",
        ),
    ]
