"""Sections about who judges and what is scored."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Revision, Section, Share

Silent = Literal["random", "similar", "cofiring", "decoder", "encoder"]  # kinds of windows in which a latent is silent


class LexicalJudge(Section):
    """Reads the cues back from the words and looks for them."""

    kind: Literal["lexical"]


class ModelJudge(Section):
    """A language model of `engines`; *shown* windows come in one prompt.

    With *logprobs* the probability of each answer is read too. The stage fails where more than *max_failed_share* of its requests
    do; answers are kept, so that running it again asks only what failed.
    """

    kind: Literal["model"]
    engine: Id
    shown: Count = 5
    logprobs: bool = False
    max_tokens: Count = 100
    max_failed_share: Share = 0.05


JudgeSpec = Annotated[LexicalJudge | ModelJudge, Field(discriminator="kind")]


class LexicalEmbedder(Section):
    """Counts of letter sequences, hashed: no model."""

    kind: Literal["lexical"]


class SentenceEmbedder(Section):
    """An embedding model: a folder, a repository on the Hub at a pinned commit, or a Python *package* that holds its files.

    *instruction* is put before queries. Where the model is missing, *fallback* `lexical` embeds instead, and its name is in every row.
    """

    kind: Literal["sentence"]
    path: str | None = None
    repo: str | None = None
    revision: Revision | None = None
    package: str | None = None
    instruction: str = ""
    fallback: Literal["lexical", "none"] = "none"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.path, self.repo, self.package].count(None) != 2:
            raise ValueError("give one of `path`, `repo` and `package`")
        if self.repo is not None and self.revision is None:
            raise ValueError("a `repo` needs its `revision`, the 40-digit commit to pin")
        return self


EmbedderSpec = Annotated[LexicalEmbedder | SentenceEmbedder, Field(discriminator="kind")]


class Drawn(Section):
    """What all scorers share: at most *latents* latents are scored, drawn by address, the same ones by every scorer."""

    latents: Count | None = None
    needs_model: ClassVar[bool] = False  # whether only a language model can judge

    @property
    def answered_by(self) -> tuple[str, str]:
        """The section and the id of what answers."""
        section = "judges" if hasattr(self, "judge") else "embedders"
        return section, getattr(self, section.removesuffix("s"))


class DetectionScorer(Drawn):
    """Asks whether the latent fires in a window."""

    kind: Literal["detection"]
    judge: Id
    negatives: Silent = "random"


class FuzzingScorer(Drawn):
    """Asks whether it fires on the marked tokens; negatives `active` are activating windows with the wrong tokens marked."""

    kind: Literal["fuzzing"]
    judge: Id
    negatives: Silent | Literal["active"] = "random"


class SimulationScorer(Drawn):
    """Asks how strongly it fires on each token, on *windows* activating windows and as many silent ones."""

    kind: Literal["simulation"]
    judge: Id
    form: Literal["all-at-once", "token-by-token", "json"] = "all-at-once"
    windows: Count = 50
    negatives: Silent = "random"


class SurprisalScorer(Drawn):
    """Measures how much likelier the explanation makes a window."""

    kind: Literal["surprisal"]
    judge: Id
    needs_model: ClassVar[bool] = True
    negatives: Silent = "random"


class EmbeddingScorer(Drawn):
    """Measures how near a window is to the explanation, on all windows, or on *windows* activating ones and as many silent ones."""

    kind: Literal["embedding"]
    embedder: Id
    windows: Count | None = None
    negatives: Silent = "random"


class InterventionScorer(Drawn):
    """Measures how much more a passage speaks of the explanation once the latent is pushed by *kl* nats (or silenced).

    The strength is found on *tune* beginnings from the training windows, the score is over *prompts* beginnings from the test windows.
    """

    kind: Literal["intervention"]
    judge: Id
    needs_model: ClassVar[bool] = True
    kl: Annotated[float, Field(gt=0)] = 1.0
    ablate: bool = False
    tune: Count = 10
    prompts: Count = 30
    tokens: Count = 8


ScorerSpec = Annotated[
    DetectionScorer | FuzzingScorer | SimulationScorer | SurprisalScorer | EmbeddingScorer | InterventionScorer, Field(discriminator="kind")
]


class IntruderScorer(Drawn):
    """Asks which of *shown* windows is the intruder; with `internal` it is an activating window of another quantile."""

    kind: Literal["intruder"]
    judge: Id
    shown: Annotated[int, Field(ge=3)] = 5
    trials: Count = 20
    negatives: Silent | Literal["internal"] = "random"


class ExampleEmbeddingScorer(Drawn):
    """Measures how much nearer activating windows are to others than silent ones are, on *trials* trials of *examples* a side.

    They are drawn from all windows, or from *windows* activating ones and as many silent ones.
    """

    kind: Literal["example-embedding"]
    embedder: Id
    windows: Count | None = None
    trials: Count = 20
    examples: Count = 10
    negatives: Silent = "random"


DirectScorerSpec = Annotated[IntruderScorer | ExampleEmbeddingScorer, Field(discriminator="kind")]
