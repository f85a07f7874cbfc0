"""A dictionary of params.yaml at work: made or fetched in stage `sae`, opened again from its folder by the stages after it."""

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
from pipelines.opened.subjects import open_subject
from pipelines.params import InModel, NeuronBasis, Params, PlantedRules, PretrainedSae


def folder_of(spec: PretrainedSae) -> str:
    """Return the folder of a Hub repository that holds a dictionary: by default it is called after its hookpoint."""
    return spec.folder or spec.rebuilds.removesuffix(INPUT)


def place_of(spec: PretrainedSae) -> Path:
    """Return where a published dictionary lies, downloading its one folder if it lies on the Hub."""
    if spec.path is not None:
        return Path(spec.path)
    return formats.fetch(str(spec.repo), str(spec.revision), folder_of(spec))


def published(name: str, spec: PretrainedSae, place: Path) -> SparseCoder:
    """Return the dictionary in *place*; raise UserError unless params say where a transcoder writes."""
    coder = formats.read(place, spec.input_scale)
    if coder.transcodes and spec.writes is None:
        raise UserError(f"saes.{name}: is a transcoder; give the hookpoint it `writes` beside the one it reads (`hookpoint`)")
    if not spec.centered:
        return coder
    if coder.norm != "none":
        raise UserError(f"saes.{name}: normalises what it reads itself ({coder.norm}); leave out `centered`")
    return replace(coder, norm="centered")


def mounted(spec: InModel, coder: Coder) -> Mounted:
    """Return a coder at the place in the model that params give it."""
    return Mounted(coder, spec.reads, spec.rebuilds)


def neuron_basis(params: Params, name: str, spec: NeuronBasis, d: int) -> Coder:
    """Return the neuron basis of vectors of size *d*."""
    return neurons(d, spec.k, spec.rotated, seed_of(params.seed, "rotation", name, spec.seed))


def planted(vocabulary: Shelf) -> Planted:
    """Return the rules, with the bytes of each token id of a subject."""
    return Planted(text_pieces(vocabulary.read(VOCABULARY, columns=["bytes", "special"])))


def coder_of(params: Params, name: str, sae: Shelf) -> Coder:
    """Return the coder of dictionary *name*, whose stage is finished, without the model that it reads."""
    spec = params.saes[name]
    if isinstance(spec, NeuronBasis):
        return neuron_basis(params, name, spec, sae.read(SAES, columns=["d_in"])["d_in"][0].as_py())
    place = sae.folder / WEIGHTS
    for path in formats.files(place):
        sae.verified(path)
    return published(name, spec, place) if isinstance(spec, PretrainedSae) else formats.read(place)


def reopened(params: Params, name: str, sae: Shelf, tokens: Shelf) -> Dictionary:
    """Return dictionary *name*, whose stage is finished, ready to read rows of tokens."""
    spec = params.saes[name]
    if isinstance(spec, PlantedRules):
        return planted(tokens)
    opened = open_subject(params, spec.subject)
    coder = coder_of(params, name, sae).to(opened.device)
    return Encoder(opened.model, mounted(spec, coder), params.activations.batch_rows, opened.device)
