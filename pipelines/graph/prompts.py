"""Which prompts an explainer or a scorer of params uses: those of its kind where it asks a language model, else none."""

from __future__ import annotations

from typing import Any

from pipelines.params import AskingExplainer, ModelJudge, Params

# The stages that have explainers or scorers, and the section of params that names these.
ASKING = {"explanations": "explainers", "scores": "scorers", "direct": "direct_scorers"}


def prompts_of(params: Params, spec: Any) -> set[str]:
    """Return the files of the prompts that *spec*, a section of an explainer or a scorer, uses, as paths from the project's root."""
    if isinstance(spec, AskingExplainer):
        from builders.explainers.chat import files_of  # a fraction of a second that most runs do without

        return {f"builders/explainers/prompts/{name}" for name in files_of(spec.kind)}
    if not isinstance(params.judges.get(getattr(spec, "judge", "")), ModelJudge):
        return set()
    return {f"builders/scorers/prompts/{name}" for name in _of_scorer(spec)}


def _of_scorer(spec: Any) -> tuple[str, ...]:
    from builders.scorers import chat, intervention, intruder, simulators, surprisal

    if spec.kind == "simulation":
        return simulators.FORMS[spec.form].files
    kinds = {"intervention": intervention.FILES, "intruder": intruder.FILES, "surprisal": surprisal.FILES}
    return kinds.get(spec.kind, chat.FILES)
