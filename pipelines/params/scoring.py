"""Sections about judges, embedders and scorers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Count, Device, Id, Revision, Section, Share, Whole

Silent = Literal["random", "similar", "cofiring", "decoder", "encoder", "row", "decoy"]  # kinds of windows in which a latent is silent


class LexicalJudgeParams(Section):
    """Reads the cues of an explanation by the lexical explainer and looks for them in windows."""

    kind: Literal["lexical"]


class CalibrationParams(Section):
    """How much a language model is asked about planted rules, each time with their true explanations; see docs/science.md#calibration.

    It is asked about *rules* rules, and for each rule about *windows* activating windows and as many negatives; 0 rules ask nothing.
    """

    rules: Whole = 16
    windows: Count = 20


class ModelJudgeParams(Section):
    """A language model of `engines`; a prompt shows *shown* windows.

    *form* says how detection, fuzzing and intruder are asked. In `list` the answer must fit a JSON schema: a list of as many zeros and ones
    as there are windows. In `single` a prompt shows one window and the answer is one digit. In `free` the answer is free text, as in the
    paper. With *logprobs* the probability of each answer is read too. The stage fails if more than *max_failed_share* of its requests fail.
    Answers are kept, so a second run makes only the failed requests again. *calibration* limits what is asked about planted rules.
    """

    kind: Literal["model"]
    engine: Id
    form: Literal["list", "single", "free"] = "list"
    shown: Count = 5
    logprobs: bool = False
    max_tokens: Count = 100
    max_failed_share: Share = 0.05
    calibration: CalibrationParams = CalibrationParams()


JudgeParams = Annotated[LexicalJudgeParams | ModelJudgeParams, Field(discriminator="kind")]


class LexicalEmbedderParams(Section):
    """Hashed counts of letter sequences; needs no model."""

    kind: Literal["lexical"]


class SentenceEmbedderParams(Section):
    """An embedding model: a folder, a repository on the Hub at a pinned commit, or a Python *package* that holds its files.

    *instruction* is put before queries; it may be the name of one of the model's own prompts. If the model is missing and *fallback* is
    `lexical`, the lexical embedder embeds instead, and every row says so. Python code of the model's folder runs only with
    *trust_remote_code*. The values of *config* take the place of those of its config.json.
    """

    kind: Literal["sentence"]
    path: str | None = None
    repo: str | None = None
    revision: Revision | None = None
    package: str | None = None
    instruction: str = ""
    fallback: Literal["lexical", "none"] = "none"
    device: Device = "auto"
    trust_remote_code: bool = False
    config: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.package is not None and self.trust_remote_code:
            raise ValueError("code of a `package` never runs; leave out `trust_remote_code`, or give `path` or `repo`")
        if [self.path, self.repo, self.package].count(None) != 2:
            raise ValueError("give one of `path`, `repo` and `package`")
        if self.repo is not None and self.revision is None:
            raise ValueError("a `repo` needs its `revision`, the 40-digit commit to pin")
        return self


EmbedderParams = Annotated[LexicalEmbedderParams | SentenceEmbedderParams, Field(discriminator="kind")]


class DrawnParams(Section):
    """What all scorers share: at most *latents* latents are scored, drawn by address; scorers with equal *latents* score the same.

    With *saes* only these dictionaries are scored.
    """

    latents: Count | None = None
    saes: list[Id] | None = None
    needs_model: ClassVar[bool] = False  # whether only a language model can judge

    @property
    def answered_by(self) -> tuple[str, str]:
        """The section of params and the id of the judge or embedder that answers."""
        section = "judges" if hasattr(self, "judge") else "embedders"
        return section, getattr(self, section.removesuffix("s"))


class WindowsParams(DrawnParams):
    """What scorers of windows share: at most *windows* activating windows are judged, and as many silent ones; without it, all."""

    windows: Count | None = None


class DetectionScorerParams(WindowsParams):
    """Asks whether the latent fires in a window; see docs/science.md#detection.

    With negatives `pool` the silent windows are those of `contexts.negatives.pool`, hundreds that all latents share.
    """

    kind: Literal["detection"]
    judge: Id
    negatives: Literal[Silent, "pool"] = "random"


class FuzzingScorerParams(WindowsParams):
    """Asks whether the latent fires on the marked tokens; negatives `active` are activating windows with the wrong tokens marked.

    Negatives `decoy` mark, in silent windows, tokens on which the latent fires elsewhere.
    *marks* says how a negative is marked in which nothing fires: with the `borrowed` positions of a positive's marks, or on `random`
    tokens, as in the paper.
    """

    kind: Literal["fuzzing"]
    judge: Id
    negatives: Literal[Silent, "active"] = "random"
    marks: Literal["borrowed", "random"] = "borrowed"

    @model_validator(mode="after")
    def _silent_windows_are_marked(self) -> Self:
        if self.negatives in {"active", "decoy"} and self.marks == "random":
            raise ValueError(f"negatives `{self.negatives}` have marks of their own; leave out `marks`")
        return self


class SimulationScorerParams(DrawnParams):
    """Asks how strongly the latent fires on each token of *windows* activating windows and as many silent ones.

    With *shots* `unknown` the worked examples of all-at-once begin with unknown levels, as in the original; with `known` all are told.
    """

    kind: Literal["simulation"]
    judge: Id
    form: Literal["all-at-once", "token-by-token", "json"] = "all-at-once"
    shots: Literal["known", "unknown"] = "known"
    windows: Count = 50
    negatives: Silent = "random"

    @model_validator(mode="after")
    def _shots_fit(self) -> Self:
        if self.shots == "unknown" and self.form != "all-at-once":
            raise ValueError(f"`shots` `unknown` belongs to form `all-at-once`, not `{self.form}`; leave it out")
        return self


class SurprisalScorerParams(WindowsParams):
    """Measures how much likelier the explanation makes a window, in nats."""

    kind: Literal["surprisal"]
    judge: Id
    needs_model: ClassVar[bool] = True
    negatives: Silent = "random"


class EmbeddingScorerParams(WindowsParams):
    """Measures how near a window is to the explanation."""

    kind: Literal["embedding"]
    embedder: Id
    negatives: Silent = "random"


class InterventionScorerParams(DrawnParams):
    """Measures how much likelier a passage makes the explanation once the latent is pushed by *kl* nats, or silenced with *ablate*.

    The score is a mean over *prompts* beginnings of rows that end in test windows, each continued by *tokens* tokens. The strength of the
    push is tuned on them, and so is that of a random direction, the null.
    """

    kind: Literal["intervention"]
    judge: Id
    needs_model: ClassVar[bool] = True
    kl: Annotated[float, Field(gt=0)] = 1.0
    ablate: bool = False
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
