from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import Sam3Model

from natix_roadwork.labeling.pretrained import load_model, load_pretrained
from tests.labeling.tiny_sam3 import tiny_sam3


def test_a_token_is_never_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def load(*_: Any, **__: Any) -> None:
        raise OSError("illegal header\nvalue 'Bearer hf_secret'")

    with pytest.raises(ValueError) as caught:
        load_pretrained(load, "facebook/sam3", "main")
    assert "hf_secret" not in str(caught.value)
    assert "illegal header value 'Bearer ***'" in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_wrong_device_is_named(tmp_path: Path) -> None:
    tiny_sam3().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="device='gpu' cannot be used"):
        load_model(Sam3Model.from_pretrained, str(tmp_path), None, "gpu")


def test_missing_weights_are_not_drawn_at_random(tmp_path: Path) -> None:
    tiny_sam3().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the \d+ weights of Sam3Model, such as text_projection.weight"):
        load_model(Sam3Model.from_pretrained, str(tmp_path), None, "cpu")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    tiny_sam3().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be loaded: give the folder of a saved model"):
        load_model(Sam3Model.from_pretrained, str(tmp_path), None, "cpu")
