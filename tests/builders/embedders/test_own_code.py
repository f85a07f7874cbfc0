"""Sentence models that come with code of their own: it runs where it is asked for, and nowhere else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from own_code import modules_in
from sentences import make_own_code, write_json
from torch.nn import functional

from builders.embedders.files import of_source
from builders.embedders.sentence import SentenceEmbedder
from builders.errors import UserError
from builders.subjects.places import Source

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

TEXTS = ["a", "the mill", "The mill, and the river"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, torch.Tensor]:
    """Return the folder of a model with its own code, and the vectors of its tokens."""
    modules_in(tmp_path / "modules", monkeypatch)
    return tmp_path / "tide", make_own_code(tmp_path / "tide")


def trusted(folder: Path, **more: Any) -> SentenceEmbedder:
    """Return the embedder of a folder whose code may run."""
    return SentenceEmbedder(of_source(Source(path=str(folder))), device="cpu", trust_remote_code=True, **more)


def expected(folder: Path, letters: torch.Tensor, scale: float) -> npt.NDArray[np.float32]:
    """Return the vectors of TEXTS: the mean over tokens of a token's own vector plus *scale* times the sine of its position."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    means = [(letters[own] + scale * torch.arange(float(len(own))).sin()[:, None]).mean(0) for own in ids]
    found: npt.NDArray[np.float32] = functional.normalize(torch.stack(means), dim=1).numpy()
    return found


def test_trusted_code_runs(own: tuple[Path, torch.Tensor]) -> None:
    """With `trust_remote_code` the folder's code embeds, with the buffers that it computes and no file holds."""
    folder, letters = own
    assert trusted(folder).embed(TEXTS) == pytest.approx(expected(folder, letters, 1.0), abs=1e-5)


def test_other_code_does_not_run(own: tuple[Path, torch.Tensor]) -> None:
    """Otherwise the model is refused, in one line that says how to let its code run."""
    folder, _ = own
    (folder / "tides.py").write_text("raise SystemExit")
    with pytest.raises(UserError) as caught:
        SentenceEmbedder(of_source(Source(path=str(folder))), device="cpu").embed(TEXTS)
    assert str(caught.value).startswith(str(folder))
    assert str(caught.value).endswith("code from a repository runs only with `trust_remote_code: true`")
    assert "\n" not in str(caught.value)


def test_values_of_its_config_can_be_replaced(own: tuple[Path, torch.Tensor]) -> None:
    """A value of `config` takes the place of that in config.json and is part of the identity; an unknown name is refused."""
    folder, letters = own
    still = trusted(folder, config={"scale": 0.0})

    assert still.embed(TEXTS) == pytest.approx(expected(folder, letters, 0.0), abs=1e-5)
    assert still.identity == trusted(folder).identity | {"config": {"scale": 0.0}}
    with pytest.raises(UserError, match=r"config\.json has no scales that `config` could replace; it has .*scale"):
        trusted(folder, config={"scales": 0.0})


def test_other_code_is_another_model(own: tuple[Path, torch.Tensor]) -> None:
    """The code is part of the identity where it runs, so vectors that other code made are not mistaken for these."""
    folder, _ = own
    before, plain = trusted(folder).identity, SentenceEmbedder(of_source(Source(path=str(folder))), device="cpu").identity
    code = folder / "tides.py"
    code.write_text(code.read_text() + "# changed\n")
    after = trusted(folder).identity

    assert before["code"] != after["code"]
    assert plain == {name: value for name, value in before.items() if name != "code"}


def test_code_of_another_repository_is_refused(own: tuple[Path, torch.Tensor]) -> None:
    """Code that a config takes from another repository is at no pinned commit, so it does not run."""
    folder, _ = own
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"auto_map": {"AutoConfig": "org/code--tides.TideConfig", "AutoModel": "tides.TideModel"}})

    with pytest.raises(UserError, match="its code lies in org/code, at no pinned commit; choose a model that holds its own code"):
        trusted(folder)
