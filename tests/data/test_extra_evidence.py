import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.data.extra_evidence import (
    ExtraEvidence,
    check_coverage,
    check_source,
    evidence_hash,
    evidence_width,
    read_extra_evidence,
    write_extra_evidence,
)
from natix_roadwork.data.metadata import MetadataInputs
from natix_roadwork.data.mixing import mix_batch
from natix_roadwork.data.photo_batches import PhotoRows
from tests.photo_rows import photo_rows


NAMES = ("cones", "score", "side")


def evidence(num_rows: int = 6, **changes: object) -> ExtraEvidence:
    values = np.arange(num_rows * 2 * 3, dtype=np.float32).reshape(num_rows, 2, 3)
    given = {"row_ids": np.array([f"row:{row}" for row in range(num_rows)]), "values": values, "names": NAMES}
    return ExtraEvidence(**given | changes)


def holed(rows: int, pieces: object, figures: object, value: float = np.nan) -> NDArray[np.float32]:
    values = evidence().values.copy()
    values[rows, pieces, figures] = value
    return values


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    wanted = evidence(values=holed(2, 1, slice(None)), source={"model": "drawn"})
    for name in ("one", "two"):
        write_extra_evidence(tmp_path / name, wanted)
    found = read_extra_evidence(tmp_path / "one")
    assert np.array_equal(found.values, wanted.values, equal_nan=True) and found.values.dtype == np.float32
    assert (found.row_ids.tolist(), found.names, found.source) == (wanted.row_ids.tolist(), NAMES, {"model": "drawn"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert evidence_hash(str(tmp_path / "one")) == evidence_hash(str(tmp_path / "two"))
    assert evidence_width(str(tmp_path / "one")) == 3 and evidence_width(None) == 0 and evidence_hash(None) is None


def test_rows_are_found_by_id_and_others_are_missing() -> None:
    found = evidence().lookup(["row:4", "elsewhere", "row:0"])
    assert found[0, 0].tolist() == [24.0, 25.0, 26.0] and found[2, 1].tolist() == [3.0, 4.0, 5.0]
    assert np.isnan(found[1]).all()


def test_coverage_counts_by_label() -> None:
    ids, labels = [f"row:{row}" for row in range(20)], [row % 2 for row in range(20)]
    found = evidence(14).coverage(ids, labels)
    assert found["known"] == {"None": 7, "Roadwork": 7} and found["missing"] == {"None": 3, "Roadwork": 3}
    assert found["missing_rows"] == ["row:14", "row:15", "row:16"] and found["presence_mcc"] == 0.0
    check_coverage(found, "train", "file")
    assert evidence(20).coverage(ids, labels)["presence_mcc"] is None


def test_presence_that_tells_the_label_is_refused() -> None:
    labels = [1] * 6 + [0] * 6
    found = evidence(6).coverage([f"row:{row}" for row in range(12)], labels)
    assert found["presence_mcc"] == 1.0
    with pytest.raises(ValueError, match=r"'boxes.arrow' gives the label away in train: .* MCC of 1.00"):
        check_coverage(found, "train", "boxes.arrow")
    with pytest.raises(ValueError, match=r"has none of the rows of dev, such as 'a'"):
        check_coverage(evidence().coverage(["a", "b"], [0, 1]), "dev", "boxes.arrow")


@pytest.mark.parametrize("named", ["human", {"name": "scenes", "folder": "masks"}])
def test_a_file_whose_own_source_knows_the_label_is_refused(named: object) -> None:
    with pytest.raises(ValueError, match=r"extra_evidence='a.arrow': provider='(human|scenes)' knows what the label"):
        check_source(evidence(source={"provider": named}), "a.arrow")
    for source in ({}, {"provider": None}, {"provider": {"name": "sam3"}}):
        check_source(evidence(source=source), "a.arrow")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.zeros((6, 2, 4), np.float32)}, r"shape \(6, 2, 4\) for 6 rows and 3 names"),
        ({"values": np.zeros((5, 2, 3), np.float32)}, r"shape \(5, 2, 3\) for 6 rows"),
        ({"row_ids": np.array(["a", "b", "c", "d", "e", "a"])}, "row 'a' stands twice"),
        ({"values": holed(3, 0, 1)}, "row 'row:3': an infinite or half missing piece"),
        ({"values": holed(4, 0, 1, np.inf)}, "row 'row:4': an infinite"),
    ],
)
def test_wrong_evidence_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evidence(**changes)


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no table")
    with pytest.raises(ValueError, match="text cannot be read"):
        read_extra_evidence(tmp_path / "text")
    write_extra_evidence(tmp_path / "old", evidence())
    data = (tmp_path / "old").read_bytes()
    (tmp_path / "old").write_bytes(data.replace(json.dumps({"format": 1})[1:-1].encode(), b'"format": 9'))
    with pytest.raises(ValueError, match="has format 9, this version reads 1"):
        evidence_width(str(tmp_path / "old"))


def test_batches_hold_it_beside_the_photos() -> None:
    rows, processor = photo_rows(6), RoadworkImageProcessor(view_size=32)
    metadata = MetadataInputs(extra_evidence=evidence(5))
    assert metadata.columns == ["row_id"]
    found = PhotoRows(rows, processor, metadata).select([4, 5]).read([0, 1])["extra_evidence"]
    assert found.shape == (2, 2, 3) and found.dtype == torch.float32
    assert found[0].flatten().tolist() == list(range(24, 30)) and found[1].isnan().all()


def test_a_mixed_row_has_none() -> None:
    batch = {"view_features": torch.randn(8, 3, 2, 4), "labels": torch.arange(8) % 2}
    batch["extra_evidence"] = torch.ones(8, 1, 3)
    mixed = mix_batch(batch, np.random.default_rng(0), mixup_alpha=1.0)
    changed = (mixed["view_features"] != batch["view_features"]).flatten(1).any(dim=1)
    assert changed.any() and not changed.all()
    assert torch.equal(mixed["extra_evidence"].isnan().all(dim=2)[:, 0], changed)
