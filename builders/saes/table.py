"""The `saes` config: dictionaries, and how faithful they are."""

from __future__ import annotations

from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table

SAES = Table(
    name="saes",
    row="a dictionary of latents of a subject, and how faithful it is on held-out tokens",
    key=("sae",),
    columns=(
        Column("sae", "string", "its id in this release"),
        Column("subject", "string", "the language model it reads", categorical=True),
        Column("hookpoint", "string", "the module whose output (or `.input`) it reads; null if it reads tokens", nullable=True),
        Column("writes", "string", "the hookpoint that it reconstructs; only a transcoder reads elsewhere", nullable=True),
        Column("kind", "string", "trained (here), pretrained (by others), neurons, random or planted", categorical=True),
        Column("format", "string", "the file format of its weights; none if this row defines it without a file", categorical=True),
        Column("source", "string", "where it came from: made here, a Hub repository, a folder"),
        Column("revision", "string", "the pinned commit of the Hub repository", nullable=True),
        Column("sha256", "string", "SHA-256 of its weights file", nullable=True),
        Column("activation", "string", "activation function", categorical=True),
        Column("width", "int32", "number of latents", unit="latents", low=1),
        Column("d_in", "int32", "size of the vectors it reads", unit="dimensions", nullable=True, low=1),
        Column("d_out", "int32", "size of the vectors it writes", unit="dimensions", nullable=True, low=1),
        Column("k", "int32", "latents kept per token (TopK, groupmax)", nullable=True, low=1),
        Column("measured_tokens", "int64", "held-out tokens on which the columns below were measured", unit="tokens", low=1),
        Column("l0", "float64", "mean number of latents that fire on a token", unit="latents", low=0),
        Column("l0_se", "float64", "standard error of l0, over rows", unit="latents", low=0),
        Column("fvu", "float64", "fraction of variance unexplained by the reconstruction (0: perfect, 1: the mean)", nullable=True, low=0),
        Column("dead_share", "float64", "share of latents that fire on none of the measured tokens", low=0, high=1),
        Column("ce_clean", "float64", "cross-entropy of the unchanged model", unit="nats per token", nullable=True, low=0),
        Column(
            "ce_spliced",
            "float64",
            "cross-entropy with the reconstruction in place of the activations",
            unit="nats per token",
            nullable=True,
        ),
        Column("ce_zeroed", "float64", "cross-entropy with zeros in place of the activations", unit="nats per token", nullable=True),
        Column("loss_added", "float64", "ce_spliced − ce_clean", unit="nats per token", nullable=True),
        Column("loss_added_se", "float64", "standard error of loss_added, over rows", unit="nats per token", nullable=True, low=0),
        Column("loss_recovered", "float64", "(ce_zeroed − ce_spliced) / (ce_zeroed − ce_clean); 1 is lossless", nullable=True),
        Column("recipe", "string", "how it was made, as JSON", nullable=True),
    ),
    references=(OF_SUBJECT,),
)
