"""Sections about judges, embedders and scorers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Count, Device, Id, Revision, Section, Share

Silent = Literal["random", "similar", "cofiring", "decoder", "encoder"]  # kinds of windows in which a latent is silent


class LexicalJudgeParams(Section):
    """Reads the cues of an explanation by the lexical explainer and looks for them in windows."""

    kind: Literal["lexical"]


class ModelJudgeParams(Section):
    """A language model of `engines`; a prompt shows *shown* windows.

    With *logprobs* the probability of each answer is read too. The stage fails if more than *max_failed_share* of its requests fail.
    Answers are kept, so a second run makes only the failed requests again.
    """

    kind: Literal["model"]
    engine: Id
    shown: Count = 5
    logprobs: bool = False
    max_tokens: Count = 100
    max_failed_share: Share = 0.05


JudgeParams = Annotated[LexicalJudgeParams | ModelJudgeParams, Field(discriminator="kind")]


class LexicalEmbedderParams(Section):
    """Hashed counts of letter sequences; needs no model."""

    kind: Literal["lexical"]


class SentenceEmbedderParams(Section):
    """An embedding model: a folder, a repository on the Hub at a pinned commit, or a Python *package* that holds its files.

    *instruction* is put before queries. If the model is missing and *fallback* is `lexical`, the lexical embedder embeds instead, and every
    row says so.
    """

    kind: Literal["sentence"]
    path: str | None = None
    repo: str | None = None
    revision: Revision | None = None
    package: str | None = None
    instruction: str = ""
    fallback: Literal["lexical", "none"] = "none"
    device: Device = "auto"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.path, self.repo, self.package].count(None) != 2:
            raise ValueError("give one of `path`, `repo` and `package`")
        if self.repo is not None and self.revision is None:
            raise ValueError("a `repo` needs its `revision`, the 40-digit commit to pin")
        return self


EmbedderParams = Annotated[LexicalEmbedderParams | SentenceEmbedderParams, Field(discriminator="kind")]


class DrawnParams(Section):
    """What all scorers share: at most *latents* latents are scored, drawn by address; scorers with equal *latents* score the same."""

    latents: Count | None = None
    needs_model: ClassVar[bool] = False  # whether only a language model can judge

    @property
    def answered_by(self) -> tuple[str, str]:
        """The section of params and the id of the judge or embedder that answers."""
        section = "judges" if hasattr(self, "judge") else "embedders"
        return section, getattr(self, section.removesuffix("s"))


class DetectionScorerParams(DrawnParams):
    """Asks whether the latent fires in a window; see docs/science.md#detection."""

    kind: Literal["detection"]
    judge: Id
    negatives: Silent = "random"


class FuzzingScorerParams(DrawnParams):
    """Asks whether the latent fires on the marked tokens; negatives `active` are activating windows with the wrong tokens marked."""

    kind: Literal["fuzzing"]
    judge: Id
    negatives: Literal[Silent, "active"] = "random"


class SimulationScorerParams(DrawnParams):
    """Asks how strongly the latent fires on each token of *windows* activating windows and as many silent ones."""

    kind: Literal["simulation"]
    judge: Id
    form: Literal["all-at-once", "token-by-token", "json"] = "all-at-once"
    windows: Count = 50
    negatives: Silent = "random"


class SurprisalScorerParams(DrawnParams):
    """Measures how much likelier the explanation makes a window, in nats."""

    kind: Literal["surprisal"]
    judge: Id
    needs_model: ClassVar[bool] = True
    negatives: Silent = "random"


class EmbeddingScorerParams(DrawnParams):
    """Measures how near a window is to the explanation, on *windows* activating windows and as many silent ones, or on all windows."""

    kind: Literal["embedding"]
    embedder: Id
    windows: Count | None = None
    negatives: Silent = "random"


class InterventionScorerParams(DrawnParams):
    """Measures how much likelier a passage makes the explanation once the latent is pushed by *kl* nats, or silenced with *ablate*.

    The strength of the push is tuned on *tune* beginnings of training windows. The score is a mean over *prompts* beginnings of test
    windows, each continued by *tokens* tokens.
    """

    kind: Literal["intervention"]
    judge: Id
    needs_model: ClassVar[bool] = True
    kl: Annotated[float, Field(gt=0)] = 1.0
    ablate: bool = False
    tune: Count = 10
    prompts: Count = 30
    tokens: Count = 8


ScorerParams = Annotated[
    DetectionScorerParams
    | FuzzingScorerParams
    | SimulationScorerParams
    | SurprisalScorerParams
    | EmbeddingScorerParams
    | InterventionScorerParams,
    Field(discriminator="kind"),
]


class IntruderScorerParams(DrawnParams):
    """Asks which of *shown* windows is the intruder; with negatives `internal` it is an activating window of another quantile."""

    kind: Literal["intruder"]
    judge: Id
    shown: Annotated[int, Field(ge=3)] = 5
    trials: Count = 20
    negatives: Literal[Silent, "internal"] = "random"


class ExampleEmbeddingScorerParams(DrawnParams):
    """Measures how much nearer activating windows are to activating windows than silent windows are.

    There are *trials* trials with *examples* windows of either kind, drawn from *windows* activating windows and as many silent ones,
    or from all windows.
    """

    kind: Literal["example-embedding"]
    embedder: Id
    windows: Count | None = None
    trials: Count = 20
    examples: Count = 10
    negatives: Silent = "random"


DirectScorerParams = Annotated[IntruderScorerParams | ExampleEmbeddingScorerParams, Field(discriminator="kind")]
