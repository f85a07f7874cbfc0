"""The scan for secrets: each kind, wherever it lies, is named with file, column and row; what only looks like one is let through."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_hub import DatasetHub
from published import TEXTS, Publish, release_of
from releases import small_tables
from rows import rows_of

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import write_parquet
from builders.saes.latents import LATENTS
from pipelines.publishing.leaks import PNG, leaks
from pipelines.publishing.remote import Parcel

LETTERS = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dF2gH4"
# Put together here, so that nobody's scanner takes this file for a leak.
SECRETS = {
    "a Hugging Face token": "hf_" + LETTERS[:34],
    "an API key (sk-…)": "sk-" + "proj-" + LETTERS,
    "an AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "an AWS secret key": "aws_secret_access" + "_key = " + LETTERS + "/+ab",
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA",
    "a GitHub token": "ghp_" + LETTERS,
    "a GitLab token": "glpat-" + LETTERS[:20],
    "a Slack token": "xoxb-" + "123456789012-" + LETTERS[:24],
    "a Google API key": "AIza" + LETTERS[:35],
    "a JSON web token": f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}",
    "a bearer token": "Authorization: " + "Bearer " + LETTERS,
}
HARMLESS = (
    "risk-averse-investors-and-task-oriented-learners hf_hub_download sk-learn",
    hashlib.sha256(b"").hexdigest(),
    "the bearer of this letter, and bearer tokens",
    "AKIAN is a name, and -----BEGIN CERTIFICATE----- no key",
)


def found(name: str, content: bytes) -> list[str]:
    """Return what the scan says of one file."""
    return list(leaks({name: Parcel(content, "")}, {}))


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG picture."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_in_a_text_is_named_with_column_and_row(kind: str, tmp_path: Path) -> None:
    """Every kind is found in a text among others, with its row, its key, and no more than its first letters."""
    secret = SECRETS[kind]
    texts = ["dogs", f"it says “{secret}” and more"]
    rows = rows_of(EXPLANATIONS, *({"sae": "o\ne", "latent": latent, "explainer": "x", "text": text} for latent, text in enumerate(texts)))
    path = tmp_path / "explanations.parquet"
    write_parquet(path, EXPLANATIONS, [rows])

    (line,) = leaks({"explanations/a.parquet": Parcel(path, "")}, {"explanations": EXPLANATIONS})

    assert line.startswith(f"explanations/a.parquet: column text, row 1 (sae 'o\\ne', latent 1, explainer x): {kind} (")
    assert secret not in line


def test_lists_binary_values_and_metadata_are_searched(tmp_path: Path) -> None:
    """A secret among several texts of one row, in bytes, and in what a file says of itself, is found; rows count over row groups."""
    token = SECRETS["a GitHub token"]
    path = tmp_path / "latents.parquet"
    rows = rows_of(LATENTS, *({"latent": latent, "top_tokens": ["a", token] if latent == 3 else ["b"]} for latent in range(5)))
    write_parquet(path, LATENTS, [rows.slice(0, 2), rows.slice(2)])
    other = pa.table({"raw": pa.array([None, b"\xff" + token.encode()], pa.binary())}).replace_schema_metadata({"by": token})
    pq.write_table(other, tmp_path / "other.parquet")

    said = list(leaks({name: Parcel(tmp_path / name, "") for name in ("latents.parquet", "other.parquet")}, {}))

    shown = "a GitHub token (ghp_aB3d…)"
    assert said == [
        f"latents.parquet: column top_tokens, row 3: {shown}",
        f"other.parquet: metadata by: line 1: {shown}",
        f"other.parquet: column raw, row 1: {shown}",
    ]


def test_texts_within_pictures_are_unpacked() -> None:
    """Plain and compressed texts of a PNG picture are searched; a broken one is searched as it is."""
    token = SECRETS["a Hugging Face token"].encode()
    plain = chunk(b"tEXt", b"Author\0" + token)
    packed = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(token)) + chunk(b"zTXt", b"Broken\0\0no stream")
    international = chunk(b"iTXt", b"Title\0\1\0en\0Titel\0" + zlib.compress(token))

    assert [line.partition(": a Hug")[0] for line in found("a.png", PNG + plain)] == ["a.png: line 3"]
    assert [line.partition(": a Hug")[0] for line in found("a.png", PNG + packed + international)] == [
        "a.png: text 'Comment'",
        "a.png: text 'Title'",
    ]


def test_what_only_looks_like_a_secret_passes() -> None:
    """Hashes, words with the same beginnings and talk about tokens are no secrets."""
    assert found("README.md", "\n".join(HARMLESS).encode()) == []


@pytest.mark.parametrize("place", ["explanations", "README.md", "figures/a.svg", "metrics.json"])
def test_a_planted_secret_stops_the_publish(publish: Publish, hub: DatasetHub, lake: Path, place: str) -> None:
    """Wherever in the release a token lies, nothing travels, and the line names the place and what to do."""
    secret = SECRETS["a Hugging Face token"]
    text = secret if place == "explanations" else "mills"
    content = json.dumps({"note": secret}).encode() if place != "explanations" else b"{}"
    others = {} if place == "explanations" else {place if place != "README.md" else "NOTES.md": content}
    release_of(lake, "1.0.1", small_tables({**TEXTS, "two": ["rivers", text]}), others)
    said = publish()

    where = "explanations/train-00000-of-00001.parquet: column text, row 4" if place == "explanations" else f"{next(iter(others))}: line 1"
    assert said.exit_code == 2
    assert f"error: {where}" in said.output
    assert (
        "a Hugging Face token (hf_aB3dE…); take it out of what the release is made from, make it invalid, and run `dvc repro`"
        in said.output
    )
    assert hub.requests == []
