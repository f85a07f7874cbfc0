"""Working data in a bucket, by params, through the client's own sync."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dataset_hub import DatasetHub
from huggingface_hub import constants
from published import Publish, commit, repro

BUCKET = "lab/working"


def with_bucket(lake: Path, **bucket: object) -> None:
    """Name a bucket in params, and make the release anew."""
    file = lake / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["release"]["bucket"] = bucket
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    repro(lake)
    commit(lake)


def test_working_data_goes_to_the_bucket_that_params_name(
    publish: Publish, hub: DatasetHub, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a stage is in the bucket, with its files by path; a second publish sends none of them."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.xet, hub.working = tmp_path / "cas", lake / "build"
    hub.xet.mkdir()
    with_bucket(lake, repo=BUCKET, stages=["scores"])
    said, again = publish(), publish()

    here = {path.relative_to(lake / "build").as_posix() for path in (lake / "build/scores").rglob("*") if path.is_file()}
    assert said.exit_code == again.exit_code == 0, said.output + again.output
    assert hub.buckets[BUCKET].keys() == here
    assert f"bucket {BUCKET}/scores: {len(here)} files sent, 0 gone, 0 as they were" in said.output
    assert f"bucket {BUCKET}/scores: 0 files sent, 0 gone, {len(here)} as they were" in again.output


def test_a_bucket_of_nothing_is_refused(publish: Publish, hub: DatasetHub, lake: Path) -> None:
    """A stage that has made nothing is named, with those that there are."""
    with_bucket(lake, repo=BUCKET, stages=["activation"])
    said = publish()

    assert said.exit_code == 2
    assert "release.bucket.stages: build/activation holds nothing; name one of direct, explanations, inputs, release, scores" in said.output
    assert hub.requests == []
