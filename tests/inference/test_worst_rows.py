import base64
import io
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from natix_roadwork.data.predictions import Predictions
from natix_roadwork.inference.error_report import ReportData
from natix_roadwork.inference.report_page import drawn_views
from natix_roadwork.inference.row_evidence import EvidenceReader
from natix_roadwork.inference.worst_rows import row_losses, worst_lines, worst_row_cards


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_the_largest_losses_come_first_and_few_of_a_group(member: Predictions) -> None:
    grouped = member.select(np.arange(40))
    order = np.argsort(-row_losses(grouped), kind="stable")
    assert worst_lines(grouped, 5).tolist() == order[:5].tolist()
    grouped.groups[:] = "one video"
    assert worst_lines(grouped, 5).tolist() == order[:3].tolist()


def test_loss_is_that_of_the_own_label(member: Predictions) -> None:
    own = np.where(member.labels == 1, member.probabilities, 1 - member.probabilities)
    np.testing.assert_allclose(row_losses(member), -np.log(own), atol=1e-6)


@pytest.mark.parametrize("limit", [-1, 41])
def test_the_number_of_photos_is_bounded(member: Predictions, limit: int) -> None:
    with pytest.raises(ValueError, match=f"worst_rows={limit} must be 0 to 40"):
        worst_lines(member, limit)


def test_cards_hold_photo_views_and_evidence(report: ReportData) -> None:
    assert len(report.worst) == 6 and {row.kind for row in report.worst} <= {"false alarm", "missed roadwork"}
    row = report.worst[0]
    assert picture(row.photo).size == row.size == (120, 90) and picture(row.photo).format == "JPEG"
    heat = picture(row.heat)
    assert heat.mode == "RGBA" and heat.width / heat.height == pytest.approx(120 / 90, rel=0.02)
    states = [view.state for view in row.evidence.views]
    assert len(states) == 12 and states.count("kept") + states.count("dropped") + states.count("masked") == 12
    assert sum(view.weight for view in row.evidence.views) == pytest.approx(1, abs=1e-5)
    assert all((view.probability is None) == (view.state != "kept") for view in row.evidence.views)
    assert row.metadata["city"] in ("Pittsburgh", "Denver", "Seattle") and row.metadata["daytime"] == "Dark"


def test_boxes_show_their_weight_and_stay_on_the_photo(report: ReportData) -> None:
    row = report.worst[0]
    drawn = drawn_views(row)
    shown = [view for view in row.evidence.views if view.state != "masked"]
    assert [view.kept for view in drawn] == [view.state == "kept" for view in shown]
    assert all(0 <= view.x and view.x + view.width <= 120 and view.y + view.height <= 90 for view in drawn)
    widths = {view.text: view.stroke for view in drawn if view.kept}
    strongest = max(range(len(shown)), key=lambda number: shown[number].weight)
    assert max(widths.values()) == pytest.approx(6.0) == drawn[strongest].stroke
    assert drawn[0].text == f"0: {row.evidence.views[0].weight:.0%}"


def test_masks_are_outlined_in_photo_pixels(rows: Dataset, member: Predictions, tmp_path: Path) -> None:
    mask = np.zeros((45, 60), np.uint8)
    mask[10:20, 30:50] = 4  # half the photo's size; bit 2 marks the third class
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masked = rows.select([0]).map(lambda row: {"mask": str(tmp_path / "mask.png")})
    (card,) = worst_row_cards(member.select([0]), masked, progress=False)
    (outline,) = card.outlines
    corners = {tuple(int(value) for value in point.split(",")) for point in outline.split()}
    assert corners == {(60, 20), (98, 20), (98, 38), (60, 38)} and card.evidence is None
    missing = masked.map(lambda row: {"mask": str(tmp_path / "none.png")})
    with pytest.raises(ValueError, match=r"row 'dev/00000.jpg': mask .*none.png' cannot be read"):
        worst_row_cards(member.select([0]), missing, progress=False)


def test_large_photos_are_shrunk(member: Predictions, rows: Dataset) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1800, 600), (90, 90, 90)).save(buffer, "JPEG")
    features = rows.features
    large = Dataset.from_list([rows[0] | {"image": {"bytes": buffer.getvalue(), "path": None}}], features=features)
    (card,) = worst_row_cards(member.select([0]), large, progress=False)
    assert picture(card.photo).size == (900, 300) and card.size == (1800, 600)


def test_a_model_reads_the_metadata_it_was_trained_with(rows: Dataset, metadata_model: Path) -> None:
    reader = EvidenceReader(str(metadata_model), rows, "")
    missing = {"latitude": float("nan"), "longitude": float("nan"), "weather": [], "daytime": []}
    with_all, without = (reader.explain(row, (120, 90)).probability for row in (rows[0], rows[0] | missing))
    assert with_all != without and reader.explain(rows[0], (120, 90)).probability == with_all
