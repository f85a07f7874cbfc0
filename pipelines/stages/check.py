"""Stage `check`, and `interplake check`: find the mistakes that can be found before a long run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from builders.engines.reading import require_template
from builders.errors import MissingError, UserError
from builders.lake.shards import write_atomic
from builders.saes import formats
from builders.saes.fidelity import require_width
from builders.steering.orders import count_of
from builders.subjects import checkpoints, places
from builders.subjects.anatomy import anatomy_of
from builders.subjects.hookpoints import width_at
from pipelines.graph.stage import BUILD, run
from pipelines.opened import behaviours, corpora
from pipelines.opened.dictionaries import folder_of, mounted, published
from pipelines.opened.engines import http_engine, llamacpp_engine, may_be_skipped
from pipelines.opened.subjects import source_of
from pipelines.params import (
    EngineParams,
    HubTextParams,
    InModelParams,
    LlamaCppEngineParams,
    OpenAiEngineParams,
    Params,
    PretrainedSaeParams,
    SaeParams,
    TransformersEngineParams,
    VllmEngineParams,
    load,
)

if TYPE_CHECKING:
    from torch import nn


PASSED = BUILD / "checked.txt"
WORDS = "params.yaml is in order, and so is what it names.\n"  # always the same words, so that a check makes no other stage run again


def main() -> None:
    """Find mistakes in params.yaml, and in the files and models that it names, before any other stage runs."""
    for line in check_all(load(), offline=False):
        print(line)
    write_atomic(PASSED, WORDS.encode())


def check_all(params: Params, *, offline: bool) -> Iterator[str]:
    """Yield a line for each corpus, subject, dictionary, behaviour and engine in order; raise UserError at the first that is not."""
    for corpus_id, spec in params.corpora.items():
        if isinstance(spec, HubTextParams) and offline:
            yield f"corpus {corpus_id}: on the Hub, not looked at"
            continue
        first = next((document for document in corpora.documents_of(spec) if document[1].strip()), None)
        if first is None:
            raise UserError(f"corpora.{corpus_id}: holds no text; check its paths and column")
        yield f"corpus {corpus_id}: begins with {first[0]!r}"
    for subject_id in params.subjects:
        yield from check_subject(params, subject_id, offline=offline)
    for behaviour_id, behaviour in params.behaviours.items():
        behaviours.hashes(behaviour_id, behaviour)
        questions = behaviours.questions_of(behaviour_id, params)
        yield f"behaviour {behaviour_id}: {count_of(questions.pairs)} questions for vectors, {count_of(questions.tests)} for tests"
    for engine_id, engine in params.engines.items():
        yield check_engine(engine_id, engine, offline=offline)


def check_subject(params: Params, subject_id: str, *, offline: bool) -> Iterator[str]:
    """Yield a line for a subject, and one for each of its dictionaries; raise UserError at the first that is not in order."""
    subject = params.subjects[subject_id]
    if subject.repo is not None and offline:
        yield f"subject {subject_id}: on the Hub, not looked at"
        return
    source = source_of(subject)
    checkpoint = places.fetch(source)
    config = checkpoints.config_of(source, checkpoint)
    tokenizer = checkpoints.tokenizer_of(source, checkpoint)
    limit = checkpoints.context_of(config)
    if limit is not None and params.tokens.length > limit:
        raise UserError(f"tokens.length is {params.tokens.length}, but {subject_id} reads {limit} tokens at most; lower it")
    if params.tokens.bos == "row" and tokenizer.bos_token_id is None:
        raise UserError(f"tokens.bos is `row`, but the tokenizer of {subject_id} has no BOS token; set it to `none`")
    device = checkpoints.resolve_device(subject.device)
    dtype = checkpoints.resolve_dtype(subject.dtype, device, config)
    yield f"subject {subject_id}: {config.architectures[0] if config.architectures else config.model_type}, {dtype} on {device}"
    skeleton = checkpoints.skeleton(source, config)
    if params.lenses.kinds and not subject.reinitialised:
        check_lenses(subject_id, skeleton, subject.norm)
    for sae_id, spec in params.saes.items():
        if spec.subject == subject_id:
            yield check_dictionary(sae_id, spec, skeleton, int(config.get_text_config().hidden_size), offline=offline)


def check_lenses(subject_id: str, skeleton: nn.Module, norm: str | None) -> None:
    """Raise UserError unless what lenses need is found in a model without weights: blocks, final norm and unembedding."""
    try:
        anatomy_of(skeleton, norm)
    except UserError as error:
        raise UserError(f"subjects.{subject_id}: {error}") from None


def check_engine(engine_id: str, spec: EngineParams, *, offline: bool) -> str:
    """Return a line for an engine: its key is set, its server answers, its model has a chat template; raise UserError otherwise."""
    if isinstance(spec, OpenAiEngineParams):
        client = http_engine(spec)
        if not offline:
            client.reach()
        return f"engine {engine_id}: {spec.model} at {spec.base_url}" + (", not asked" if offline else "")
    if spec.repo is None or not offline:
        try:
            check_model(spec)
        except MissingError as error:
            if not may_be_skipped(spec):
                raise
            return f"engine {engine_id}: {error}; without it, rows say so"
    return f"engine {engine_id}: {spec.place} run by {spec.kind}"


def check_model(spec: VllmEngineParams | TransformersEngineParams | LlamaCppEngineParams) -> None:
    """Raise UserError unless the model of an engine in this process is there and has a chat template."""
    if isinstance(spec, LlamaCppEngineParams):
        llamacpp_engine(spec).require_template()
    else:
        source = source_of(spec)
        require_template(checkpoints.tokenizer_of(source, places.fetch(source)), spec.place)


def check_dictionary(sae_id: str, spec: SaeParams, skeleton: nn.Module, d_model: int, *, offline: bool) -> str:
    """Return a line for a dictionary: its hookpoints exist, and its file fits them; raise UserError otherwise."""
    if not isinstance(spec, InModelParams):
        return f"sae {sae_id}: reads the tokens of {spec.subject}"
    try:
        sizes = [width_at(skeleton, hookpoint, d_model) for hookpoint in (spec.reads, spec.rebuilds)]
    except UserError as error:
        raise UserError(f"saes.{sae_id}: {error}") from None
    if isinstance(spec, PretrainedSaeParams):
        if spec.path is not None:
            require_width(mounted(spec, published(sae_id, spec, Path(spec.path))), sae_id, *sizes)
        elif not offline:
            formats.require_folder(str(spec.repo), str(spec.revision), folder_of(spec))
    writes = f", writes {spec.rebuilds}" if spec.rebuilds != spec.reads else ""
    return f"sae {sae_id}: reads {spec.reads}{writes} of {spec.subject}"


if __name__ == "__main__":
    run(main)
