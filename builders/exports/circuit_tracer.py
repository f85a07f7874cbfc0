"""The feature files that circuit-tracer's pages read by HTTP ranges, so that attribution graphs show our latents.

`<set>/features/layer_N.bin` holds a record for each latent of one layer: the length of what follows (4 bytes, little-endian), and JSON
in gzip. `<set>/features/index.json.gz` says where each record begins, and where the last one ends. Pages name a set as the scan
`<Hub repository>//<set>`. The fields are those of `circuit_tracer/frontend/feature_models.py`.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.errors import UserError, first_line
from builders.exports.dictionaries import Dictionary, Row, sets_of
from builders.exports.files import Record, dumped, gzipped
from builders.exports.rows import Firing, activating, beside, by_latent, latent_rows, pieces_of
from builders.progress import track
from builders.releases.release import Release

INDEX = "features/index.json.gz"
LENGTH = struct.Struct("<I")
WINDOWS = ["split", "example", "kind", "quantile", "tokens", "activations"]
STRONGEST = "Top activations"  # the name that their pages and scripts look for


def export(release: Release, chosen: Iterable[Dictionary], out: Path) -> None:
    """Write the dictionaries *chosen* of *release*, each of which has a layer, in sets into the folder *out*."""
    for name, members in track(sorted(sets_of(list(chosen)).items()), "exporting"):
        index = {}
        for dictionary in members:
            file = f"layer_{dictionary.layer}.bin"
            offsets = write_records(out / name / "features" / file, features(release, dictionary))
            index[str(dictionary.layer)] = {"filename": file, "offsets": offsets}
        (out / name / INDEX).write_bytes(gzipped(dumped(index).encode()))


def features(release: Release, dictionary: Dictionary) -> Iterator[Record]:
    """Yield the record of every latent of a dictionary, of one that never fires too: a page would show its neighbour's otherwise."""
    pieces = pieces_of(release, dictionary.subject)
    windows = beside(range(dictionary.row["width"]), by_latent(release, "contexts", dictionary.sae, WINDOWS))
    for (row, firing), rows in zip(latent_rows(release, dictionary.sae), windows, strict=True):
        yield feature(row, firing, [] if rows is None else activating(rows), pieces)


def feature(row: Row, firing: Firing, windows: Iterable[Row], pieces: npt.NDArray[np.object_]) -> Record:
    """Return the record of a row of `latents`; *windows* are its rows of `contexts` in which it fires."""
    return {
        "transcoder_id": row["sae"],
        "index": row["latent"],
        "examples_quantiles": quantiles(windows, pieces),
        "top_logits": row["promotes"],
        "bottom_logits": row["suppresses"],
        "act_min": 0.0,
        "act_max": row["max"] or 0.0,
        "quantile_values": firing.percentiles,
        "histogram": firing.counts,
        "activation_frequency": row["density"],
    }


def quantiles(windows: Iterable[Row], pieces: npt.NDArray[np.object_]) -> list[Record]:
    """Return windows by quantile, the strongest first; there is always a first quantile, since pages look at it."""
    found: dict[int, list[Row]] = {0: []}
    for row in sorted(windows, key=lambda row: (row["quantile"], -max(row["activations"]), row["split"], row["example"])):
        found.setdefault(row["quantile"], []).append(row)
    names = {quantile: f"Quantile {quantile + 1}" if quantile else STRONGEST for quantile in found}
    return [{"quantile_name": names[number], "examples": [example(row, pieces) for row in rows]} for number, rows in found.items()]


def example(row: Row, pieces: npt.NDArray[np.object_]) -> Record:
    """Return a window; their pages put the token at `train_token_ind` in the middle."""
    values = row["activations"]
    return {
        "tokens_acts_list": values,
        "train_token_ind": values.index(max(values)),
        "is_repeated_datapoint": False,
        "tokens": pieces[row["tokens"]].tolist(),
    }


def write_records(path: Path, found: Iterable[Record]) -> list[int]:
    """Write the records of one layer, and return where each begins and the last one ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = [0]
    with path.open("wb") as file:
        for record in found:
            packed = gzipped(dumped(record).encode())
            file.write(LENGTH.pack(len(packed)) + packed)
            offsets.append(file.tell())
    return offsets


def read_records(folder: Path, layer: int, latents: Iterable[int] | None = None) -> Iterator[Record]:
    """Yield the records of *latents* of one layer, of all by default, from a set's *folder*; raise UserError where one cannot be read."""
    try:
        index = json.loads(gzip.decompress((folder / INDEX).read_bytes()))
        entry = index[str(layer)]
        with (folder / "features" / entry["filename"]).open("rb") as file:
            for latent in range(len(entry["offsets"]) - 1) if latents is None else latents:
                file.seek(entry["offsets"][latent])
                (length,) = LENGTH.unpack(file.read(LENGTH.size))
                yield json.loads(gzip.decompress(file.read(length)))
    except KeyError as error:
        raise UserError(f"{folder / INDEX}: has no layer {layer}; it has {', '.join(index)}") from error
    except (ValueError, OSError, EOFError, zlib.error, struct.error, IndexError) as error:
        raise UserError(f"{folder}: its feature files cannot be read ({first_line(error)}); export them again") from error
