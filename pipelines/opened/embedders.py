"""Embedders of params.yaml, opened; the file that keeps their vectors; the fallback where a model is missing."""

from __future__ import annotations

import sys
from pathlib import Path

from builders.embedders import files, sentence
from builders.embedders.embedder import Model
from builders.embedders.kept import Kept
from builders.embedders.letters import LetterEmbedder
from builders.errors import MissingError, UserError
from builders.subjects.places import Source
from pipelines.params import LexicalEmbedderParams, Params, SentenceEmbedderParams

CACHE = Path(".interplake/embeddings.sqlite")


def open_embedder(params: Params, embedder_id: str) -> Model:
    """Return an embedder of params; where its model is missing and its fallback is `lexical`, the lexical embedder.

    Raises UserError where the model is missing and has no fallback, or where its files are damaged.
    """
    spec = params.embedders[embedder_id]
    if isinstance(spec, LexicalEmbedderParams):
        return LetterEmbedder()
    try:
        settings = {name: getattr(spec, name) for name in ("instruction", "device", "trust_remote_code", "config")}
        return Kept(sentence.SentenceEmbedder(files_of(spec), **settings), CACHE)
    except UserError as error:
        if isinstance(error, MissingError) and spec.fallback == "lexical":
            return stand_in(embedder_id, model_of(spec), error)
        raise UserError(f"embedders.{embedder_id}: {error}") from error


def stand_in(embedder_id: str, model: str, error: MissingError) -> Model:
    """Return the lexical embedder under a name that says which model it replaces, and say so on standard error."""
    embedder = LetterEmbedder(f"lexical (for {model})")
    again = "then run the stage again with `dvc repro --force`"
    print(f"embedders.{embedder_id}: {error}, {again}; until then {embedder.name!r} embeds, and rows say so", file=sys.stderr)
    return embedder


def files_of(spec: SentenceEmbedderParams) -> files.Files:
    """Return the files of an embedding model."""
    return files.of_package(spec.package) if spec.package else files.of_source(source_of(spec))


def model_of(spec: SentenceEmbedderParams) -> str:
    """Return the name of an embedding model."""
    return files.known(spec.package).model if spec.package else source_of(spec).label


def source_of(spec: SentenceEmbedderParams) -> Source:
    """Return where the files of an embedding model lie."""
    return Source(spec.path, spec.repo, spec.revision, spec.trust_remote_code)
