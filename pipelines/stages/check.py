"""Stage `check`, and `interplake check`: everything that can be known to be wrong before a long run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from builders.engines.reading import require_template
from builders.errors import UserError
from builders.lake.shards import write_atomic
from builders.saes import formats
from builders.saes.fidelity import require_width
from builders.steering.behaviours import count_of
from builders.subjects import checkpoints
from builders.subjects.hookpoints import width_at
from pipelines.graph.stage import BUILD, run
from pipelines.opened import behaviours, corpora
from pipelines.opened.dictionaries import folder_of, mounted, published
from pipelines.opened.engines import http_engine
from pipelines.opened.subjects import source_of
from pipelines.params import EngineSpec, HubText, InModel, OpenAiEngine, Params, PretrainedSae, Sae, load

if TYPE_CHECKING:
    from torch import nn


PASSED = BUILD / "checked.txt"
WORDS = "params.yaml is in order, and so is what it names.\n"  # always the same, so that what waits for it runs no more for that


def main() -> None:
    """Find mistakes in params.yaml and in what it names, before any other stage runs."""
    for line in check_all(load(), offline=False):
        print(line)
    write_atomic(PASSED, WORDS.encode())


def check_all(params: Params, *, offline: bool) -> Iterator[str]:
    """Yield one line for each thing that is in order; raise UserError at the first that is not."""
    for name, text in params.corpora.items():
        if isinstance(text, HubText) and offline:
            yield f"corpus {name}: on the Hub, not looked at"
            continue
        first = next((document for document in corpora.documents_of(text) if document[1].strip()), None)
        if first is None:
            raise UserError(f"corpora.{name}: holds no text; check its paths and column")
        yield f"corpus {name}: begins with {first[0]!r}"
    for name in params.subjects:
        yield from check_subject(params, name, offline=offline)
    for name in params.behaviours:
        behaviours.hashes(name, params.behaviours[name])
        questions = behaviours.questions_of(name, params)
        yield f"behaviour {name}: {count_of(questions.pairs)} questions for vectors, {count_of(questions.tests)} for tests"
    for name, engine in params.engines.items():
        yield check_engine(name, engine, offline=offline)


def check_subject(params: Params, name: str, *, offline: bool) -> Iterator[str]:
    """Yield one line for a subject and for each of its SAEs that is in order."""
    subject = params.subjects[name]
    if subject.repo is not None and offline:
        yield f"subject {name}: on the Hub, not looked at"
        return
    source = source_of(subject)
    checkpoint = checkpoints.fetch(source)
    config = checkpoints.config_of(source, checkpoint)
    tokenizer = checkpoints.tokenizer_of(source, checkpoint)
    limit = checkpoints.context_of(config)
    if limit is not None and params.tokens.length > limit:
        raise UserError(f"tokens.length is {params.tokens.length}, but {name} reads {limit} tokens at most; lower it")
    if params.tokens.bos == "row" and tokenizer.bos_token_id is None:
        raise UserError(f"tokens.bos is `row`, but the tokenizer of {name} has no BOS token; set it to `none`")
    device = checkpoints.resolve_device(subject.device)
    dtype = checkpoints.resolve_dtype(subject.dtype, device, config)
    yield f"subject {name}: {config.architectures[0] if config.architectures else config.model_type}, {dtype} on {device}"
    skeleton = checkpoints.skeleton(source, config)
    for sae, spec in params.saes.items():
        if spec.subject == name:
            yield check_dictionary(sae, spec, skeleton, int(config.get_text_config().hidden_size), offline=offline)


def check_engine(name: str, spec: EngineSpec, *, offline: bool) -> str:
    """Return one line for an engine that is in order: its key is set, its server answers, its model can hold a conversation."""
    if isinstance(spec, OpenAiEngine):
        client = http_engine(spec)
        if not offline:
            client.reach()
        return f"engine {name}: {spec.model} at {spec.base_url}" + (", not asked" if offline else "")
    if spec.path is not None or not offline:
        source = checkpoints.Source(spec.path, spec.repo, spec.revision)
        require_template(checkpoints.tokenizer_of(source, checkpoints.fetch(source)), spec.path or str(spec.repo))
    return f"engine {name}: {spec.path or spec.repo} run by {spec.kind}"


def check_dictionary(name: str, spec: Sae, skeleton: nn.Module, d_model: int, *, offline: bool) -> str:
    """Return one line for a dictionary that is in order: its hookpoints exist, and its file fits them."""
    if not isinstance(spec, InModel):
        return f"sae {name}: reads the tokens of {spec.subject}"
    try:
        sizes = [width_at(skeleton, hookpoint, d_model) for hookpoint in (spec.reads, spec.rebuilds)]
    except UserError as error:
        raise UserError(f"saes.{name}: {error}") from None
    if isinstance(spec, PretrainedSae):
        if spec.path is not None:
            require_width(mounted(spec, published(name, spec, Path(spec.path))), name, *sizes)
        elif not offline:
            formats.require_folder(str(spec.repo), str(spec.revision), folder_of(spec))
    writes = f", writes {spec.rebuilds}" if spec.rebuilds != spec.reads else ""
    return f"sae {name}: reads {spec.reads}{writes} of {spec.subject}"


if __name__ == "__main__":
    run(main)
