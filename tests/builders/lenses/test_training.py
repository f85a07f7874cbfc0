"""The training of a tuned lens, against a plain loop of torch, and cut off in the middle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from recurrent import LAYERS, VOCABULARY, WIDTH, tiny
from rows import rows_of
from torch import nn
from torch.nn import functional as F

from builders.lenses.lens import LogitLens, chunks
from builders.lenses.recipe import Recipe, Split, split
from builders.lenses.training import Training, train
from builders.subjects.anatomy import anatomy_of
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from builders.lenses.translators import TunedLens

pytestmark = pytest.mark.numeric

RECIPE = Recipe(steps=12, rows_per_step=4, batch_rows=3, check_every=2, check_rows=4, lr=0.3)
optimisers = pytest.mark.parametrize("optimiser", ["sgd", "adamw"])


def tokens(rows: int = 24, length: int = 8) -> pa.Table:
    """Return rows of random ids that begin with a special token, each of a document of its own."""
    ids = torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0)).tolist()
    return rows_of(
        TOKENS, *({"row": n, "document": n, "ids": [0, *row], "special": [True] + [False] * length} for n, row in enumerate(ids))
    )


def started(recipe: Recipe = RECIPE, name: str = "llama", rows: Split | None = None, seed: int = 0) -> Training:
    """Return a training of a tiny model's lens."""
    model = tiny(name)
    return Training(model, anatomy_of(model), rows or split(tokens(), recipe, "m", 0), recipe, "m", seed)


def reference(training: Training) -> TunedLens:
    """Return the lens of a loop that trains a Linear of torch for each layer on its own."""
    recipe, anatomy = training.recipe, training.anatomy
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    optimizers = []
    for linear in layers:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        if recipe.optimiser == "sgd":
            optimizers.append(torch.optim.SGD(linear.parameters(), recipe.first_lr * 0.1, 0.9, nesterov=True, weight_decay=1e-3))
        else:
            optimizers.append(torch.optim.AdamW(linear.parameters(), recipe.first_lr, (0.9, 0.999), weight_decay=1e-3, amsgrad=True))
    for step in range(recipe.steps):
        (chunk,) = chunks(training.model, anatomy, training.rows_of_step(step), "cpu")
        for layer, (linear, optimizer) in enumerate(zip(layers, optimizers, strict=True)):
            read = anatomy.logits(chunk.hidden[layer] + linear(chunk.hidden[layer])).log_softmax(-1)
            optimizer.zero_grad()
            F.kl_div(read, chunk.final, log_target=True, reduction="batchmean").backward()
            nn.utils.clip_grad_norm_(linear.parameters(), recipe.clip)
            optimizer.param_groups[0]["lr"] *= 1 - step / recipe.steps
            optimizer.step()
            optimizer.param_groups[0]["lr"] /= 1 - step / recipe.steps
    weight, bias = (torch.stack([getattr(linear, name).detach() for linear in layers]) for name in ("weight", "bias"))
    return replace(training.lens, weight=weight, bias=bias)


@optimisers
@pytest.mark.parametrize("bound", [0.05, 100.0])
def test_steps_are_those_of_a_plain_loop(optimiser: str, bound: float) -> None:
    """All layers at once, in batches and with gradients by hand, learn what each layer learns alone from torch's own loss."""
    training = started(replace(RECIPE, optimiser=optimiser, clip=bound, steps=6, lr=None if optimiser == "adamw" else 0.3))
    for _ in range(6):
        training.step()
    expected = reference(training)
    assert training.lens.weight.abs().max() > 1e-3
    torch.testing.assert_close(training.lens.weight, expected.weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(training.lens.bias, expected.bias, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mamba2", "rwkv"])
def test_training_helps_at_every_layer(name: str) -> None:
    """The first rows are the logit lens's divergence on the held-out rows, and every layer ends below it."""
    training = started(name=name)
    lens, rows = train(training)
    found = rows.to_pylist()
    (chunk,) = chunks(training.model, training.anatomy, training.rows.checking, "cpu")
    for layer in range(LAYERS):
        own = [row for row in found if row["layer"] == layer]
        logits = training.anatomy.logits(LogitLens().carried(layer, chunk.hidden[layer])).log_softmax(-1)
        assert own[0]["held_out_kl"] == pytest.approx(
            float(F.kl_div(logits, chunk.final, log_target=True, reduction="batchmean")), rel=1e-3
        )
        assert min(row["held_out_kl"] for row in own) < 0.95 * own[0]["held_out_kl"]
    assert {row["held_out_tokens"] for row in found} == {4 * 8}
    assert [row["tokens"] for row in found if row["layer"] == 0] == [2 * 4 * 8 * check for check in range(7)]
    assert [row["lr"] for row in found if row["layer"] == 0] == pytest.approx([0.03 * (1 - check / 6) for check in range(7)])
    assert lens.weight.shape == (LAYERS, WIDTH, WIDTH)


def test_each_layer_keeps_its_best_translator() -> None:
    """The lens that is returned has, at each layer, the lowest divergence of all checks, wherever the run ended."""
    training = started(replace(RECIPE, lr=30.0, weight_decay=0.0))
    lens, rows = train(training)
    best = {row["layer"]: row["held_out_kl"] for row in rows.to_pylist() if row["kept"]}
    training.lens.weight.copy_(lens.weight)
    training.lens.bias.copy_(lens.bias)
    training.check()
    assert [check["held_out_kl"] for check in training.checks[-LAYERS:]] == pytest.approx([best[layer] for layer in range(LAYERS)])


@optimisers
@pytest.mark.parametrize("steps", [2, 5])
def test_a_run_that_was_cut_off_ends_the_same(tmp_path: Path, optimiser: str, steps: int) -> None:
    """A run that goes on from its file, a few steps after which it was cut off, ends with the same bits and the same rows."""
    recipe, kept = replace(RECIPE, optimiser=optimiser, steps=8), tmp_path / "run" / "state.pt"
    whole, rows = train(started(recipe))
    cut = started(recipe)
    cut.check()
    for step in range(1, steps + 1):
        cut.step()
        if step % 2 == 0:
            cut.check()
            cut.save(kept)
    resumed = started(recipe)
    assert resumed.resume(kept)
    assert resumed.done == steps - steps % 2
    lens, again = train(started(recipe), kept)
    assert torch.equal(lens.weight, whole.weight)
    assert torch.equal(lens.bias, whole.bias)
    assert again.equals(rows)
    assert sorted(path.name for path in kept.parent.iterdir()) == ["state.pt"]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    """A run whose file says that it is over returns what it ended with."""
    first, rows = train(started(), tmp_path / "state.pt")
    training = started()
    lens, again = train(training, tmp_path / "state.pt")
    assert torch.equal(lens.weight, first.weight)
    assert again.equals(rows)
    assert not training.slopes.weight.any()


def test_a_file_of_another_run_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    """Another recipe, other rows, another seed, damaged bytes and no file at all begin anew."""
    kept = tmp_path / "state.pt"
    training = started()
    assert not training.resume(kept)
    training.check()
    training.save(kept)
    fewer = split(tokens(20), RECIPE, "m", 0)
    others = started(replace(RECIPE, lr=0.2)), started(rows=fewer), started(seed=1)
    assert [other.resume(kept) for other in (started(), *others)] == [True, False, False, False]
    kept.write_bytes(kept.read_bytes()[:-100])
    assert not started().resume(kept)


def test_a_run_that_gains_nothing_stops() -> None:
    """Without a learning rate the lens stays as it is, and the run ends after as many checks as its patience."""
    training = started(replace(RECIPE, lr=0.0, patience=3))
    _, rows = train(training)
    assert training.done == 3 * 2
    assert [row["kept"] for row in rows.to_pylist()] == [True] * LAYERS + [False] * 3 * LAYERS


def test_a_lens_that_overflows_is_not_kept() -> None:
    """Where steps are so large that numbers overflow, their rows say null, and the lens is that of the best step before."""
    lens, rows = train(started(replace(RECIPE, optimiser="adamw", lr=1e30)))
    assert not lens.weight.any()
    assert [row["held_out_kl"] is None for row in rows.to_pylist()][: 2 * LAYERS] == [False] * LAYERS + [True] * LAYERS


def test_a_pass_reads_each_row_at_most_once() -> None:
    """The steps of a pass share no row, the next pass has another order, and the order of the table makes no difference."""
    training = started()
    steps = [training.rows_of_step(step)["row"].to_pylist() for step in range(10)]
    assert len({row for step in steps[:5] for row in step}) == 20
    assert {row for step in steps[5:] for row in step} == {row for step in steps[:5] for row in step}
    assert steps[:5] != steps[5:]
    rows = training.rows
    flipped = Split(rows.learning.take(list(range(19, -1, -1))), rows.checking)
    assert [started(rows=flipped).rows_of_step(step)["row"].to_pylist() for step in range(10)] == steps
