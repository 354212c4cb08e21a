"""Where reference masks come from, which rows are judged, and the recipe's files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.masks import mask_path, write_mask
from natix_roadwork.labeling.mask_quality import MaskQuality, QualityArguments, judge_masks
from natix_roadwork.training.yaml_args import parse_recipe


ROOT = Path(__file__).parents[2]
BITS = np.zeros((30, 40), np.uint8)
BITS[10:25, 10:20] = 4


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedRows:
    """Six photos whose rows name a mask of their own, all of it one sign, the last one a file that is not there."""
    folder, lines = tmp_path / "photos", []
    (folder / "dev").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 90, 90)).save(folder / "dev" / f"{number}.png")
        mask = folder / "dev" / f"{number}_seg_mask.png"
        if number < 5:
            Image.fromarray(BITS).save(mask)
        lines.append(json.dumps({"file_name": f"{number}.png", "label": number % 2, "mask": mask.name}))
    (folder / "dev" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return load_rows(str(folder), near_duplicates=False)


def judged(loaded: LoadedRows, masks: Path, splits: list[str] | None = None) -> MaskQuality:
    arguments = QualityArguments(str(masks), loaded.dataset_name, splits=splits or ["train", "dev"], examples=0)
    return judge_masks(loaded, masks, None, arguments, progress=False)


def written(loaded: LoadedRows, folder: Path) -> Path:
    for row_id in loaded.splits["dev"]["row_id"][:]:
        write_mask(folder, row_id, BITS, {"provider": "p"})
    return folder


def test_the_rows_own_masks_are_references(loaded: LoadedRows, tmp_path: Path) -> None:
    quality = judged(loaded, written(loaded, tmp_path / "m"))
    assert (quality.num_photos, quality.referenced, quality.reference_listed) == (6, 5, 0)
    assert quality.problems == {"reference: missing": [loaded.splits["dev"][5]["row_id"]]}
    sign = next(score for score in quality.agreement if score.kind == "sign")
    assert (sign.iou_pooled.value, sign.ap50, sign.expected) == (1.0, 1.0, 5)


def test_a_mask_is_not_its_own_reference(loaded: LoadedRows, tmp_path: Path) -> None:
    masks = written(loaded, tmp_path / "m")
    rows = loaded.splits["dev"]
    same = [str(mask_path(masks, row_id)) for row_id in rows["row_id"][:]]
    rows = rows.remove_columns("mask").add_column("mask", same)
    quality = judged(dataclasses.replace(loaded, splits={"dev": rows}), masks)
    assert (quality.num_photos, quality.referenced, quality.agreement, quality.problems) == (6, 0, [], {})


def test_other_splits_are_left_out_and_a_lockbox_is_refused(loaded: LoadedRows, tmp_path: Path) -> None:
    rows, masks = loaded.splits["dev"], written(loaded, tmp_path / "m")
    split = dataclasses.replace(loaded, splits={"dev": rows.select(range(4)), "test": rows.select([4, 5])})
    quality = judged(split, masks)
    assert (quality.num_rows, quality.num_photos, quality.splits) == (4, 4, ["dev"])
    assert quality.problems == {} and quality.warnings == ["2 rows of test are left out"]
    assert judged(split, masks, ["dev", "test"]).num_photos == 6
    for splits, lockbox, message in (
        (["dev", "test"], True, "test is a lockbox"),
        (["val"], False, "must be some of"),
    ):
        with pytest.raises(ValueError, match=message):
            judged(dataclasses.replace(split, lockbox=lockbox), masks, splits)


def test_masks_without_negatives_give_a_warning(loaded: LoadedRows, tmp_path: Path) -> None:
    roadwork = loaded.splits["dev"].select([1, 3])
    quality = judged(dataclasses.replace(loaded, splits={"dev": roadwork}), written(loaded, tmp_path / "m"))
    assert quality.rates[0].false_positive_rate.value is None
    assert any("run negatives too" in warning for warning in quality.warnings)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes" / "mask_quality").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_variant_parses(path: Path) -> None:
    (arguments,) = parse_recipe(["--config", str(path)], [QualityArguments])
    assert Path(arguments.masks).parts[0] == Path(arguments.output_dir).parts[0] == "runs"
