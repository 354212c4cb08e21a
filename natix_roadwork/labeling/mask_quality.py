"""How good a folder of masks is: one HTML page and its record, from rows, masks and perhaps reference masks.

`recipes/mask_quality.py` calls it. The figures are those of `mask_coverage.py`, `mask_looks.py` and `mask_agreement.py`;
`mask_quality_page.py` writes the page.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.sources import SPLITS
from natix_roadwork.labeling.mask_agreement import ClassAgreement, score_agreement
from natix_roadwork.labeling.mask_coverage import ClassCoverage, FiringRate, class_coverage, firing_rates
from natix_roadwork.labeling.mask_looks import ClassLooks, class_looks
from natix_roadwork.labeling.mask_pictures import Example, choose_examples, draw_examples
from natix_roadwork.labeling.mask_quality_page import render
from natix_roadwork.labeling.mask_reading import Readings, find_masks, read_photos
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES
from natix_roadwork.runs import RunRecorder, interval_text


PAGE_NAME = "quality.html"


@dataclass
class QualityArguments:
    """Which masks to judge.

    Attributes:
        masks: Folder of masks, as `recipes/pseudo_masks.py` writes it.
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder: the photos of the masks.
        reference: Folder of human or drawn masks in the same layout; None takes the rows' own `mask`, where they have one.
        splits: Which of train, dev and test are judged; a lockbox never is.
        max_photos: Most photos read, drawn at random; 0 reads all.
        examples: Most example photos of a class and kind.
        min_area: Reference objects under so many pixels count neither as found nor as missed.
        seed: Seed of the sample and of the intervals.
    """

    masks: str = field(metadata={"help": "Folder of masks to judge."})
    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    output_dir: str = field(default="runs/mask_quality", metadata={"help": "Gets quality.html and result.json."})
    reference: str | None = field(
        default=None, metadata={"help": "Folder of reference masks; default: the rows' own."}
    )
    splits: list[str] = field(default_factory=lambda: ["train", "dev"], metadata={"help": "Some of train, dev, test."})
    max_photos: int = field(default=2000, metadata={"help": "Most photos read, drawn at random; 0 = all."})
    examples: int = field(default=2, metadata={"help": "Most example photos of a class and kind, 0 to 6."})
    min_area: int = field(default=100, metadata={"help": "Smallest reference object, in pixels."})
    seed: int = field(default=0, metadata={"help": "Seed of the sample and of the intervals."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused."})
    near_duplicates: bool = field(default=True, metadata={"help": "As in the training recipe."})


@dataclass(frozen=True)
class MaskQuality:
    """Everything the page says.

    Attributes:
        dataset_name: The data set.
        splits: The splits that are judged.
        num_rows: Rows of these splits.
        num_masks: Rows with a mask file.
        sampled: Whether only `max_photos` of those were read.
        num_photos: Photos whose mask could be used.
        num_negatives: Those without roadwork.
        num_groups: Groups of these photos.
        providers: Name of each provider to its photos.
        unknown_classes: Classes that no mask knows.
        approximate: Objects that share pixels with a neighbour of their class.
        unlisted: Photos whose mask has no list of objects.
        coverage: By class.
        rates: By class and prompt; any class first.
        scores: Scores of the objects by class, on photos without roadwork and with it, where they differ at all.
        looks: By class.
        referenced: Photos with a usable reference.
        reference_listed: Those of them whose reference lists its objects.
        min_area: Smallest reference object that counts.
        agreement: By class; empty without references.
        problems: Reason to names of rows or files.
        problem_examples: Reason to its first error.
        examples: Cards.
        warnings: What a reader must know.
        seed: Seed of the sample and of the intervals.
    """

    dataset_name: str
    splits: list[str]
    num_rows: int
    num_masks: int
    sampled: bool
    num_photos: int
    num_negatives: int
    num_groups: int
    providers: dict[str, int]
    unknown_classes: list[str]
    approximate: int
    unlisted: int
    coverage: list[ClassCoverage]
    rates: list[FiringRate]
    scores: dict[str, tuple[list[float], list[float]]]
    looks: list[ClassLooks]
    referenced: int
    reference_listed: int
    min_area: int
    agreement: list[ClassAgreement]
    problems: dict[str, list[str]]
    problem_examples: dict[str, str]
    examples: list[Example]
    warnings: list[str]
    seed: int

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Return every figure that judges the masks, by name."""
        found = {}
        for cover in self.coverage:
            found[f"share_of_photos/{cover.kind}"] = asdict(cover.share)
            found[f"share_of_pixels/{cover.kind}"] = asdict(cover.area_share)
            found[f"objects_a_photo/{cover.kind}"] = asdict(cover.objects_a_photo)
        for rate in self.rates:
            found[f"false_positive_rate/{rate.key}"] = asdict(rate.false_positive_rate)
            found[f"positive_rate/{rate.key}"] = asdict(rate.positive_rate)
        for score in self.agreement:
            found[f"iou_pooled/{score.kind}"] = asdict(score.iou_pooled)
            found[f"iou_mean/{score.kind}"] = asdict(score.iou_mean)
            for name in ("ap50", "ap"):
                found[f"{name}/{score.kind}"] = {"value": getattr(score, name), "low": None, "high": None}
        return found

    def details(self) -> dict[str, Any]:
        """Return the rest of what the page says, pictures left out, ready for JSON."""
        values = asdict(self)
        values["examples"] = [
            {name: entry[name] for name in ("kind", "why", "row_id", "label", "text")} for entry in values["examples"]
        ]
        return values


def run_quality(arguments: QualityArguments, progress: bool = True) -> MaskQuality:
    """Judge the masks, and write `quality.html` and `result.json` into the output folder.

    Raises:
        ValueError: If an argument is out of range, or no mask can be used.
    """
    folder, output = Path(arguments.masks), Path(arguments.output_dir)
    reference = None if arguments.reference is None else Path(arguments.reference)
    if reference is not None and (not reference.is_dir() or reference.resolve() == folder.resolve()):
        raise ValueError(f"reference={arguments.reference!r} must be a folder of masks other than masks={folder}")
    if arguments.max_photos < 0 or arguments.min_area < 1:
        raise ValueError(
            f"max_photos={arguments.max_photos!r} must be 0 or more, min_area={arguments.min_area!r} 1 or more"
        )
    with RunRecorder(asdict(arguments), arguments.seed) as recorder:
        loaded = load_rows(
            arguments.dataset_name,
            seed=arguments.seed,
            max_megapixels=arguments.max_megapixels,
            revision=arguments.dataset_revision,
            near_duplicates=arguments.near_duplicates,
        )
        quality = judge_masks(loaded, folder, reference, arguments, progress)
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / PAGE_NAME, render(quality).encode())
        recorder.data = loaded.as_dict()
        recorder.metrics = {"+".join(quality.splits): quality.metrics()}
        recorder.details, recorder.warnings = quality.details(), quality.warnings
        recorder.write(output)
    return quality


def judge_masks(
    loaded: LoadedRows, folder: Path, reference: Path | None, arguments: QualityArguments, progress: bool = True
) -> MaskQuality:
    """Compute everything the page says.

    Raises:
        ValueError: If there is no such split, one is a lockbox, or no row has a mask in the folder that can be used.
    """
    splits = _splits(loaded, arguments.splits)
    rows, readings = concatenate_datasets([loaded.splits[name] for name in splits]), Readings()
    others = {name: split["row_id"][:] for name, split in loaded.splits.items() if name not in splits}
    there = find_masks(rows, folder, readings, [row_id for ids in others.values() for row_id in ids])
    chosen = _sample(there, arguments.max_photos, arguments.seed)
    read_photos(rows, chosen, folder, reference, readings, progress)
    photos = readings.photos
    if not photos:
        raise ValueError(f"masks={str(folder)!r}: none of {len(chosen)} masks can be used: {_problem_text(readings)}")
    compared = [photo for photo in photos if photo.agreement is not None]
    groups = np.array([photo.group for photo in compared])
    agreements = [photo.agreement for photo in compared]
    picked = choose_examples(photos, arguments.examples)
    known = np.stack([photo.known for photo in photos]).any(axis=0)
    return MaskQuality(
        dataset_name=arguments.dataset_name,
        splits=splits,
        num_rows=len(rows),
        num_masks=len(there),
        sampled=len(chosen) < len(there),
        num_photos=len(photos),
        num_negatives=sum(photo.label == 0 for photo in photos),
        num_groups=len({photo.group for photo in photos}),
        providers=dict(sorted(Counter(photo.provider or "no record" for photo in photos).items())),
        unknown_classes=[kind for kind, is_known in zip(MASK_CLASSES, known, strict=True) if not is_known],
        approximate=sum(photo.approximate for photo in photos),
        unlisted=sum(not photo.listed for photo in photos),
        coverage=class_coverage(photos, arguments.seed),
        rates=firing_rates(photos, arguments.seed),
        scores=_scores(readings),
        looks=class_looks([look for photo in photos for look in photo.objects]),
        referenced=len(compared),
        reference_listed=sum(agreement.listed for agreement in agreements),
        min_area=arguments.min_area,
        agreement=score_agreement(agreements, groups, arguments.min_area, arguments.seed) if compared else [],
        problems=readings.problems,
        problem_examples=readings.examples,
        examples=draw_examples(picked, rows, folder, reference, progress),
        warnings=_warnings(readings, {name: len(ids) for name, ids in others.items()}),
        seed=arguments.seed,
    )


def quality_summary(quality: MaskQuality, output_dir: str) -> str:
    """Describe the page in a few lines: what was read, the rates of false positives, agreement, where it lies."""
    lines = [f"{quality.num_photos} masks read of {quality.num_masks}; {quality.num_rows} rows"]
    lines += [f"{len(names)} x {reason}" for reason, names in quality.problems.items()]
    for rate in quality.rates:
        lines.append(f"false positives of {rate.key}: {interval_text(asdict(rate.false_positive_rate), digits=2)}")
    for score in quality.agreement:
        ap = "undefined" if score.ap50 is None else f"{score.ap50:.2f}"
        lines.append(f"{score.kind}: IoU {interval_text(asdict(score.iou_pooled), digits=2)}, AP at .5 {ap}")
    return "\n".join([*lines, f"the page is {Path(output_dir) / PAGE_NAME}"])


def _sample(there: list[int], limit: int, seed: int) -> list[int]:
    if not limit or len(there) <= limit:
        return there
    return sorted(np.random.default_rng(seed).choice(there, limit, replace=False).tolist())


def _scores(readings: Readings) -> dict[str, tuple[list[float], list[float]]]:
    scores: dict[str, tuple[list[float], list[float]]] = {}
    for photo in readings.photos:
        for look in photo.objects if photo.listed else []:
            scores.setdefault(look.kind, ([], []))[photo.label].append(look.score)
    return {
        kind: scores[kind] for kind in MASK_CLASSES if kind in scores and {*scores[kind][0], *scores[kind][1]} != {1.0}
    }


def _splits(loaded: LoadedRows, wanted: list[str]) -> list[str]:
    found = [name for name in loaded.splits if name in wanted]
    if not found or set(wanted) - set(SPLITS):
        raise ValueError(f"splits={wanted!r} must be some of {', '.join(SPLITS)}; the data has {list(loaded.splits)}")
    if loaded.lockbox and "test" in found:
        raise ValueError(f"splits={wanted!r}: test is a lockbox, which nothing is tuned on; leave it out")
    return found


def _warnings(readings: Readings, left_out: dict[str, int]) -> list[str]:
    found = [f"{count} rows of {split} are left out" for split, count in left_out.items()]
    if sum(photo.label == 0 for photo in readings.photos) == 0:
        found.append("no photo without roadwork has a mask, so no rate of false positives is known: run negatives too")
    if len({photo.provider for photo in readings.photos}) > 1:
        found.append("the masks are of more than one provider; figures are of all together")
    return found


def _problem_text(readings: Readings) -> str:
    return "; ".join(f"{len(names)} x {reason}" for reason, names in readings.problems.items())
