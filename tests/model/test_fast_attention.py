import logging

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from natix_roadwork.model import fast_attention
from natix_roadwork.model.fast_attention import enable_fast_attention


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with a Hopper GPU on which only FA4 is installed; the names that were tried."""
    tried: list[str] = []

    def activate(name: str) -> None:
        tried.append(name)
        if name == "FA3":
            raise ImportError("No module named 'flash_attn_interface'")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(fast_attention, "activate_flash_attention_impl", activate)
    return tried


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU does")
def test_without_a_gpu_sdpa_is_left_and_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert enable_fast_attention() == "SDPA"
    assert "Attention runs on SDPA (no GPU)." in caplog.text


def test_what_is_installed_is_used(hopper: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert enable_fast_attention() == "FA4"
    assert hopper == ["FA3", "FA4"] and "Attention runs on FA4." in caplog.text


def test_nothing_installed_leaves_sdpa_with_the_reasons(
    hopper: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("prototype")

    monkeypatch.setattr(fast_attention, "activate_flash_attention_impl", broken)
    caplog.set_level(logging.INFO)
    assert enable_fast_attention() == "SDPA"
    assert "SDPA (FA3: prototype; FA4: prototype)." in caplog.text


def test_other_gpus_try_nothing(hopper: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert enable_fast_attention() == "SDPA" and hopper == []


def test_results_on_a_cpu_are_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 8, 16, generator=generator)

    def attend() -> Tensor:
        return scaled_dot_product_attention(query, key, value)

    plain = attend()
    with fast_attention.fast_attention():
        assert torch.equal(attend(), plain)
