"""What a latent causes: how far its direction is pushed, and which tokens rise."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from coders import noise, random_coder, random_transcoder
from contexts import windows_of
from torch import nn

from builders.interventions.beginnings import beginnings
from builders.interventions.interventions import INTERVENTIONS, RAISED, Push, Tuned, intervention_rows
from builders.interventions.pushing import Pusher
from builders.saes.coder import Mounted, TopK
from builders.subjects.hookpoints import module_at

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from builders.contexts.contexts import Examples
    from builders.saes.coder import SparseCoder

pytestmark = pytest.mark.numeric

Prompt = npt.NDArray[np.int32]
WIDTH, SIZE = 24, 32
TARGETS = [0.1, 0.33, 1.0, 3.0]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    """Return the tiny Llama with a louder head, so that its next tokens are as unevenly likely as those of a trained one."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    loaded.eval().requires_grad_(False)
    loaded.lm_head.weight.mul_(40)
    made: PreTrainedModel = loaded
    return made


@pytest.fixture(scope="module")
def coder() -> SparseCoder:
    """Return a random SAE whose latent 3 writes nothing."""
    made = random_coder(1, WIDTH, SIZE, TopK(4))
    made.w_dec[3] = 0
    return made


@pytest.fixture(scope="module")
def pusher(model: PreTrainedModel, coder: SparseCoder) -> Pusher:
    """Return the model with the SAE at its middle block."""
    return Pusher(model, Mounted(coder, "layers.1", "layers.1"), "cpu")


def prompts(*lengths: int, seed: int = 0) -> list[Prompt]:
    """Return prompts of these lengths."""
    draw = np.random.default_rng(seed)
    return [draw.integers(2, 300, length).astype(np.int32) for length in lengths]


def by_hand(model: nn.Module, hookpoint: str, prompt: Prompt, push: Tensor) -> Tensor:
    """Return the probabilities of what follows *prompt* [vocabulary] when *push* is added at its last token."""

    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        written = (output[0] if isinstance(output, tuple) else output).clone()
        written[0, -1] += push
        return (written, *output[1:]) if isinstance(output, tuple) else written

    handle = module_at(model, hookpoint).register_forward_hook(add)
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt.tolist()]), use_cache=False).logits
    finally:
        handle.remove()
    exponents = (logits[0, -1].double() - logits[0, -1].double().max()).exp()
    return exponents / exponents.sum()


def divergence(clean: Tensor, pushed: Tensor) -> float:
    """Return Σ p log(p / q) in nats."""
    return sum(p * math.log(p / q) for p, q in zip(clean.tolist(), pushed.tolist(), strict=True) if p > 0)


PROMPTS = prompts(3, 7, 1, 12)


def after(pusher: Pusher, latent: int, strength: float, prompts: list[Prompt] = PROMPTS) -> Tensor:
    """Return the log-probabilities of what follows each prompt [prompts, vocabulary], pushed at its last token."""
    texts = [prompt.tolist() for prompt in prompts]
    return pusher.logprobs(texts, [len(text) - 1 for text in texts], Push(pusher.direction(latent), strength) if strength else None)


def found_for(pusher: Pusher, latent: int, target: float, prompts: list[Prompt] = PROMPTS) -> Tuned:
    """Return the strength found for a latent's own direction."""
    return pusher.find(pusher.direction(latent), prompts, target)


class TestStrength:
    """How far the direction is pushed."""

    def test_no_push_changes_nothing(self, pusher: Pusher) -> None:
        """At strength 0 every next-token probability is the model's own."""
        texts = [prompt.tolist() for prompt in PROMPTS]
        found = pusher.logprobs(texts, [len(text) - 1 for text in texts], Push(pusher.direction(0), 0.0)).exp()
        for prompt, row in zip(PROMPTS, found, strict=True):
            own = by_hand(pusher.model, "layers.1", prompt, torch.zeros(SIZE))
            torch.testing.assert_close(row.double(), own, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("latent", [0, 1, 2])
    def test_the_divergence_asked_for_is_given(self, latent: int, target: float, pusher: Pusher, coder: SparseCoder) -> None:
        """The strength moves the next tokens by the KL asked for within a tenth, as a mean over the prompts, worked out by hand."""
        found = found_for(pusher, latent, target)
        clean = [by_hand(pusher.model, "layers.1", prompt, torch.zeros(SIZE)) for prompt in PROMPTS]
        pushed = [by_hand(pusher.model, "layers.1", prompt, found.strength * coder.w_dec[latent]) for prompt in PROMPTS]
        kl = np.mean([divergence(p, q) for p, q in zip(clean, pushed, strict=True)])
        assert found.reached
        assert found.kl == pytest.approx(kl, rel=1e-3)
        assert found.kl == pytest.approx(target, rel=0.1)
        torch.testing.assert_close(torch.from_numpy(found.clean).double(), torch.stack(clean), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(torch.from_numpy(found.pushed).double(), torch.stack(pushed), rtol=1e-3, atol=1e-6)

    def test_more_is_asked_by_a_stronger_push(self, pusher: Pusher) -> None:
        """A larger KL takes a larger strength."""
        strengths = [found_for(pusher, 0, target).strength for target in TARGETS]
        assert strengths == sorted(strengths)
        assert strengths[-1] > strengths[0]

    @pytest.mark.parametrize("scale", [1e-4, 1e-2, 10.0])
    def test_long_and_short_directions_are_pushed_alike(self, scale: float, model: PreTrainedModel, coder: SparseCoder) -> None:
        """The strength makes up for the length of the direction, within the bounds of the search."""
        other = Pusher(model, Mounted(replace(coder, w_dec=scale * coder.w_dec), "layers.1", "layers.1"), "cpu")
        mine = found_for(Pusher(model, Mounted(coder, "layers.1", "layers.1"), "cpu"), 5, 1.0)
        found = found_for(other, 5, 1.0)
        assert found.reached
        assert found.strength * scale == pytest.approx(mine.strength, rel=0.15)

    def test_a_direction_of_nothing_reaches_nothing(self, pusher: Pusher) -> None:
        """A latent that writes nothing is said to miss the target, with the KL of 0 that it reaches."""
        found = found_for(pusher, 3, 0.1)
        assert not found.reached
        assert found.kl == pytest.approx(0, abs=1e-6)

    def test_a_target_out_of_reach_is_said_so(self, pusher: Pusher) -> None:
        """Where no strength gives the KL asked for, the largest there is is told."""
        found = found_for(pusher, 0, 1000.0)
        clean = after(pusher, 0, 0.0)
        pushes = [after(pusher, 0, 10.0**power) for power in range(-3, 5)]
        reached = [float((clean.exp() * (clean - pushed)).sum(-1).mean()) for pushed in pushes]
        assert not found.reached
        assert found.kl == pytest.approx(max(reached), rel=0.02)

    @pytest.mark.parametrize("target", [0.1, 1.0])
    def test_a_target_between_the_ends_is_found(self, target: float) -> None:
        """A push whose KL rises and then falls again, as where it ends up near where it began, is found on the way up."""
        found = found_for(Pusher(Mirror(), Mounted(mirror_coder(), "block", "block"), "cpu"), 0, target, prompts(1, 2))
        assert found.reached
        assert found.kl == pytest.approx(target, rel=0.1)

    def test_the_largest_divergence_may_lie_between_the_ends(self) -> None:
        """Where the target is out of reach the KL told is the largest on the way, not that of the strongest push."""
        found = found_for(Pusher(Mirror(), Mounted(mirror_coder(), "block", "block"), "cpu"), 0, 50.0, prompts(1, 2))
        assert not found.reached
        assert found.kl > 1.0

    def test_the_model_is_restored(self, pusher: Pusher) -> None:
        """After a search no hook is left."""
        before = [dict(module._forward_hooks) for module in pusher.model.modules()]
        found_for(pusher, 1, 0.33)
        assert [dict(module._forward_hooks) for module in pusher.model.modules()] == before


class Mirror(nn.Module):
    """A model of two dimensions whose logits depend on the angle of its stream; the way to a mirror image leads past a third place."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Identity()
        self.head = torch.tensor([[0.0, 12.0], [0.0, -12.0], *[[0.0, 7.0]] * 10])

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        """Return logits for any ids: the stream always points the same way."""
        stream = self.block(torch.tensor([1.0, 0.2]).expand(*input_ids.shape, 2))
        return SimpleNamespace(logits=nn.functional.normalize(stream, dim=-1) @ self.head.T)


def mirror_coder() -> SparseCoder:
    """Return an SAE whose latent 0 points to the mirror image of where the stream of Mirror points."""
    return replace(random_coder(0, 1, 2, TopK(1)), w_dec=torch.tensor([[-1.0, 0.2]]))


class TestPlace:
    """Where the direction is added."""

    def test_padding_changes_nothing(self, pusher: Pusher) -> None:
        """Prompts pushed one by one give what they give in a batch, the long and the short."""
        together = after(pusher, 1, 2.0)
        alone = torch.cat([after(pusher, 1, 2.0, [prompt]) for prompt in PROMPTS])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("writes", ["layers.1.mlp", "layers.2.mlp.down_proj"])
    def test_a_transcoder_is_pushed_where_it_writes(self, writes: str, model: PreTrainedModel) -> None:
        """The direction of a transcoder is added to the output of the module that it stands for, not where it reads."""
        coder = random_transcoder(2, WIDTH, 64, SIZE, TopK(4))
        found = found_for(Pusher(model, Mounted(coder, "layers.0.mlp.down_proj.input", writes), "cpu"), 4, 0.33)
        assert found.reached
        for prompt, row in zip(PROMPTS, torch.from_numpy(found.pushed), strict=True):
            expected = by_hand(model, writes, prompt, found.strength * coder.w_dec[4])
            torch.testing.assert_close(row.double(), expected, rtol=1e-3, atol=1e-6)


def examples_of(active: int, silent: int = 2, window: int = 8, seed: int = 0) -> Examples:
    """Return windows that are rows of their own; those in which the latent fires do so at drawn places."""
    draw = np.random.default_rng(seed)
    n = active + silent
    tokens = draw.integers(100, 300, (n, window)).astype(np.int32)
    activations = draw.random((n, window)).astype(np.float32) * (draw.random((n, window)) < 0.3)
    activations[np.arange(n), draw.integers(0, window, n)] = 1.0
    activations[active:] = 0
    return windows_of(6, tokens, activations, np.arange(n) < active)


class TestRows:
    """The INTERVENTIONS of a latent."""

    def test_the_most_raised_tokens_are_named(self, pusher: Pusher, coder: SparseCoder) -> None:
        """Rows fit the table, and name for each beginning the tokens whose probability rises most, by hand, and by how much."""
        examples = examples_of(9)
        before = np.random.default_rng(1).integers(100, 300, (11, 5)).astype(np.int32)
        whole = np.concatenate([before, examples.tokens], axis=1)
        examples = replace(examples, start=examples.start + 5)
        rows = intervention_rows("toy", examples, whole, pusher, 4, 1.0)
        INTERVENTIONS.validate(rows)
        assert rows["prompt"].to_pylist() == [0, 1, 2, 3]
        assert rows["tokens"].to_pylist() == [tokens.tolist() for tokens in beginnings(examples, whole, 4).tokens]
        assert rows["start"].to_pylist() == [5] * 4
        for row in rows.to_pylist():
            assert (row["sae"], row["latent"], row["kl_asked"], row["status"]) == ("toy", 6, 1.0, "ok")
            prompt = np.array(row["tokens"], dtype=np.int32)
            clean, pushed = (by_hand(pusher.model, "layers.1", prompt, scale * coder.w_dec[6]) for scale in (0.0, row["strength"]))
            rise = (pushed - clean).tolist()
            expected = sorted(range(len(rise)), key=lambda token: -rise[token])[:RAISED]  # used before the next row
            assert row["raised"] == expected
            assert row["rises"] == pytest.approx([rise[token] for token in expected], rel=1e-3)
        assert len(set(rows["strength"].to_pylist())) == len(set(rows["kl"].to_pylist())) == 1

    def test_a_miss_is_a_row_too(self, pusher: Pusher) -> None:
        """A latent that cannot be pushed as far as asked has valid rows that say so, with what it reached."""
        examples = replace(examples_of(3), latent=3)
        rows = intervention_rows("toy", examples, examples.tokens, pusher, 2, 0.33)
        INTERVENTIONS.validate(rows)
        assert rows["status"].to_pylist() == ["KL 0.33 out of reach"] * 2
        assert rows["kl"].to_pylist() == pytest.approx([0, 0], abs=1e-6)

    def test_prompts_with_the_same_push_do_not_depend_on_one_another(self, pusher: Pusher) -> None:
        """Where the same windows come twice their rows are the same twice."""
        once = examples_of(2, silent=0)
        twice = once.take(np.arange(2).repeat(2))
        rows = intervention_rows("toy", twice, once.tokens, pusher, 4, 0.33).to_pylist()
        for first, second in ((0, 1), (2, 3)):
            assert rows[first]["raised"] == rows[second]["raised"]
            assert rows[first]["tokens"] == rows[second]["tokens"]


def test_noise_is_no_direction_of_the_model(model: PreTrainedModel) -> None:
    """The model of these tests is uneven enough for every target: any direction can move it by more than the largest."""
    clean = by_hand(model, "layers.1", PROMPTS[0], torch.zeros(SIZE))
    pushed = by_hand(model, "layers.1", PROMPTS[0], 1e4 * noise(9, SIZE))
    assert divergence(clean, pushed) > max(TARGETS)
