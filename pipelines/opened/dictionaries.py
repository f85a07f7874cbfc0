"""Dictionaries of params.yaml, opened: made or fetched in stage `saes`, and opened again from its output by later stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders.errors import UserError
from builders.lake.shards import Shelf
from builders.saes import formats
from builders.saes.coder import Coder, Mounted, SparseCoder
from builders.saes.encoder import Dictionary, Encoder
from builders.saes.neurons import neurons
from builders.saes.planted import Planted
from builders.saes.table import SAES
from builders.seeds import seed_of
from builders.subjects.hookpoints import INPUT
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.stage import WEIGHTS
from pipelines.opened.subjects import Subjects
from pipelines.params import InModelParams, NeuronBasisParams, Params, PlantedRulesParams, PretrainedSaeParams


def folder_of(spec: PretrainedSaeParams) -> str:
    """Return the folder of a Hub repository that holds a dictionary; by default it has the name of the hookpoint."""
    return spec.folder or spec.rebuilds.removesuffix(INPUT)


def place_of(spec: PretrainedSaeParams) -> Path:
    """Return where a published dictionary lies on disk; one on the Hub is downloaded first, its own folder only."""
    if spec.path is not None:
        return Path(spec.path)
    return formats.fetch(str(spec.repo), str(spec.revision), folder_of(spec))


def published(sae_id: str, spec: PretrainedSaeParams, place: Path) -> SparseCoder:
    """Return the dictionary in *place*; raise UserError unless params say where a transcoder writes."""
    coder = formats.read(place, spec.input_scale)
    if coder.transcodes and spec.writes is None:
        raise UserError(f"saes.{sae_id}: is a transcoder; give the hookpoint it `writes` beside the one it reads (`hookpoint`)")
    if not spec.centered:
        return coder
    if coder.norm != "none":
        raise UserError(f"saes.{sae_id}: normalises what it reads itself ({coder.norm}); leave out `centered`")
    return replace(coder, norm="centered")


def mounted(spec: InModelParams, coder: Coder) -> Mounted:
    """Return a coder mounted at the hookpoints that params give it."""
    return Mounted(coder, spec.reads, spec.rebuilds)


def neuron_basis(params: Params, sae_id: str, spec: NeuronBasisParams, d: int) -> Coder:
    """Return the neuron basis of vectors of size *d*."""
    return neurons(d, spec.k, spec.rotated, seed_of(params.seed, "rotation", sae_id, spec.seed))


def planted(tokens: Shelf) -> Planted:
    """Return the planted rules, for the vocabulary of the subject whose *tokens* these are."""
    return Planted(text_pieces(tokens.read(VOCABULARY, columns=["bytes", "special"])))


def coder_of(params: Params, sae_id: str, sae: Shelf) -> Coder:
    """Return the coder of dictionary *sae_id* from the output *sae* of its stage, without the model that it reads."""
    spec = params.saes[sae_id]
    if isinstance(spec, NeuronBasisParams):
        return neuron_basis(params, sae_id, spec, sae.read(SAES, columns=["d_in"])["d_in"][0].as_py())
    place = sae.folder / WEIGHTS
    for path in formats.files(place):
        sae.verified(path)
    return published(sae_id, spec, place) if isinstance(spec, PretrainedSaeParams) else formats.read(place)


def reopened(subjects: Subjects, sae_id: str, sae: Shelf, tokens: Shelf) -> Dictionary:
    """Return dictionary *sae_id* from the output *sae* of its stage, ready to read rows of *tokens*."""
    params = subjects.params
    spec = params.saes[sae_id]
    if isinstance(spec, PlantedRulesParams):
        return planted(tokens)
    opened = subjects.open(spec.subject)
    coder = coder_of(params, sae_id, sae).to(opened.device)
    return Encoder(opened.model, mounted(spec, coder), opened.batch or params.activations.batch_rows, opened.device)
