"""SparseCoder: encodes vectors into sparse latents and decodes them, the same class for every file format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 2**26  # pre-activations in memory at a time (256 MB in float32)
Norm = Literal["none", "centered", "layer_norm", "constant_norm"]
EPSILON = {"none": 0.0, "centered": 0.0, "layer_norm": 1e-5, "constant_norm": 0.0}  # added to the scale when encoding, not when decoding


@dataclass(frozen=True)
class SparseCode:
    """The non-zero latents of *n* vectors, ordered by vector, then latent: index of the vector, latent and value (all [nnz])."""

    vector: Tensor
    latent: Tensor
    value: Tensor
    n: int


Chunks = Iterable[tuple[int, Tensor]]  # first latent, pre-activations [n, some latents]; in order of latent


class Coder(Protocol):
    """Encodes vectors [n, d_in] into sparse codes over *width* latents, and decodes codes into vectors [n, d_out]."""

    @property
    def activation(self) -> Activation: ...  # noqa: D102  # said above
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def d_in(self) -> int: ...  # noqa: D102
    @property
    def d_out(self) -> int: ...  # noqa: D102
    def encode(self, x: Tensor) -> SparseCode: ...  # noqa: D102
    def decode(self, code: SparseCode, x: Tensor) -> Tensor: ...  # noqa: D102
    def directions(self, low: int, high: int) -> Tensor: ...  # noqa: D102
    def to(self, device: str) -> Coder: ...  # noqa: D102


@dataclass(frozen=True)
class TopK:
    """Keep those of each vector's *k* largest pre-activations that are above zero; of equal ones the lowest latents are kept."""

    k: int
    name = "topk"
    grain = 1  # a chunk must hold a multiple of this many latents

    def select(self, chunks: Chunks, n: int) -> SparseCode:
        """Return the code of *n* vectors: the top k so far is merged with the top k of each chunk."""
        values = latents = torch.empty(0)
        for low, pre in chunks:
            some, columns = largest(pre, self.k)
            columns += low
            if latents.numel():  # these latents precede the chunk's, so the first of equal columns is the lowest latent
                both = torch.cat([values, some], dim=1)
                some, places = largest(both, self.k)
                columns = torch.cat([latents, columns], dim=1).gather(1, places)
            values, latents = some, columns
        vectors = torch.arange(n, device=latents.device)[:, None].expand_as(latents)
        fired = values > 0
        return SparseCode(vectors[fired], latents[fired], values[fired], n)


def largest(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the *k* largest values of each row and their columns, in column order; ties above zero go to the first columns."""
    width = pre.shape[1]
    if k >= width:
        return pre, torch.arange(width, device=pre.device).expand_as(pre).clone()
    values, columns = pre.topk(k + 1, dim=1)
    tied = (values[:, k] == values[:, k - 1]) & (values[:, k] > 0)
    values, columns = values[:, :k], columns[:, :k]
    if tied.any():  # topk may return any of equal values, so these few rows are sorted whole
        first, places = pre[tied].sort(dim=1, descending=True, stable=True)
        values, columns = values.clone(), columns.clone()
        values[tied], columns[tied] = first[:, :k], places[:, :k]
    columns, order = columns.sort(dim=1)
    return values.gather(1, order), columns


Kept = tuple[Tensor, Tensor, Tensor]  # vector, latent, value


class _Chunkwise(ABC):
    """An activation function that treats each chunk of latents independently."""

    @abstractmethod
    def kept(self, low: int, pre: Tensor) -> Kept:
        """Return what is kept of the pre-activations *pre* [n, some latents], whose first latent is *low*, in order of vector."""

    def select(self, chunks: Chunks, n: int) -> SparseCode:
        """Return the code of *n* vectors; within a vector the chunks are in order already."""
        parts = [self.kept(low, pre) for low, pre in chunks]
        vectors, latents, values = (torch.cat(some) for some in zip(*parts, strict=True))
        if len(parts) > 1:
            vectors, order = vectors.sort(stable=True)
            latents, values = latents[order], values[order]
        return SparseCode(vectors, latents, values, n)


@dataclass(frozen=True)
class GroupMax(_Chunkwise):
    """Cut the latents into *k* runs of *grain* latents; keep the largest pre-activation of each run if it is above zero."""

    k: int
    grain: int
    name = "groupmax"

    def kept(self, low: int, pre: Tensor) -> Kept:
        """Return the largest of each run; a chunk holds whole runs."""
        values, places = pre.unflatten(1, (-1, self.grain)).max(dim=2)
        latents = low + places + self.grain * torch.arange(values.shape[1], device=pre.device)
        vectors, runs = torch.nonzero(values > 0, as_tuple=True)
        return vectors, latents[vectors, runs], values[vectors, runs]


@dataclass(frozen=True)
class JumpReLU(_Chunkwise):
    """Keep a pre-activation if it is above zero and above its latent's *threshold* [width] (Rajamanoharan et al. 2024, eq. 3)."""

    threshold: Tensor
    name = "jumprelu"
    grain = 1

    def kept(self, low: int, pre: Tensor) -> Kept:
        """Return what is above its threshold."""
        limit = self.threshold[low : low + pre.shape[1]].clamp(min=0)
        vectors, columns = torch.nonzero(pre > limit, as_tuple=True)
        return vectors, columns + low, pre[vectors, columns]


class ReLU(JumpReLU):
    """Keep a pre-activation if it is above zero; *threshold* is all zeros."""

    name = "relu"


@dataclass(frozen=True)
class Gated(_Chunkwise):
    """Where pre + *gate* > 0, keep relu(*scale* · pre + *magnitude*), all [width] (Rajamanoharan et al. 2024, Gated SAEs, eq. 7)."""

    gate: Tensor
    scale: Tensor
    magnitude: Tensor
    name = "gated"
    grain = 1

    def kept(self, low: int, pre: Tensor) -> Kept:
        """Return what passes its gate; the pre-activations hold no bias."""
        own = slice(low, low + pre.shape[1])
        values = pre * self.scale[own] + self.magnitude[own]
        vectors, columns = torch.nonzero((pre + self.gate[own] > 0) & (values > 0), as_tuple=True)
        return vectors, columns + low, values[vectors, columns]


Activation = TopK | GroupMax | JumpReLU | Gated


@dataclass(frozen=True)
class SparseCoder:
    """f(x) = activation(W_enc (norm(x) − b_pre) + b_enc), x̂ = norm⁻¹(f W_dec + b_dec) + W_skip x.

    w_enc [width, d_in] and w_dec [width, d_out] have one row per latent. *norm* is what SAELens calls
    `normalize_activations`: `layer_norm`, or `constant_norm` (every vector is scaled to norm √d_in). `centered` subtracts each
    vector's mean, for SAEs that were trained on models whose writing weights TransformerLens had centred. A transcoder
    (*transcodes*) writes at another hookpoint than it reads, so its output is not scaled back.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    activation: Activation
    b_pre: Tensor
    norm: Norm = "none"
    w_skip: Tensor | None = None
    transcodes: bool = False

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.w_enc)

    @property
    def d_in(self) -> int:
        """Size of the vectors it reads."""
        return self.w_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Size of the vectors it writes."""
        return self.w_dec.shape[1]

    def encode(self, x: Tensor) -> SparseCode:
        """Return the sparse code of vectors [n, d_in]; at most about CHUNK pre-activations are computed at a time."""
        x = x.to(self.w_enc.dtype)
        center, scale = self._center_and_scale(x)
        u = (x - center) / (scale + EPSILON[self.norm]) - self.b_pre
        return self.activation.select(self._preactivations(u), len(x))

    def _preactivations(self, u: Tensor) -> Iterator[tuple[int, Tensor]]:
        grain = self.activation.grain
        step = max(1, CHUNK // max(1, len(u)) // grain) * grain
        for low in range(0, self.width, step):
            yield low, F.linear(u, self.w_enc[low : low + step], self.b_enc[low : low + step])

    def decode(self, code: SparseCode, x: Tensor) -> Tensor:
        """Return the reconstruction [n, d_out] of vectors *x* from their *code*; only the rows of latents that fired are read."""
        out = summed(code, self.w_dec) + self.b_dec
        if self.norm != "none" and not self.transcodes:
            center, scale = self._center_and_scale(x.to(out.dtype))
            out = out * scale + center
        return out if self.w_skip is None else out + x.to(out.dtype) @ self.w_skip.T

    def directions(self, low: int, high: int) -> Tensor:
        """Return what the latents from *low* up to *high* write [high − low, d_out]."""
        return self.w_dec[low:high]

    def _center_and_scale(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return what is subtracted from each vector, and what the vector is then divided by."""
        if self.norm == "layer_norm":  # with the sample standard deviation (n − 1), as in OpenAI's code and SAELens
            return x.mean(1, keepdim=True), x.std(1, keepdim=True)
        if self.norm == "centered":
            return x.mean(1, keepdim=True), 1.0
        if self.norm == "constant_norm":
            return 0.0, x.norm(dim=1, keepdim=True) / x.shape[1] ** 0.5
        return 0.0, 1.0

    def to(self, device: str) -> SparseCoder:
        """Return the coder on *device*."""
        return moved(self, device)


Moved = TypeVar("Moved")


def moved(thing: Moved, device: str) -> Moved:
    """Return a copy of a dataclass with its tensors, and those of the dataclasses in it, on *device*."""
    changed: dict[str, object] = {}
    for field in fields(thing):  # type: ignore[arg-type]  # a dataclass, which has no type of its own
        value = getattr(thing, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value.to(device)
        elif is_dataclass(value):
            changed[field.name] = moved(value, device)
    return replace(thing, **changed)  # type: ignore[type-var]  # as above


@dataclass(frozen=True)
class Mounted:
    """A coder at its place in a model: it reads at the hookpoint *reads* and writes at *writes*; these differ only for transcoders."""

    coder: Coder
    reads: str
    writes: str


def summed(code: SparseCode, w_dec: Tensor) -> Tensor:
    """Return for each vector of *code* the sum of value · row of *w_dec* over its latents [n, d_out]."""
    starts = torch.searchsorted(code.vector, torch.arange(code.n, device=code.vector.device))
    return F.embedding_bag(code.latent, w_dec, starts, mode="sum", per_sample_weights=code.value)
