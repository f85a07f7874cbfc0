"""Embedders of params.yaml, opened; where their vectors are kept; what stands in where a model is missing."""

from __future__ import annotations

import sys
from pathlib import Path

from builders.embedders import files, sentence
from builders.embedders.embedder import Model
from builders.embedders.kept import Kept
from builders.embedders.letters import LetterEmbedder
from builders.errors import MissingError, UserError
from builders.subjects.checkpoints import Source
from pipelines.params import LexicalEmbedder, Params, SentenceEmbedder

CACHE = Path(".interplake/embeddings.sqlite")


def open_embedder(params: Params, name: str) -> Model:
    """Return an embedder of params; where its model is missing, the lexical one if its fallback says so.

    Raises UserError where the model is missing and nothing may stand in, or its files are amiss.
    """
    spec = params.embedders[name]
    if isinstance(spec, LexicalEmbedder):
        return LetterEmbedder()
    try:
        return Kept(sentence.SentenceEmbedder(files_of(spec), spec.instruction, spec.device), CACHE)
    except UserError as error:
        if isinstance(error, MissingError) and spec.fallback == "lexical":
            return stand_in(name, model_of(spec), error)
        raise UserError(f"embedders.{name}: {error}") from error


def stand_in(name: str, model: str, error: MissingError) -> Model:
    """Return the lexical embedder under a name that says for whom it stands in, and say so on standard error."""
    embedder = LetterEmbedder(f"lexical (for {model})")
    again = "then run the stage again with `dvc repro --force`"
    print(f"embedders.{name}: {error}, {again}; until then {embedder.name!r} embeds, and rows say so", file=sys.stderr)
    return embedder


def files_of(spec: SentenceEmbedder) -> files.Files:
    """Return a model's files."""
    return files.of_package(spec.package) if spec.package else files.of_source(source_of(spec))


def model_of(spec: SentenceEmbedder) -> str:
    """Return what a model is called."""
    return files.known(spec.package).model if spec.package else source_of(spec).label


def source_of(spec: SentenceEmbedder) -> Source:
    """Return where a model's files lie, as the builders know it."""
    return Source(spec.path, spec.repo, spec.revision)
