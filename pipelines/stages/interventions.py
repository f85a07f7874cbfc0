"""Stage `interventions`: the effects of pushing latents, and what the pushed model writes; no rows where nothing asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from builders.contexts.contexts import Examples
from builders.errors import UserError
from builders.interventions.beginnings import TokenIds
from builders.interventions.generations import GENERATIONS, Order, generation_rows
from builders.interventions.interventions import INTERVENTIONS, intervention_rows
from builders.lake.failures import FAILURES, failure
from builders.lake.shards import Shards
from builders.lake.table import Table
from builders.progress import track
from builders.seeds import seed_of
from builders.subjects.checkpoints import context_of
from builders.text.rows import padded
from builders.text.tokens import TOKENS
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, for_each, run, shelf
from pipelines.params import InModelParams, InterventionExplainerParams, InterventionScorerParams, Params
from pipelines.parts.ahead import Job
from pipelines.parts.windows import drawn_latents, windows

if TYPE_CHECKING:
    from builders.interventions.pushing import Pusher

TOGETHER = 64  # latents in a shard


@dataclass(frozen=True)
class Target:
    """What explainers ask for at one KL divergence: *count* beginnings of each latent, of at most *latents* latents."""

    count: int
    latents: int | None


@dataclass(frozen=True)
class Asked:
    """What explainers ask for, by KL divergence in nats; what scorers ask for, by id; and for how many latents at most, by scorer."""

    targets: dict[float, Target]
    orders: dict[str, Order]
    latents: dict[str, int | None]


def main(*only: str) -> None:
    """Write the effects of pushing latents, and the texts that the pushed models write, for every dictionary or *only* the one given."""
    params = declared("interventions")
    for_each("interventions", params.by_subject, only, lambda sae_id: push(params, sae_id))


def push(params: Params, sae_id: str) -> None:
    """Write what pushing the latents of dictionary *sae_id* does, unless it is finished."""
    inputs = {"contexts": shelf("contexts", sae_id), "sae": shelf("saes", sae_id), "tokens": shelf("tokens", params.saes[sae_id].subject)}
    asked = asked_of(params)
    settings = {"seed": params.seed, "targets": [[kl, asdict(target)] for kl, target in sorted(asked.targets.items())]}
    settings |= {"orders": {key: asdict(order) for key, order in asked.orders.items()}, "latents": asked.latents}
    digests = {name: held.digest for name, held in inputs.items()}
    job = Job("interventions", (sae_id,), digests, settings, code("interventions"))
    job.fill(lambda shards: write(params, sae_id, asked, shards))


def write(params: Params, sae_id: str, asked: Asked, shards: Shards) -> bool:
    """Write INTERVENTIONS, GENERATIONS and FAILURES of dictionary *sae_id*; another try gives the same."""
    bench = Bench(sae_id, params, asked)
    failed: list[dict[str, Any]] = []
    if isinstance(params.saes[sae_id], InModelParams):
        write_groups(shards, INTERVENTIONS, bench.examples("train", bench.latents_by_target), bench.effects)
        write_groups(shards, GENERATIONS, bench.examples("test", bench.latents_by_scorer), bench.generations)
    else:
        reason = "has no direction to be pushed along: its dictionary is no part of a model"
        wanted = bench.latents_by_scorer.items()
        failed = [failure(sae_id, latent, "interventions", scorer_id, reason) for scorer_id, latents in wanted for latent in latents]
        for table in (INTERVENTIONS, GENERATIONS):
            shards.write(table, [table.empty()])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    return True


def asked_of(params: Params) -> Asked:
    """Return what explainers and scorers ask for; scorers get no more latents than the largest number that is explained."""
    explained = most_of([getattr(spec, "latents", None) for spec in params.explainers.values()])
    asking = [spec for spec in params.explainers.values() if isinstance(spec, InterventionExplainerParams)]
    targets = {}
    for kl in {spec.kl for spec in asking}:
        equal = [spec for spec in asking if spec.kl == kl]
        targets[kl] = Target(max(spec.examples for spec in equal), most_of([spec.latents for spec in equal]))
    scorers = {scorer_id: spec for scorer_id, spec in sorted(params.scorers.items()) if isinstance(spec, InterventionScorerParams)}
    orders = {scorer_id: Order(spec.kl, spec.ablate, spec.prompts, spec.tokens) for scorer_id, spec in scorers.items()}
    limits = {scorer_id: [most for most in (spec.latents, explained) if most is not None] for scorer_id, spec in scorers.items()}
    return Asked(targets, orders, {scorer_id: min(limit, default=None) for scorer_id, limit in limits.items()})


def most_of(limits: list[int | None]) -> int | None:
    """Return the largest of *limits*; None, which stands for no limit, if any of them is None."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def write_groups(shards: Shards, table: Table, examples: Iterator[Examples], rows_of: Callable[[Examples], pa.Table]) -> None:
    """Write the rows of the latents of *examples*, TOGETHER latents in a shard; finished shards are not made again."""
    for number in count():
        group = list(islice(examples, TOGETHER))
        if number and not group:
            return
        shards.write(table, (pa.concat_tables([table.empty(), *map(rows_of, latents)]) for latents in [group]), number)


class Bench:
    """A dictionary, and which of its latents are asked about; the model is loaded only if a shard is not finished."""

    def __init__(self, sae_id: str, params: Params, asked: Asked) -> None:
        self.sae_id, self.params, self.asked = sae_id, params, asked
        self.contexts, self.tokens = shelf("contexts", sae_id), shelf("tokens", params.saes[sae_id].subject)
        self.latents_by_target = {kl: self._drawn(target.latents) for kl, target in asked.targets.items()}
        self.latents_by_scorer = {scorer_id: self._drawn(most) for scorer_id, most in asked.latents.items()}

    def examples(self, split: str, wanted: Mapping[Any, set[int]]) -> Iterator[Examples]:
        """Yield the windows in *split* of every latent in *wanted*, in order of latent."""
        latents = set().union(*wanted.values())
        if latents:
            own = (examples for examples in windows(self.contexts, split) if examples.latent in latents)
            yield from track(own, f"pushing latents of {self.sae_id}", len(latents))

    def effects(self, train: Examples) -> pa.Table:
        """Return the INTERVENTIONS rows of one latent."""
        asking = [(kl, target.count) for kl, target in sorted(self.asked.targets.items()) if train.latent in self.latents_by_target[kl]]
        return pa.concat_tables([intervention_rows(self.sae_id, train, self.rows, self.pusher, most, kl) for kl, most in asking])

    def generations(self, test: Examples) -> pa.Table:
        """Return the GENERATIONS rows of one latent."""
        orders = {scorer: order for scorer, order in self.asked.orders.items() if test.latent in self.latents_by_scorer[scorer]}
        seed = seed_of(self.params.seed, "generations", self.sae_id)  # the same for all scorers
        return generation_rows(self.sae_id, orders, test, self.rows, self.pusher, self.pieces, seed)

    @cached_property
    def rows(self) -> TokenIds:
        """The token ids of all rows of `tokens` [rows, longest], padded on the right."""
        return padded(self.tokens.read(TOKENS, columns=["ids"]), "ids", 0)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token id."""
        return text_pieces(self.contexts.read(VOCABULARY))

    @cached_property
    def pusher(self) -> Pusher:
        """The model that is pushed; raise UserError where the longest row and the tokens to write are longer than it reads."""
        from builders.interventions.pushing import Pusher
        from builders.saes.encoder import Encoder
        from pipelines.opened.dictionaries import reopened
        from pipelines.opened.subjects import Subjects

        encoder = reopened(Subjects(self.params), self.sae_id, shelf("saes", self.sae_id), self.tokens)
        if not isinstance(encoder, Encoder):
            raise TypeError(f"{self.sae_id} is no dictionary in a model")
        limit = context_of(encoder.model.config)  # type: ignore[arg-type]  # a language model's config
        longest = self.rows.shape[1]
        for scorer_id, order in self.asked.orders.items():
            if limit is not None and longest + order.tokens > limit:
                problem = f"a row of {longest} tokens and {order.tokens} more are longer than the {limit} that the subject reads"
                raise UserError(f"scorers.{scorer_id}.tokens: {problem}; lower it, or tokens.length")
        return Pusher(encoder.model, encoder.mounted, encoder.device, encoder.batch)

    def _drawn(self, most: int | None) -> set[int]:
        return drawn_latents(self.contexts, self.params.seed, self.sae_id, most)


if __name__ == "__main__":
    run(main)
