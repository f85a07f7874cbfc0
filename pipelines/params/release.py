"""Section `release`: what the release is called, what its configs for readers hold, and where it is published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import NAME, REPO, VERSION, Id, Section


class BucketParams(Section):
    """The bucket *repo* of the Hub, as owner/name, and the *stages* whose output folders it holds, such as activations."""

    repo: Annotated[str, Field(pattern=REPO)]
    stages: Annotated[list[Id], Field(min_length=1)]


class ReleaseParams(Section):
    """The name, version, license and languages of the release, and what its configs for readers hold.

    *scorer* chooses each latent's best explanation in `browse`; without it that is the first scorer by name. *vectors* is the type of the
    directions in `vectors`; null leaves them out. Explanations are embedded by *embedder*, if one is named. *repo* is where
    it is published, as owner/name: the card's lines of code read it from there. *licenses* are those of what it is made from, by id:
    corpora, subjects, dictionaries, engines and embedders.
    """

    name: Annotated[str, Field(pattern=NAME)]
    title: str
    version: Annotated[str, Field(pattern=VERSION)]
    license: str
    language: list[str]
    scorer: Id | None = None
    vectors: Literal["float32", "float16"] | None = "float32"
    embedder: Id | None = None
    repo: Annotated[str, Field(pattern=REPO)] | None = None
    licenses: dict[Id, str] = Field(default_factory=dict)
    bucket: BucketParams | None = None
