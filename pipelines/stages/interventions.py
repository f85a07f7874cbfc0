"""Stage `interventions`: what latents cause and what a model writes with them pushed, where somebody asks; otherwise no rows, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from builders.contexts.contexts import Examples
from builders.errors import UserError
from builders.interventions.generations import GENERATIONS, Order, generation_rows
from builders.interventions.interventions import INTERVENTIONS, intervention_rows
from builders.lake.failures import FAILURES, failure
from builders.lake.shards import Shards
from builders.lake.table import Table
from builders.progress import track
from builders.seeds import seed_of
from builders.subjects.checkpoints import context_of
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, run, shelf
from pipelines.params import InModel, InterventionExplainer, InterventionScorer, Params
from pipelines.parts.windows import drawn_latents, windows

if TYPE_CHECKING:
    from builders.interventions.pushing import Pusher

TOGETHER = 64  # latents in a shard
Pair = tuple[Examples, Examples]  # a latent's training and test windows


@dataclass(frozen=True)
class Target:
    """What explainers that ask for one KL divergence ask for: how many beginnings, of at most how many latents."""

    count: int
    latents: int | None


@dataclass(frozen=True)
class Asked:
    """What explainers ask for by KL divergence, and scorers by id; and of how many latents each scorer at most."""

    targets: dict[float, Target]
    orders: dict[str, Order]
    latents: dict[str, int | None]


def main(name: str) -> None:
    """Write what the latents of dictionary *name* cause, and what the model writes with them pushed."""
    params = declared("interventions", name)
    contexts, sae = shelf("contexts", name), shelf("saes", name)
    asked = asked_of(params)
    settings = {"seed": params.seed, "targets": [[kl, asdict(target)] for kl, target in sorted(asked.targets.items())]}
    settings |= {"orders": {key: asdict(order) for key, order in asked.orders.items()}, "latents": asked.latents}
    shards = Shards(folder("interventions", name), {"contexts": contexts.digest, "sae": sae.digest}, settings, code("interventions"))
    bench = Bench(name, params, asked)
    failed: list[dict[str, Any]] = []
    if isinstance(params.saes[name], InModel):
        write(shards, INTERVENTIONS, bench.pairs(bench.latents_by_target), bench.effects)
        write(shards, GENERATIONS, bench.pairs(bench.latents_by_scorer), bench.generations)
    else:
        reason = "has no direction to be pushed along: its dictionary is no part of a model"
        wanted = bench.latents_by_scorer.items()
        failed = [failure(name, latent, "interventions", scorer, reason) for scorer, latents in wanted for latent in latents]
        for table in (INTERVENTIONS, GENERATIONS):
            shards.write(table, [table.empty()])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    shards.finish()


def asked_of(params: Params) -> Asked:
    """Return what explainers and scorers ask for; nobody scores a latent that nobody explains."""
    explained = most_of([getattr(spec, "latents", None) for spec in params.explainers.values()])
    asking = [spec for spec in params.explainers.values() if isinstance(spec, InterventionExplainer)]
    targets = {}
    for kl in {spec.kl for spec in asking}:
        alike = [spec for spec in asking if spec.kl == kl]
        targets[kl] = Target(max(spec.examples for spec in alike), most_of([spec.latents for spec in alike]))
    scorers = {name: spec for name, spec in sorted(params.scorers.items()) if isinstance(spec, InterventionScorer)}
    orders = {name: Order(spec.kl, spec.ablate, spec.tune, spec.prompts, spec.tokens) for name, spec in scorers.items()}
    limits = {name: [most for most in (spec.latents, explained) if most is not None] for name, spec in scorers.items()}
    return Asked(targets, orders, {name: min(some, default=None) for name, some in limits.items()})


def most_of(limits: list[int | None]) -> int | None:
    """Return the largest of *limits*; None, which is no limit, where one of them is."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def write(shards: Shards, table: Table, pairs: Iterator[Pair], rows_of: Callable[[Pair], pa.Table]) -> None:
    """Write the rows of the latents of *pairs*, so many latents a shard; shards that are done cost nothing."""
    for number in count():
        group = list(islice(pairs, TOGETHER))
        if number and not group:
            return
        shards.write(table, (pa.concat_tables([table.empty(), *map(rows_of, some)]) for some in [group]), number)


class Bench:
    """Dictionary *name*, with who asks about which of its latents; the model is loaded only where a shard is not done."""

    def __init__(self, name: str, params: Params, asked: Asked) -> None:
        self.name, self.params, self.asked = name, params, asked
        self.contexts = shelf("contexts", name)
        self.latents_by_target = {kl: self._drawn(target.latents) for kl, target in asked.targets.items()}
        self.latents_by_scorer = {scorer: self._drawn(most) for scorer, most in asked.latents.items()}

    def pairs(self, wanted: Mapping[Any, set[int]]) -> Iterator[Pair]:
        """Yield the windows of every latent that somebody asks about, in order."""
        latents = set().union(*wanted.values())
        if latents:
            both = zip(windows(self.contexts, "train"), windows(self.contexts, "test"), strict=True)
            yield from track((pair for pair in both if pair[0].latent in latents), f"pushing latents of {self.name}", len(latents))

    def effects(self, pair: Pair) -> pa.Table:
        """Return the INTERVENTIONS rows of one latent."""
        train, _ = pair
        asking = [(kl, target.count) for kl, target in sorted(self.asked.targets.items()) if train.latent in self.latents_by_target[kl]]
        return pa.concat_tables([intervention_rows(self.name, train, self.pusher, most, kl) for kl, most in asking])

    def generations(self, pair: Pair) -> pa.Table:
        """Return the GENERATIONS rows of one latent."""
        train, test = pair
        orders = {name: order for name, order in self.asked.orders.items() if train.latent in self.latents_by_scorer[name]}
        seed = seed_of(self.params.seed, "generations", self.name)  # the same for all scorers
        return generation_rows(self.name, orders, train, test, self.pusher, self.pieces, seed)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token id."""
        return text_pieces(self.contexts.read(VOCABULARY))

    @cached_property
    def pusher(self) -> Pusher:
        """The model, to be pushed; raise UserError where what it is to read is too long for it."""
        from builders.interventions.pushing import Pusher
        from builders.saes.encoder import Encoder
        from pipelines.opened.dictionaries import reopened

        encoder = reopened(self.params, self.name, shelf("saes", self.name), shelf("tokens", self.params.saes[self.name].subject))
        if not isinstance(encoder, Encoder):
            raise TypeError(f"{self.name} is no dictionary in a model")
        limit = context_of(encoder.model.config)  # type: ignore[arg-type]  # it is that of a language model
        window = self.params.tokens.window
        for name, order in self.asked.orders.items():
            if limit is not None and window + order.tokens > limit:
                raise UserError(f"scorers.{name}.tokens: {window} + {order.tokens} tokens are more than the {limit} that the subject reads")
        return Pusher(encoder.model, encoder.mounted, encoder.device, encoder.batch)

    def _drawn(self, most: int | None) -> set[int]:
        return drawn_latents(self.contexts, self.params.seed, self.name, most)


if __name__ == "__main__":
    run(main)
