"""What a model looked at in single photos: kept views, their weights, and where in the photo its evidence lies.

In comes a saved model and one row at a time; out goes what the error report shows of the row. `worst_rows.py` calls it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.evidence_map import photo_evidence
from natix_roadwork.data.photo_batches import photo_transform
from natix_roadwork.inference.member import load_member
from natix_roadwork.inference.predict_inputs import member_metadata
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.outputs import RoadworkOutput
from natix_roadwork.model.resize import Box
from natix_roadwork.training.metadata_inputs import side_inputs


@dataclass(frozen=True)
class ViewEvidence:
    """One view of a photo.

    Attributes:
        name: Name of the view, such as `tile_0_1`.
        box: Left, top, right and bottom in photo pixels.
        state: `kept`; `dropped` by the pruning; or `masked`, a view that shows no more of this photo than others.
        weight: Its share in the embedding; 0 unless kept.
        probability: Of roadwork by the classifier on this view alone; None unless kept.
    """

    name: str
    box: Box
    state: Literal["kept", "dropped", "masked"]
    weight: float
    probability: float | None


@dataclass(frozen=True)
class RowEvidence:
    """What a model looked at in one photo: its probability, its views, and `(h, w)` shares of evidence summing to 1."""

    probability: float
    views: list[ViewEvidence]
    shares: NDArray[np.float64]


class EvidenceReader:
    """A saved model that explains rows one by one.

    Args:
        folder: Folder or Hub id of a saved model and its processor.
        rows: The rows that will be explained; their texts are embedded if the model reads `text`.
        text_encoder_id: Reads the field `text`.

    Raises:
        ValueError: If it is no model of this library, or the text encoder cannot be used.

    Attributes:
        left_out: What the model was trained to read beside a photo and is not given here, in words.
    """

    def __init__(self, folder: str, rows: Dataset, text_encoder_id: str) -> None:
        """Load the model and its processor."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        member = load_member(folder, self.device)
        self.model, self.processor = member.model, member.processor
        self.left_out = side_inputs(self.model.config.to_dict())
        self._read = photo_transform(self.processor, member_metadata(member, [rows], text_encoder_id))

    @torch.inference_mode()
    def explain(self, row: Mapping[str, Any], size: tuple[int, int]) -> RowEvidence:
        """Run the model on one row.

        Args:
            row: A row of the schema.
            size: Width and height of its upright photo in pixels.

        Raises:
            ValueError: If the photo cannot be decoded; the row is named.
        """
        inputs = self._read({name: [value] for name, value in row.items()})
        inputs.pop("labels")
        output = self.model(**{name: value.to(self.device) for name, value in inputs.items()})
        return RowEvidence(
            probability=float(output.logits.float().softmax(-1)[0, 1]),
            views=view_evidence(self.processor, output, 0, inputs["view_mask"][0].tolist(), size),
            shares=photo_evidence(self.processor, output, self.model.config.evidence_grid, [size])[0],
        )


def view_evidence(
    processor: RoadworkImageProcessor, output: RoadworkOutput, number: int, valid: list[bool], size: tuple[int, int]
) -> list[ViewEvidence]:
    """List what each view of one photo brought.

    Args:
        processor: Cut the views.
        output: Of the classifier on B photos.
        number: Which of them.
        valid: Its views that are not masked, V flags.
        size: Width and height of the upright photo in pixels.
    """
    kept = zip(
        output.view_indices[number].tolist(),
        output.view_weights[number].float().tolist(),
        output.view_logits[number].float().softmax(-1)[:, 1].tolist(),
        strict=True,
    )
    found = {view: (weight, probability) for view, weight, probability in kept if valid[view]}
    views = []
    for view, (name, box) in enumerate(zip(processor.view_names, processor.view_boxes(*size), strict=True)):
        state = "kept" if view in found else "dropped" if valid[view] else "masked"
        views.append(ViewEvidence(name, box, state, *found.get(view, (0.0, None))))
    return views
