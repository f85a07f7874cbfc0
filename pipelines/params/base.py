"""What all sections of params.yaml share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pinned(Section):
    """Files that lie in a local folder, or in a Hub repository at a pinned commit."""

    path: str | None = None
    repo: str | None = None
    revision: Revision | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either `path` or `repo`")
        if self.repo is not None and self.revision is None:
            raise ValueError("a `repo` needs its `revision`, the 40-digit commit to pin")
        return self
