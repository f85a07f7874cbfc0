"""Train TopK, MultiTopK, JumpReLU and ReLU SAEs: Adam, unit-norm decoder rows, an auxiliary loss that revives dead latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.saes.coder import Activation, JumpReLU, ReLU, SparseCoder, TopK

# Up to this width a matrix product over all latents beats gathering the few that fire, in both directions.
DENSE_WIDTH = 4096
MULTI = 4  # MultiTopK also reconstructs from this many times k latents, with an eighth of the weight (as sparsify does)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run. *k* is the L0 of TopK and the target L0 of JumpReLU; *l1* is the penalty of ReLU."""

    activation: str
    width: int
    lr: float
    dead_after: int  # vectors without a firing after which a latent counts as dead
    k: int = 0
    l1: float = 0.0  # multiplies mean(Σ f) / √d; vectors are first scaled to mean squared norm d
    multi_topk: bool = False
    aux_weight: float = 1 / 32  # Gao et al. 2024, A.1
    sparsity_weight: float = 1.0
    bandwidth: float = 0.1  # of JumpReLU's straight-through kernel, for vectors scaled to mean squared norm d


class _Trainee(nn.Module):
    def __init__(self, recipe: Recipe, first: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        d = first.shape[1]
        directions = torch.randn(recipe.width, d, generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        self.w_dec = nn.Parameter(directions.to(first.device))
        self.w_enc = nn.Parameter(directions.to(first.device).clone())
        self.b_enc = nn.Parameter(torch.zeros(recipe.width, device=first.device))
        self.b_dec = nn.Parameter(first.mean(0))
        self.log_threshold = nn.Parameter(torch.zeros(recipe.width, device=first.device))
        self.recipe = recipe
        if recipe.activation == "jumprelu":  # start at the target L0, so that training only has to keep it
            pre = self.pre(first).flatten().detach()
            keep = min(pre.numel(), recipe.k * len(first))
            start = pre.kthvalue(pre.numel() - keep + 1).values.clamp(min=1e-3) if keep < pre.numel() else pre.new_tensor(1e-3)
            self.log_threshold.data.fill_(math.log(float(start)))

    def pre(self, x: Tensor) -> Tensor:
        return F.linear(x - self.b_dec, self.w_enc, self.b_enc)

    def forward(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction, whether each latent fired [width], and the sparsity loss."""
        return getattr(self, f"_{self.recipe.activation}")(pre)  # type: ignore[no-any-return]  # one of the three below

    def _topk(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, latents = F.relu(pre).topk(self.recipe.k, dim=1)
        fired = torch.zeros(self.recipe.width, dtype=torch.bool, device=pre.device)
        fired[latents[values > 0]] = True
        return _decode(latents, values, self.w_dec) + self.b_dec, fired, pre.new_zeros(())

    def _jumprelu(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        threshold = self.log_threshold.exp()
        gate = _Step.apply(pre, threshold, self.recipe.bandwidth)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        codes = _Jump.apply(pre, threshold, self.recipe.bandwidth)  # type: ignore[no-untyped-call]  # as above
        l0 = gate.sum(1).mean()
        return codes @ self.w_dec + self.b_dec, gate.detach().amax(0) > 0, (l0 / self.recipe.k - 1).square()

    def _relu(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes = F.relu(pre)
        penalty = self.recipe.l1 * codes.sum(1).mean() / math.sqrt(self.w_dec.shape[1])
        return codes @ self.w_dec + self.b_dec, codes.detach().amax(0) > 0, penalty

    def wide(self, pre: Tensor) -> Tensor:
        """Return the reconstruction from the MULTI · k strongest latents."""
        values, latents = F.relu(pre).topk(min(MULTI * self.recipe.k, self.recipe.width), dim=1)
        return _decode(latents, values, self.w_dec) + self.b_dec

    @torch.no_grad()
    def normalise(self) -> None:
        self.w_dec.data /= self.w_dec.norm(dim=1, keepdim=True).clamp(min=1e-8)

    @torch.no_grad()
    def drop_parallel_gradient(self) -> None:
        if self.w_dec.grad is not None:
            along = (self.w_dec.grad * self.w_dec).sum(1, keepdim=True)
            self.w_dec.grad -= along * self.w_dec


class _Step(torch.autograd.Function):
    """H(z − θ) with a rectangle kernel of *bandwidth* as pseudo-derivative in θ (Rajamanoharan et al. 2024, eq. 12)."""

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):  # type: ignore[no-untyped-def]  # torch's own signature
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # torch's own signature
        pre, threshold = ctx.saved_tensors
        inside = ((pre - threshold).abs() < ctx.bandwidth / 2).to(grad.dtype)
        return None, -(grad * inside).sum(0) / ctx.bandwidth, None


class _Jump(torch.autograd.Function):
    """z·H(z − θ) with the pseudo-derivative −θ/ε inside the kernel (Rajamanoharan et al. 2024, eq. 11)."""

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):  # type: ignore[no-untyped-def]  # torch's own signature
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # torch's own signature
        pre, threshold = ctx.saved_tensors
        inside = ((pre - threshold).abs() < ctx.bandwidth / 2).to(grad.dtype)
        return grad * (pre > threshold), -(grad * inside).sum(0) * threshold / ctx.bandwidth, None


class Trainer:
    """An SAE in training: one step per batch of vectors [batch, d].

    The *first* batch sets the scale of the vectors and the initial weights; *steps* is how many steps the schedule expects.
    The loss is the fraction of variance unexplained plus AuxK on dead latents (Gao et al. 2024, A.2). MultiTopK adds the
    loss of a wider code, JumpReLU a quadratic penalty on the distance of L0 from its target, ReLU an L1 penalty. The
    learning rate falls to zero over the last fifth of the steps.
    """

    def __init__(self, recipe: Recipe, first: Tensor, steps: int, generator: torch.Generator) -> None:
        self.recipe = recipe
        self.scale = math.sqrt((first - first.mean(0)).square().sum(1).mean() / first.shape[1]) or 1.0
        self.trainee = _Trainee(recipe, first / self.scale, generator)
        # Only the few pre-activations near a threshold move it, so thresholds need larger steps to keep up with the rest.
        others = [parameter for name, parameter in self.trainee.named_parameters() if name != "log_threshold"]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": [self.trainee.log_threshold], "lr": 5 * recipe.lr}]
        # Fused, because otherwise Adam on a CPU uses MKL's square root, whose last bits differ between makers of processors.
        self.optimizer = torch.optim.Adam(groups, lr=recipe.lr, betas=(0.9, 0.999), fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: min(1.0, 5 * max(0.0, 1 - step / max(1, steps))))
        self.idle = torch.zeros(recipe.width, dtype=torch.long, device=first.device)

    def step(self, batch: Tensor) -> None:
        """Learn from one batch of vectors."""
        x = batch / self.scale
        pre = self.trainee.pre(x)
        recon, fired, sparsity = self.trainee(pre)
        error = x - recon
        variance = (x - x.mean(0)).square().sum()
        loss = error.square().sum() / variance + self.recipe.sparsity_weight * sparsity
        loss = loss + self.recipe.aux_weight * _revive(self.trainee, pre, error.detach(), self.idle > self.recipe.dead_after) / variance
        if self.recipe.multi_topk:
            loss = loss + (x - self.trainee.wide(pre)).square().sum() / variance / 8
        loss.backward()
        self.trainee.drop_parallel_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.trainee.normalise()
        self.idle = torch.where(fired, 0, self.idle + len(x))

    def coder(self) -> SparseCoder:
        """Return the trained coder with the scale folded into its weights, so that it reads vectors as they come."""
        trainee, scale = self.trainee, self.scale
        w_enc, b_enc, w_dec, b_dec = (p.detach() for p in (trainee.w_enc, trainee.b_enc, trainee.w_dec, trainee.b_dec))
        activations: dict[str, Activation] = {
            "topk": TopK(self.recipe.k),
            "jumprelu": JumpReLU(trainee.log_threshold.detach().exp() * scale),
            "relu": ReLU(torch.zeros_like(b_enc)),
        }
        return SparseCoder(w_enc, b_enc * scale, w_dec, b_dec * scale, activations[self.recipe.activation], b_pre=b_dec * scale)


def _revive(trainee: _Trainee, pre: Tensor, error: Tensor, dead: Tensor) -> Tensor:
    """Return the squared error with which the strongest dead latents reconstruct *error*, which the other latents left over."""
    count = int(dead.sum())
    if not count:
        return error.new_zeros(())
    most = min(error.shape[1] // 2, count)
    values, latents = pre.masked_fill(~dead, -torch.inf).topk(most, dim=1)
    rebuilt = _decode(latents, F.relu(values), trainee.w_dec)
    return (rebuilt - error).square().sum() * min(1.0, count / (error.shape[1] // 2))


def _decode(latents: Tensor, values: Tensor, w_dec: Tensor) -> Tensor:
    """Return Σ value · direction over each vector's *latents* [n, k], with a dense gradient for the directions."""
    if len(w_dec) > DENSE_WIDTH:
        return F.embedding_bag(latents, w_dec, per_sample_weights=values, mode="sum")
    return values.new_zeros(len(values), len(w_dec)).scatter(1, latents, values) @ w_dec
