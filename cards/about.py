"""What a release says of itself beside its figures: description, citation, limits, and the responsible-AI terms of Croissant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cards.limits import limits
from cards.render import render

# What the texts of a corpus may hold of people, by its source.
PEOPLE = {
    "python-docs": "The documentation of Python names some of its authors, in public.",
    "townsfolk": "The people of its talks are invented.",
}
UNKNOWN = "Nobody has searched its texts for what is personal: `tokens`, `contexts` and `browse` quote them as they are."


def about(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return `place`, `citation` and `limits` for the card, and `croissant`: what croissant.json says of the release as a whole.

    *facts* are those of the card's template.
    """
    known = {**facts, "place": facts["repo"] or facts["name"]}
    words = {"citation": render("citation.bib.j2", known), "limits": limits(known)}
    described = {
        **{name: known[name] for name in ("name", "title", "version", "license", "language")},
        "description": " ".join(render("about.md.j2", known).split()),
        "citation": words["citation"],
        "creator": "The interplake authors",
        "made_from": [row["source"] for row in known["ingredients"]],
        "made_by": f"interplake {known['made_by']}; provenance.json has params, versions and hashes",
        "rai": {**responsible(known), "dataLimitations": [*words["limits"]]},
    }
    return {**words, "place": known["place"], "croissant": described}


def responsible(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the responsible-AI terms of Croissant, but for the limits: https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html."""
    tokens, contexts, corpora = facts["tokens"], facts["contexts"], facts["corpora"]
    scorers = {**facts["scorers"], **facts["direct_scorers"]}
    tools = [f"{name} ({spec['kind']})" for section in ("explainers", "judges") for name, spec in facts[section].items()]
    return {
        "dataCollection": f"Language models read the corpora {', '.join(corpora)}, and dictionaries turned their vectors into activations. "
        "Nothing was collected from people for this release.",
        "dataCollectionType": ["Software Collection", "Derived from existing text corpora and language models"],
        "dataPreprocessingProtocol": [
            f"Texts were cut into rows of {tokens['length']} tokens and windows of {tokens['window']}. Explainers saw {contexts['train']} "
            f"activating windows of a latent, and scorers {contexts['test']} others, none of which overlaps them."
        ],
        "dataAnnotationProtocol": [
            f"Explainers ({', '.join(facts['explainers'])}) put windows into words; scorers ({', '.join(scorers)}) ask judges to predict "
            "the latent on other windows from these words. No person annotated anything."
        ],
        "annotationsPerItem": f"An explanation by each explainer and a score by each of {len(scorers)} scorers, where a latent was drawn.",
        "machineAnnotationTools": sorted(set(tools)),
        "dataBiases": [
            f"What latents mean is measured on the corpora {', '.join(corpora)} only.",
            "Latents that fire rarely are left out of explanations and scores.",
            "Explanations and judgements carry the biases of the explainers and judges that made them.",
        ],
        "personalSensitiveInformation": [f"{name}: {PEOPLE.get(corpus['source'], UNKNOWN)}" for name, corpus in corpora.items()],
        "dataUseCases": [
            "Finding latents by what they respond to, and studying how explanations of latents are made and scored.",
            "Training data for models that put directions into words.",
            "Not meant as proof of what a model knows, intends or will do.",
        ],
        "dataSocialImpact": "Explanations that sound right may be wrong: read their scores, chance levels and baselines first.",
        "dataReleaseMaintenancePlan": "A release under a tag does not change; a later one has another semantic version and a changelog.",
    }
