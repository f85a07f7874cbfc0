"""Section `release.bucket`: working data that goes to the Hub without versions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.params.base import REPO, Id, Section


class BucketParams(Section):
    """The bucket *repo* of the Hub, as owner/name, and the *stages* whose output folders it holds, such as activations."""

    repo: Annotated[str, Field(pattern=REPO)]
    stages: Annotated[list[Id], Field(min_length=1)]
