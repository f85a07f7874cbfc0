"""params.yaml as types: a typo, a wrong type or a dangling name is one line before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from builders.errors import UserError, one_of

FILE = "params.yaml"
LAB = Path("checkpoints/recipe.yaml")
Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Read = TypeVar("Read", bound=Section)


class PythonDocs(Section):
    """The documentation and docstrings of the Python that runs the pipeline."""

    source: Literal["python-docs"]
    held_out: Share = 0.1


class Files(Section):
    """txt, jsonl and parquet files, by path or glob; *column* is the field that holds the text."""

    source: Literal["files"]
    paths: Annotated[list[str], Field(min_length=1)]
    column: str = "text"
    held_out: Share = 0.1


class HubText(Section):
    """The first *documents* rows of a dataset on the Hub, at a pinned commit."""

    source: Literal["hub"]
    repo: str
    revision: Revision
    documents: Count
    config: str | None = None
    split: str = "train"
    column: str = "text"
    held_out: Share = 0.1


Corpus = Annotated[PythonDocs | Files | HubText, Field(discriminator="source")]


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


class Subject(Pinned):
    """A language model under study."""

    corpus: Id
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    trust_remote_code: bool = False


class Tokens(Section):
    """How text becomes rows (SCIENCE C10): every choice is explicit."""

    length: Count
    window: Count
    bos: Literal["row", "none"]
    packing: Literal["document", "joined"]
    partial: Literal["keep", "drop"]

    @model_validator(mode="after")
    def _whole_windows(self) -> Tokens:
        if self.length % self.window:
            raise ValueError(f"`length` ({self.length}) must be a multiple of `window` ({self.window})")
        return self


class InModel(Section):
    """A dictionary of what flows at a *hookpoint* of a subject, such as `layers.3` or `layers.3.mlp.down_proj.input`."""

    subject: Id
    hookpoint: str

    @property
    def reads(self) -> str:
        """The hookpoint it reads."""
        return self.hookpoint

    @property
    def rebuilds(self) -> str:
        """The hookpoint it writes: the same, but for transcoders."""
        return getattr(self, "writes", None) or self.hookpoint


class TrainedSae(InModel):
    """An SAE that the pipeline trains; *k* is TopK's L0 and JumpReLU's target L0, *l1* the penalty of ReLU."""

    source: Literal["train"]
    activation: Literal["topk", "jumprelu", "relu"]
    width: Count
    k: Count | None = None
    l1: Annotated[float, Field(gt=0)] | None = None
    multi_topk: bool = False
    auxk: Annotated[float, Field(ge=0)] = 1 / 32
    seed: int = 0

    @model_validator(mode="after")
    def _sparsity_fits(self) -> TrainedSae:
        needed, other = ("l1", "k") if self.activation == "relu" else ("k", "l1")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"activation `{self.activation}` takes `{needed}`, not `{other}`")
        if self.k is not None and self.k > self.width:
            raise ValueError(f"`k` ({self.k}) is larger than `width` ({self.width})")
        if self.multi_topk and self.activation != "topk":
            raise ValueError("`multi_topk` belongs to activation `topk`")
        return self


class PretrainedSae(Pinned, InModel):
    """A published dictionary: a local folder (or .pt file), or a *folder* of a Hub repository; its format shows in its files.

    *writes* is where a transcoder writes; *input_scale* is the factor on activations that some SAELens releases want;
    *centered* says that it was trained on vectors less their mean (TransformerLens' `center_writing_weights`).
    """

    source: Literal["pretrained"]
    folder: str | None = None
    writes: str | None = None
    input_scale: Annotated[float, Field(gt=0)] | None = None
    centered: bool = False


class NeuronBasis(InModel):
    """The coordinates of the vectors themselves, the largest *k* kept; *rotated* is the control in a random basis."""

    source: Literal["neurons"]
    k: Count
    rotated: bool = False
    seed: int = 0


class RandomSae(InModel):
    """An untrained TopK SAE: Gaussian rows of unit norm, decoder and encoder the same."""

    source: Literal["random"]
    width: Count
    k: Count
    seed: int = 0


class PlantedRules(Section):
    """Rules over text, whose true explanations are known."""

    source: Literal["planted"]
    subject: Id


Sae = Annotated[TrainedSae | PretrainedSae | NeuronBasis | RandomSae | PlantedRules, Field(discriminator="source")]


class Training(Section):
    """What all SAE trainings share (*batch*, *buffer*, *dead_after* in tokens) and on how many rows SAEs are measured.

    At most *together* SAEs of a subject are trained in one pass over its activations.
    """

    together: Count
    batch: Count
    buffer: Count
    passes: Count
    lr: Annotated[float, Field(gt=0)]
    dead_after: Count
    batch_rows: Count
    measured_rows: Annotated[int, Field(ge=2)]


class Activations(Section):
    """How the corpus is read: rows at a time, rows to a spilled chunk, activations to a file."""

    batch_rows: Count
    chunk_rows: Count
    file_rows: Count
    rare_windows: Count
    self_test: Count


class Contexts(Section):
    """How many windows explainers (train) and scorers (test) see of each latent, and how they are drawn.

    A latent that fires in fewer than *at_least* windows is left out, even if there are enough to show.
    """

    at_least: Annotated[int, Field(ge=0)] = 0
    train: Count
    test: Count
    train_random: Count
    test_random: Count
    quantiles: Count
    sampler: Literal["top", "random", "quantiles", "mix"]
    top_share: Share = 0.2
    windows: Literal["whole", "centered"]


class Prices(Section):
    """US dollars per million tokens: read anew, read before, written."""

    prompt: Annotated[float, Field(ge=0)] = 0.0
    cached: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0


class OpenAiEngine(Section):
    """A server that speaks OpenAI's API; its key is read from the environment variable *key_variable*."""

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: str
    key_variable: str | None = None
    concurrency: Count = 32
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    price: Prices = Prices()


class VllmEngineSpec(Pinned):
    """A model that vLLM loads into this process; *memory* is the share of GPU memory, *context* in tokens."""

    kind: Literal["vllm"]
    memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    context: Count | None = None
    tensor_parallel: Count = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = None
    price: Prices = Prices()


class TransformersEngine(Pinned):
    """A small model run by the transformers library."""

    kind: Literal["transformers"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    price: Prices = Prices()


EngineSpec = Annotated[OpenAiEngine | VllmEngineSpec | TransformersEngine, Field(discriminator="kind")]


class Explainer(Section):
    """What all explainers share: whether each text is also given to another latent, as a baseline."""

    baseline: Literal["permuted", "none"] = "permuted"


class LexicalExplainer(Explainer):
    """Token statistics in words; *cues* is how many it names at most."""

    kind: Literal["lexical"]
    cues: Count = 6


class ChatExplainer(Explainer):
    """A language model reads windows; of *examples* windows contrastive ones show *silent* silent ones.

    At most *latents* latents are explained, drawn by address. The stage fails where more than *max_failed_share* of
    the requests do; answers are kept, so that running it again asks only what failed.
    """

    kind: Literal["default", "no-activations", "chain-of-thought", "logits", "contrastive", "single-token"]
    engine: Id
    examples: Count = 40
    silent: Count = 5
    max_tokens: Count = 500
    temperature: Annotated[float, Field(ge=0)] = 0.0
    latents: Count | None = None
    max_failed_share: Share = 0.05

    @model_validator(mode="after")
    def _some_active(self) -> ChatExplainer:
        if self.kind == "contrastive" and self.silent >= self.examples:
            raise ValueError(f"`silent` ({self.silent}) leaves no activating window among `examples` ({self.examples})")
        return self


class InterventionExplainer(Explainer):
    """A language model reads what becomes likelier when a latent's direction is pushed, by *kl* nats, on *examples* beginnings."""

    kind: Literal["intervention"]
    engine: Id
    examples: Count = 10
    kl: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Count = 100
    temperature: Annotated[float, Field(ge=0)] = 0.0
    latents: Count | None = None
    max_failed_share: Share = 0.05


class ImportedExplainer(Explainer):
    """Somebody's explanations of one SAE, from a table, the JSON of the published release, or a folder of one file a latent."""

    kind: Literal["import"]
    path: str


AskingExplainer = ChatExplainer | InterventionExplainer
ExplainerSpec = Annotated[LexicalExplainer | AskingExplainer | ImportedExplainer, Field(discriminator="kind")]


class LexicalJudge(Section):
    """Reads the cues back from the words and looks for them."""

    kind: Literal["lexical"]


class Scorer(Section):
    """A question asked of a judge."""

    kind: Literal["detection", "fuzzing"]
    judge: Id


class LabTransformer(Section):
    """How the lab transformer is built and trained; *length* in tokens, *batch* in rows."""

    vocabulary: Count
    width: Count
    layers: Count
    heads: Count
    hidden: Count
    length: Count
    batch: Count
    epochs: Count
    lr: Annotated[float, Field(gt=0)]
    dropout: Share
    weight_decay: Annotated[float, Field(ge=0)]
    held_out: Share


class Lab(Section):
    """The recipes of the lab checkpoints, in a file beside them."""

    seed: int
    transformer: LabTransformer


class Release(Section):
    """What the release is called and how it may be used."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    title: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    license: str
    language: list[str]


class Params(Section):
    """The whole of params.yaml."""

    seed: int
    corpora: dict[Id, Corpus]
    subjects: dict[Id, Subject]
    tokens: Tokens
    saes: Annotated[dict[Id, Sae], Field(min_length=1)]
    training: Training
    activations: Activations
    contexts: Contexts
    engines: dict[Id, EngineSpec] = {}
    explainers: dict[Id, ExplainerSpec]
    judges: dict[Id, LexicalJudge]
    scorers: dict[Id, Scorer]
    release: Release

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        uses: list[tuple[str, str, Mapping[str, Any]]]
        uses = [(f"subjects.{name}.corpus", subject.corpus, self.corpora) for name, subject in self.subjects.items()]
        uses += [(f"saes.{name}.subject", sae.subject, self.subjects) for name, sae in self.saes.items()]
        asking = {name: spec for name, spec in self.explainers.items() if isinstance(spec, AskingExplainer)}
        uses += [(f"explainers.{name}.engine", spec.engine, self.engines) for name, spec in asking.items()]
        uses += [(f"scorers.{name}.judge", scorer.judge, self.judges) for name, scorer in self.scorers.items()]
        for name in self.explainers:
            if name.endswith("-permuted"):
                raise ValueError(f"explainers.{name}: `-permuted` is how baselines are called; choose another id")
        for place, name, known in uses:
            if name not in known:
                raise ValueError(f"{place}: {name!r} is not defined; defined are {one_of(known) or 'none'}")
        return self


def load(file: Path | str | None = None) -> Params:
    """Read params.yaml (or *file*, or $INTERPLAKE_PARAMS); raise UserError with file, key and what is allowed."""
    path = Path(file or os.environ.get("INTERPLAKE_PARAMS", FILE))
    if not path.is_file():
        raise UserError(f"{path}: not found; run this in the project's folder")
    return _read(path, Params)


def load_lab() -> Lab:
    """Read the recipes of the lab checkpoints."""
    return _read(LAB, Lab)


def _read(path: Path, section: type[Read]) -> Read:
    try:
        return section.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """Return the first problems of a pydantic error as one line."""
    problems = [_problem(detail) for detail in error.errors()]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _problem(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    given = "" if isinstance(detail.get("input"), dict) else f" (given: {detail.get('input')!r})"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{place}: unknown key; remove it or correct its name"
    if kind == "missing":
        return f"{place}: missing"
    if "[key]" in detail["loc"]:
        return f"{place}: an id may hold a-z, 0-9 and single dashes only"
    if kind == "value_error":
        return (f"{place}: " if place else "") + str(context["error"])
    return f"{place}: {detail['msg'].lower()}{given}"
