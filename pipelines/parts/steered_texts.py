"""What a steered subject writes after open questions, and how a language model rates it, where params name one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.engines.requests import Chat, Failure, Outcome
from builders.lake.shards import Shards
from builders.seeds import seed_of, uniforms
from builders.steering.asking import Prompt, open_prompts, prompts
from builders.steering.behaviours import Pair
from builders.steering.effects import Setting
from builders.steering.ratings import STEERING_TEXTS, Written, conversation, prompt_sha256, rated, text_record, text_rows
from builders.steering.steerer import Steerer
from builders.steering.vectors import alike
from builders.steering.ways import BOTH, LATE, NONE, RESIDUAL, STATE, Push
from builders.subjects.checkpoints import context_of
from builders.subjects.sampling import stops_of
from pipelines.opened.engines import account, asked, open_engine, require_share
from pipelines.params import ModelJudgeParams, Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TEXT, NO_NUMBERS = "no text", "probabilities are no numbers"


@dataclass(frozen=True)
class Asker:
    """How a subject is asked: its tokenizer, its template, what stands before the letter of an answer, and whether BOS comes first."""

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
        """Return the text of token ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def steered_texts(
    params: Params, setting: Setting, steerer: Steerer, asker: Asker, effects: pa.Table, questions: list[str], rater: Rater | None
) -> pa.Table:
    """Return the STEERING_TEXTS rows of open *questions*: texts steered at the chosen layers, rated where a *rater* is given."""
    wanted = params.steering.open
    pushes = chosen(effects, wanted.multipliers)
    texts = asker.open(questions)
    seed = seed_of(params.seed, "steering", "open", setting.behaviour)
    draws = uniforms(seed, np.arange(len(texts))[:, None], np.arange(wanted.tokens))  # the same for every push
    limit = context_of(steerer.model.config)  # type: ignore[arg-type]  # a language model's config
    records = []
    for places in alike(texts, max(1, steerer.batch // max(1, len(pushes)))) if pushes else ():
        rows = [(place, push) for place in places for push in pushes]
        ids, numbers = [texts[place] for place, _ in rows], draws[[place for place, _ in rows]]
        long = limit is not None and len(ids[0]) + wanted.tokens > limit
        written = [None] * len(rows) if long else steerer.writes(ids, [push for _, push in rows], numbers, wanted.following)
        why = f"with what is to be written longer than the {limit} tokens that the subject reads" if long else NO_NUMBERS
        for (place, push), tokens in zip(rows, written, strict=True):
            text, ended = asker.text(tokens or []), bool(tokens) and tokens[-1] in stops_of(steerer.model)  # type: ignore[index]
            record = text_record(setting, push, Written(place, questions[place], text, ended, wanted.following))
            records.append(record if tokens is not None else {**record, "rating_status": NO_TEXT, "reason": why})
    return text_rows(rater.rated(setting.behaviour, records) if rater else records)


def chosen(effects: pa.Table, multipliers: Sequence[float]) -> list[Push | None]:
    """Return a push for each method, site and phase at its chosen layer and each of *multipliers*; 0 gives one None for no push.

    Parts of the state have no texts of their own.
    """
    rows = effects.select(["method", "site", "layer", "phase", "multiplier", "chosen"]).to_pylist()
    whole = [row for row in rows if row["chosen"] and row["multiplier"] and row["site"] in (RESIDUAL, STATE, BOTH)]
    places = sorted({(row["method"], row["site"], row["layer"], row["phase"]) for row in whole})
    pushed = [
        Push(method, site, layer, float(multiplier), LATE if phase == NONE else phase)
        for method, site, layer, phase in places
        for multiplier in sorted(multipliers)
        if multiplier
    ]
    return [*([None] if 0 in multipliers else []), *pushed]


def judge_settings(params: Params) -> dict[str, Any] | None:
    """Return everything that ratings depend on, in params and in the prompt; None without a judge."""
    if params.steering.open.judge is None:
        return None
    judge = judge_of(params)
    own = judge.model_dump(exclude={"calibration"})
    return {**own, "engine_settings": params.engines[judge.engine].model_dump(), "prompt": prompt_sha256()}


def judge_of(params: Params) -> ModelJudgeParams:
    """Return the judge that rates texts; params are checked to name a language model."""
    judge = params.judges[str(params.steering.open.judge)]
    if not isinstance(judge, ModelJudgeParams):
        raise TypeError(f"{params.steering.open.judge} is no language model")
    return judge


class Rater:
    """The judge of params, ready to rate; raise UserError where its engine cannot be reached."""

    def __init__(self, params: Params) -> None:
        self.params, self.judge, self.judge_id = params, judge_of(params), str(params.steering.open.judge)
        self.engine = open_engine(params.engines[self.judge.engine])

    def rated(self, behaviour_id: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return *records* with their ratings; raise UserError where too many requests fail."""
        texts = [record for record in records if record["rating_status"] != NO_TEXT]
        outcomes = asked(self.engine, self._requests(behaviour_id, texts), f"rating texts about {behaviour_id}")
        told = [rated(record, self.judge_id, self.engine, key, outcome) for record, (key, outcome) in zip(texts, outcomes, strict=True)]
        lost = [vars(some) if isinstance(some, Failure) else {"status": "ok"} for _, some in outcomes]
        if texts:
            require_share(f"ratings of texts about {behaviour_id}", lost, self.judge.max_failed_share, "texts")
        return [*told, *(record for record in records if record["rating_status"] == NO_TEXT)]

    def account(self, shards: Shards) -> bool:
        """Write what all ratings of a subject cost; return whether every request has an answer.

        Answers are in the cache, so nothing is asked again.
        """
        outcomes: dict[str, Outcome] = {}
        settled = True
        for number, behaviour_id in enumerate(sorted(self.params.behaviours)):
            records = pq.read_table(shards.path(STEERING_TEXTS, number)).to_pylist()
            answered = [record for record in records if record["prompt_tokens"] is not None]
            settled &= len(answered) == sum(record["rating_status"] != NO_TEXT for record in records)
            outcomes |= dict(asked(self.engine, self._requests(behaviour_id, answered), f"ratings of {behaviour_id}"))
        account(shards, outcomes, self.params.engines[self.judge.engine])
        return settled

    def _requests(self, behaviour_id: str, records: Sequence[dict[str, Any]]) -> list[Chat]:
        describes = self.params.behaviours[behaviour_id].describes
        return [conversation(describes, record["prompt"], record["text"], self.judge.max_tokens) for record in records]
