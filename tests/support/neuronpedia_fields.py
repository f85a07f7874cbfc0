"""What Neuronpedia takes: the fields of its records and their types, copied by hand from its dataclasses and its database.

A type that may be null ends in `?`. Fields that a record must have end in `!`: the dataclass or the table has no default for them.
Source: github.com/hijohnnylin/neuronpedia at ebb8426fc550ad5d1f76d52c271a624af3c08a57, `utils/neuronpedia-utils/neuronpedia_utils`, and for
`ExplanationScore` and the lists of names `apps/webapp/prisma/schema.prisma`.
"""

from __future__ import annotations

from typing import Any

TYPES: dict[str, Any] = {"str": str, "float": (int, float), "int": int, "bool": bool, "strs": list, "floats": list, "ints": list}
ITEMS = {"strs": str, "floats": (int, float), "ints": int}

FIELDS = {
    "features": """
        modelId:str! layer:str! index:str! creatorId:str? maxActApprox:float? hasVector:bool vector:floats vectorLabel:str?
        vectorDefaultSteerStrength:float? hookName:str? topkCosSimIndices:ints topkCosSimValues:floats neg_str:strs neg_values:floats
        pos_str:strs pos_values:floats frac_nonzero:float freq_hist_data_bar_heights:floats freq_hist_data_bar_values:floats
        logits_hist_data_bar_heights:floats logits_hist_data_bar_values:floats decoder_weights_dist:floats sourceSetName:str?""",
    "activations": """
        id:str! tokens:strs! index:str! layer:str! modelId:str! maxValue:float! maxValueTokenIndex:int! minValue:float! values:floats!
        creatorId:str! dataSource:str? dataIndex:str? dfaValues:floats dfaTargetIndex:int? dfaMaxValue:float? lossValues:floats
        logitContributions:str? binMin:float? binMax:float? binContains:float? qualifyingTokenIndex:int?""",
    "explanations": """
        id:str! modelId:str! layer:str! index:str! description:str! authorId:str! triggeredById:str? typeName:str?
        explanationModelName:str? notes:str?""",
    "scores": """
        id:str! initiatedByUserId:str! value:float! explanationId:str! explanationScoreTypeName:str! explanationScoreModelName:str!
        jsonDetails:str""",
    "release": """
        name:str! description:str! creatorName:str! creatorId:str! visibility:str isNewUi:bool featured:bool descriptionShort:str?
        urls:strs creatorEmail:str? creatorNameShort:str? defaultSourceSetName:str? defaultSourceId:str? defaultUmapSourceIds:strs""",
    "model": """
        id:str! instruct:bool! creatorId:str! displayNameShort:str displayName:str tlensId:str? dimension:int? visibility:str
        defaultSourceSetName:str? defaultSourceId:str? inferenceEnabled:bool layers:int neuronsPerLayer:int owner:str website:str?""",
    "sourceset": """
        modelId:str! name:str! creatorId:str! hasDashboards:bool visibility:str description:str type:str creatorName:str urls:strs
        creatorEmail:str? releaseName:str? defaultOfModelId:str? defaultRange:int defaultShowBreaks:bool showDfa:bool
        showCorrelated:bool showHeadAttribution:bool showUmap:bool""",
    "source": """
        id:str! modelId:str! setName:str! creatorId:str! hasDashboards:bool inferenceEnabled:bool inferenceHosts:strs
        saelensConfig:str? saelensRelease:str? saelensSaeId:str? hfRepoId:str? hfFolderId:str? visibility:str defaultOfModelId:str?
        hasUmap:bool num_prompts:int? num_tokens_in_prompt:int? dataset:str? notes:str?""",
    "explanation_type": "name:str! displayName:str! description:str! creatorName:str! creatorId:str! settings:str? url:str?",
    "explanation_model_type": "name:str! displayName:str! description:str! creatorName:str! openRouterModelId:str? url:str?",
    "explanation_score_type": "name:str! displayName:str! description:str! creatorName:str! creatorId:str! scoreDescription:str? url:str?",
    "explanation_score_model": "name:str! displayName:str! description:str! creatorName:str! openRouterModelId:str? url:str?",
}


def faults(kind: str, record: dict[str, Any]) -> list[str]:
    """Return what is wrong with a record: fields that are unknown or missing, and values of another type."""
    known = dict(field.split(":") for field in FIELDS[kind].split())
    found = [f"unknown: {name}" for name in record if name not in known]
    found += [f"missing: {name}" for name, kind in known.items() if kind.endswith("!") and name not in record]
    return found + [f"wrong type: {name}" for name, value in record.items() if name in known and not _fits(known[name], value)]


def _fits(kind: str, value: Any) -> bool:
    name = kind.rstrip("?!")
    if value is None:
        return kind.endswith("?")
    if isinstance(value, bool) != (name == "bool"):
        return False
    return isinstance(value, TYPES[name]) and all(isinstance(item, ITEMS[name]) for item in (value if name in ITEMS else ()))
