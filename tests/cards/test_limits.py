"""The limits that a card states are those of its own release."""

from __future__ import annotations

from typing import Any

from cards.limits import limits

FACTS: dict[str, Any] = {
    "tokens": {"window": 32},
    "contexts": {"sampler": "quantiles", "train": 40, "latents": None},
    "scorers": {"detection": {"kind": "detection", "negatives": "random"}},
    "direct_scorers": {},
    "explainers": {"lexical": {"kind": "lexical"}},
    "kinds": ["trained"],
    "names": ["scores"],
}


def said(**changes: Any) -> str:
    """Return the limits of a release that differs from FACTS by *changes*."""
    return "\n".join(limits({**FACTS, **changes}))


def test_what_always_holds() -> None:
    """The window's length, chance, baseline and the reasons for missing explanations are told of every release."""
    words = said()

    assert "more than the 32 tokens of a window" in words
    assert "beside its `chance` and beside the `-permuted` explainer's" in words
    assert "`failures`" in words


def test_how_windows_were_drawn() -> None:
    """Windows from the top make explanations too narrow, others too broad; fewer than the paper's 40 are told."""
    assert "too broad." in said()
    assert "activating windows of a latent" not in said()
    few = said(contexts={"sampler": "top", "train": 10, "latents": {"sample": 5}})
    assert "the strongest windows only: explanations tend to be too narrow" in few
    assert "Explainers saw 10 activating windows of a latent; the paper's saw 40." in few
    assert "weigh each by 1 / `latents.inclusion`" in few


def test_which_scorers_there_are() -> None:
    """Harder negatives and scorers that intervene are named, and it is said where there are none."""
    none = said()
    assert "no scorer here has harder ones" in none
    assert "no scorer here intervenes" in none
    assert "Fuzzing" not in none

    hard = {"kind": "fuzzing", "negatives": "decoy"}
    some = said(scorers={"fuzzing-decoy": hard, "cause": {"kind": "intervention"}})
    assert "harder ones are those of `fuzzing-decoy`" in some
    assert "measured by cause alone, each at a fixed KL divergence" in some
    assert "Fuzzing gives explanations that are too broad high scores" in some


def test_what_the_release_holds() -> None:
    """Configs and kinds of dictionaries bring limits of their own; a release without them says nothing of them."""
    words = ("untrained dictionaries", "`stability`", "two letters", "`anatomy`")
    all_of_them = said(kinds=["random"], names=["stability", "steering", "anatomy"])

    assert all(word in all_of_them for word in words)
    assert not any(word in said() for word in words)


def test_who_explained() -> None:
    """Lexical explainers know no meaning, and language models may be small; imported explanations are neither."""
    assert "know tokens and no meanings" in said()
    asked = said(explainers={"default": {"kind": "default"}})
    assert "8 billion parameters" in asked
    assert "no meanings" not in asked
    assert "8 billion" not in said(explainers={"old": {"kind": "import"}})
