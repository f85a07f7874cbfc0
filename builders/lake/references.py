"""The foreign keys that many tables share: to subjects, dictionaries, latents, explanations and rows of tokens."""

from __future__ import annotations

from builders.lake.table import Reference


def to_latents(sae: str, latent: str) -> Reference:
    """Return the foreign key from the columns *sae* and *latent* to `latents`."""
    return Reference((sae, latent), "latents", ("sae", "latent"))


def to_saes(sae: str) -> Reference:
    """Return the foreign key from the column *sae* to `saes`; the word `all` is no dictionary."""
    return Reference((sae,), "saes", ("sae",), unless=((sae, "all"),))


OF_SUBJECT = Reference(("subject",), "subjects", ("subject",))
OF_SAE = to_saes("sae")
OF_LATENT = to_latents("sae", "latent")
# `none` stands where a scorer needs no explanation.
OF_EXPLANATION = Reference(("sae", "latent", "explainer"), "explanations", ("sae", "latent", "explainer"), unless=(("explainer", "none"),))
OF_ROW = Reference(("sae", "row"), "tokens", ("subject", "row"), through="saes")
OF_TEST_WINDOW = Reference(("sae", "latent", "example"), "contexts", ("sae", "latent", "example"), where=(("split", "test"),))
