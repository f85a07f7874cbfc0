"""The `browse` config: one flat row for each latent, with what a reader wants to know of it before opening anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from builders.contexts.contexts import CONTEXTS
from builders.engines.prompts import free_marks, marked_text, quote
from builders.explainers.explanations import EXPLANATIONS, PERMUTED
from builders.lake.table import Column, Reference, Table
from builders.releases.release import Release
from builders.saes.latents import LATENTS
from builders.scorers.judgements import SCORES
from builders.similarity.partners import MATCHES
from builders.similarity.stability import STABILITY
from builders.text.vocabulary import text_of

SHOWN, SHORT = 3, 32  # windows of a latent, and at most so many tokens of each
ERRORS = 2  # standard errors of the difference by which an explanation beats its permuted twin
NOT_READ = "null where it has no explanation or no score"
BROWSE = Table(
    name="browse",
    row="a latent with its best explanation, its score, and where it fires: the config to open first",
    key=("sae", "latent"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column(
            "explanation",
            "string",
            "the explanation with the largest score (so its score flatters it where there are several), permuted ones left out; without "
            "scores that of the first explainer by name; null where there is none",
            nullable=True,
        ),
        Column("score", "float64", f"its score by `scorer`, in `unit`; {NOT_READ}", nullable=True),
        Column("score_se", "float64", "standard error of the score", nullable=True, low=0),
        Column("chance", "float64", "the score that an explanation gets which says nothing", nullable=True),
        Column(
            "permuted_score", "float64", "the score of another latent's explanation by the same explainer on this latent", nullable=True
        ),
        Column(
            "beats_permuted",
            "bool",
            f"whether score − permuted_score is above {ERRORS} standard errors of the difference (the root of both squared errors' sum); "
            "null where one of the four numbers is",
            nullable=True,
        ),
        Column("top_tokens", "string", "the tokens with the largest shares of its summed activation, in quotes"),
        Column(
            "contexts",
            "list<string>",
            f"its {SHOWN} strongest windows of those that no explainer saw (`contexts`, split test), at most {SHORT} tokens of each; the "
            "tokens on which it fires stand between << and >>, or other marks where the text holds these",
        ),
        Column("density", "float64", "share of the corpus' tokens on which it fires", low=0, high=1),
        Column("status", "string", "alive, rare or dead, as in `latents`", categorical=True),
        Column("subject", "string", "the language model", categorical=True),
        Column("hookpoint", "string", "where the dictionary reads; null if it reads tokens", nullable=True, categorical=True),
        Column("kind", "string", "kind of the dictionary, as in `saes`", categorical=True),
        Column("explainer", "string", "who wrote the explanation", nullable=True, categorical=True),
        Column(
            "scorer",
            "string",
            "the release's main scorer (`release.scorer` of its params, or the first by name)",
            nullable=True,
            categorical=True,
        ),
        Column("judge", "string", "the judge or embedder that answered", nullable=True, categorical=True),
        Column("unit", "string", "what the score is, as in `scores`", nullable=True, categorical=True),
        Column(
            "stability",
            "float32",
            "mean cosine of its decoder row and the nearest ones of SAEs that differ by the seed only (`value` of `stability`)",
            nullable=True,
            low=-1,
            high=1,
        ),
        Column("partner_sae", "string", "the other dictionary whose decoder row is nearest to its own", nullable=True, categorical=True),
        Column("partner_latent", "int32", "the latent of that row", nullable=True, low=0),
        Column("partner_cosine", "float32", "the cosine of both rows", nullable=True, low=-1, high=1),
    ),
    row_group=2_000,
    references=(
        Reference(("sae", "latent"), "latents", ("sae", "latent")),
        Reference(("subject",), "subjects", ("subject",)),
        Reference(("sae", "latent", "explainer"), "explanations", ("sae", "latent", "explainer")),
        Reference(("sae", "latent", "explainer", "scorer", "judge"), "scores", ("sae", "latent", "explainer", "scorer", "judge")),
        Reference(("partner_sae", "partner_latent"), "latents", ("sae", "latent")),
    ),
)
Filter = tuple[str, str, Any]
READ = {
    LATENTS: ("latent", "status", "density", "top_tokens"),
    EXPLANATIONS: ("latent", "explainer", "status", "text"),
    SCORES: ("latent", "explainer", "score", "score_se", "chance", "unit", "scorer", "judge"),
    STABILITY: ("latent", "value"),
    MATCHES: ("latent", "other", "partner", "value"),
    CONTEXTS: ("latent", "tokens", "activations"),
}
STRONGEST: tuple[Filter, ...] = (("split", "==", "test"), ("kind", "==", "activating"), ("example", "<", SHOWN))
DECODER: Filter = ("measure", "==", "decoder")


def browse_rows(release: Release, sae: Mapping[str, Any], scorer: str | None, pieces: Sequence[bytes]) -> pa.Table:
    """Return the BROWSE rows of one dictionary of a *release*, whose row of SAES is *sae*; *scorer* is the main scorer, if there is one.

    *pieces* are the bytes of each token id of its subject.
    """
    own: Callable[..., pd.DataFrame] = partial(_rows, release, sae["sae"])
    found = own(LATENTS)
    for some in (
        best_explanations(own(EXPLANATIONS), own(SCORES, ("scorer", "==", scorer or ""))),
        own(STABILITY, DECODER).rename(columns={"value": "stability"}),
        nearest(own(MATCHES, DECODER)),
        passages(own(CONTEXTS, *STRONGEST), pieces),
    ):
        found = found.merge(some, on="latent", how="left")
    facts = {name: sae[name] for name in ("sae", "subject", "hookpoint", "kind")}
    facts["top_tokens"] = [", ".join(map(quote, tokens)) for tokens in found["top_tokens"]]
    facts["contexts"] = [texts if isinstance(texts, list) else [] for texts in found["contexts"]]
    return BROWSE.build({c.name: pa.array(found[c.name], from_pandas=True) for c in BROWSE.columns if c.name not in facts} | facts)


def _rows(release: Release, sae: str, table: Table, *filters: Filter) -> pd.DataFrame:
    """Return what is READ of the rows of one dictionary that pass *filters*; a table that the release does not have holds no rows."""
    wanted = [("sae", "==", sae), *filters]
    found = release.read(table.name, READ[table], wanted) if table.name in release.tables else table.empty().select(READ[table])
    frame: pd.DataFrame = found.to_pandas()
    return frame


def best_explanations(explanations: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return for each latent the explanation with the largest of *scores*, beside the score of its permuted twin.

    Of equal scores, and without any, that of the first explainer by name is taken.
    """
    ok = explanations[(explanations["status"] == "ok") & ~_permuted(explanations)]
    told = ok.drop(columns="status").rename(columns={"text": "explanation"}).merge(scores, on=["latent", "explainer"], how="left")
    best = told.sort_values(["latent", "score", "explainer"], ascending=[True, False, True], na_position="last").drop_duplicates("latent")
    twins = scores[_permuted(scores)][["latent", "explainer", "score", "score_se"]]
    twins = twins.assign(explainer=twins["explainer"].astype(str).str.removesuffix(PERMUTED))
    both = best.merge(twins, on=["latent", "explainer"], how="left", suffixes=("", "_permuted"))
    numbers = both[["score", "score_permuted", "score_se", "score_se_permuted"]].astype(float)
    margin = numbers["score"] - numbers["score_permuted"] > ERRORS * np.hypot(numbers["score_se"], numbers["score_se_permuted"])
    beats = margin.astype(object).where(numbers.notna().all(axis=1), None)
    return both.rename(columns={"score_permuted": "permuted_score"}).drop(columns="score_se_permuted").assign(beats_permuted=beats)


def _permuted(rows: pd.DataFrame) -> pd.Series[bool]:
    return rows["explainer"].astype(str).str.endswith(PERMUTED)


def nearest(matches: pd.DataFrame) -> pd.DataFrame:
    """Return the nearest partner of each latent over all other dictionaries; of equally near ones, that of the first by name."""
    names = {"other": "partner_sae", "partner": "partner_latent", "value": "partner_cosine"}
    best = matches.sort_values(["latent", "value", "other"], ascending=[True, False, True]).drop_duplicates("latent")
    return best.rename(columns=names)


def passages(windows: pd.DataFrame, pieces: Sequence[bytes]) -> pd.DataFrame:
    """Return the texts of the *windows* of each latent, in their order, as the list `contexts`."""
    found: dict[int, list[str]] = {}
    for latent, tokens, values in zip(windows["latent"], windows["tokens"], windows["activations"], strict=True):
        found.setdefault(latent, []).append(passage(tokens, values, pieces))
    return pd.DataFrame({"latent": np.array(list(found), dtype=np.int32), "contexts": list(found.values())})


def passage(tokens: npt.NDArray[np.int32], values: npt.NDArray[np.float32], pieces: Sequence[bytes]) -> str:
    """Return at most SHORT tokens of a window around the strongest one, each run of tokens on which the latent fires between marks."""
    peak = int(values.argmax())
    start = min(max(peak - SHORT * 3 // 4, 0), max(len(tokens) - SHORT, 0))  # text before a peak tells more than text after
    cut = slice(start, start + SHORT)
    return marked_text(tokens[cut], values[cut] > 0, pieces, free_marks([text_of(tokens[cut].tolist(), pieces)]))
