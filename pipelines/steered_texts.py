"""What a steered subject writes after open questions, and how a language model rates it, where params name one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.behaviours import Pair, Prompt, open_prompts, prompts
from builders.contrasts import alike
from builders.engines.requests import Chat, Outcome
from builders.ratings import STEERING_TEXTS, Written, conversation, rated, text_record, text_rows
from builders.sampling import stops_of
from builders.seeds import seed_of, uniforms
from builders.shards import Shards
from builders.steered import Push, Steerer
from builders.steering import Setting
from pipelines.engines import account, asked, open_engine
from pipelines.params import ModelJudge, Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RATING_TOKENS = 400  # enough for a reason and a rating


@dataclass(frozen=True)
class Asker:
    """How a subject is asked: its tokenizer, its template, what opens the letter of an answer, and whether BOS comes first."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    opening: str
    bos: bool

    def prompts(self, pairs: Sequence[Pair]) -> list[Prompt]:
        """Return prompts that end just before a letter."""
        return prompts(pairs, self.template + self.opening, self.tokenizer, self.bos)

    def open(self, questions: Sequence[str]) -> list[list[int]]:
        """Return token ids of open questions, ending where an answer begins."""
        return open_prompts(questions, self.template, self.tokenizer, self.bos)

    def text(self, ids: Sequence[int]) -> str:
        """Return what tokens say."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def steered_texts(params: Params, setting: Setting, steerer: Steerer, asker: Asker, effects: pa.Table, questions: list[str]) -> pa.Table:
    """Return the STEERING_TEXTS rows of open *questions*, written at the layers that were chosen, and rated if a judge is named."""
    wanted = params.steering.open
    pushes = chosen(effects, wanted.multipliers)
    texts = asker.open(questions)
    seed = seed_of(params.seed, "steering", "open", setting.behaviour)
    draws = uniforms(seed, np.arange(len(texts))[:, None], np.arange(wanted.tokens))  # the same for every push
    ends = stops_of(steerer.model)
    records = []
    for places in alike(texts, max(1, steerer.batch // max(1, len(pushes)))):
        rows = [(place, push) for place in places for push in pushes]
        ids, numbers = [texts[place] for place, _ in rows], draws[[place for place, _ in rows]]
        written = steerer.writes(ids, [push for _, push in rows], numbers, wanted.following)
        for (place, push), tokens in zip(rows, written, strict=True):
            told = Written(place, questions[place], asker.text(tokens), bool(tokens) and tokens[-1] in ends, wanted.following)
            records.append(text_record(setting, push, told))
    return text_rows(rate(params, setting.behaviour, records))


def chosen(effects: pa.Table, multipliers: Sequence[float]) -> list[Push | None]:
    """Return a push for each method and site at its chosen layer, by each of *multipliers*; 0 is no push, once."""
    rows = effects.select(["method", "site", "layer", "multiplier", "chosen"]).to_pylist()
    places = sorted({(row["method"], row["site"], row["layer"]) for row in rows if row["chosen"] and row["multiplier"]})
    pushed = [Push(*place, float(multiplier)) for place in places for multiplier in sorted(multipliers) if multiplier]
    return [*([None] if 0 in multipliers else []), *pushed]


def requests(params: Params, behaviour: str, records: Sequence[dict[str, Any]]) -> list[Chat]:
    """Return what the judge is asked of each text."""
    describes = params.behaviours[behaviour].describes
    return [conversation(describes, record["prompt"], record["text"], RATING_TOKENS) for record in records]


def rate(params: Params, behaviour: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *records* with the ratings of the judge that params name; as they are where they name none."""
    judge = params.steering.open.judge
    if judge is None or not records:
        return records
    engine = open_engine(params.engines[judge_of(params, judge).engine])
    outcomes = asked(engine, requests(params, behaviour, records), f"rating texts about {behaviour}")
    return [rated(record, judge, engine, key, outcome) for record, (key, outcome) in zip(records, outcomes, strict=True)]


def account_ratings(shards: Shards, params: Params) -> None:
    """Write what all ratings of a subject cost; behaviours that were done before are asked of the cache."""
    judge = params.steering.open.judge
    if judge is None:
        return
    engine_spec = params.engines[judge_of(params, judge).engine]
    engine, outcomes = open_engine(engine_spec), dict[str, Outcome]()
    for number, behaviour in enumerate(sorted(params.behaviours)):
        records = pq.read_table(shards.path(STEERING_TEXTS, number)).to_pylist()
        outcomes |= dict(asked(engine, requests(params, behaviour, records), f"ratings of {behaviour}"))
    account(shards, outcomes, engine_spec)


def judge_of(params: Params, name: str) -> ModelJudge:
    """Return a judge that is a language model, as params were checked to name."""
    judge = params.judges[name]
    if not isinstance(judge, ModelJudge):
        raise TypeError(f"{name} is no language model")
    return judge
