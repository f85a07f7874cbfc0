"""Which prompt files an explainer or scorer of params uses: those of its kind if it asks a language model, otherwise none."""

from __future__ import annotations

from typing import Any

from pipelines.params import AskingExplainerParams, ModelJudgeParams, Params

# The stages that have explainers or scorers, and the section of params that names these.
ASKING = {"explanations": "explainers", "scores": "scorers", "direct": "direct_scorers"}


def prompts_of(params: Params, spec: Any) -> set[str]:
    """Return the prompt files that *spec*, an explainer or scorer of params, uses, as paths from the project's root."""
    if isinstance(spec, AskingExplainerParams):
        from builders.explainers.chat import files_of  # this import takes a fraction of a second, and most runs do not need it

        return {f"builders/explainers/prompts/{name}" for name in files_of(spec.kind)}
    judge = params.judges.get(getattr(spec, "judge", ""))
    if not isinstance(judge, ModelJudgeParams):
        return set()
    return {f"builders/scorers/prompts/{name}" for name in _of_scorer(spec, judge.form)}


def _of_scorer(spec: Any, form: str) -> tuple[str, ...]:
    from builders.scorers import forms, intervention, intruder, simulators, surprisal

    if spec.kind == "simulation":
        return simulators.form_of(spec.form, spec.shots).files
    kinds = {"intervention": intervention.FILES, "intruder": intruder.FORMS[form].files, "surprisal": surprisal.FILES}
    return kinds.get(spec.kind, forms.FORMS[form].files)
