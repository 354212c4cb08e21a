"""What the tests of fine-tuning share."""

from pathlib import Path

import pytest
import torch

from tests.fold_runs import train_base


@pytest.fixture(scope="session")
def fold_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny trained model, its photos and its backbone beside it; not to be changed."""
    torch.set_num_threads(1)
    return train_base(tmp_path_factory.mktemp("fold_base"))
