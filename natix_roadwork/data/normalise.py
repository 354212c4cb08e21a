"""The fingerprinted `map` that brings raw rows to the row schema.

In come Arrow batches of one split as its source stores them; out go the schema's values without the photo, which stays
where it is (memory-mapped shard or file) and is only looked at by its header.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopy
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from natix_roadwork.data import gps_text, natix_columns, photo_header, tags
from natix_roadwork.data.natix_columns import parse_values
from natix_roadwork.data.photo_header import PhotoHeader, read_header
from natix_roadwork.data.row_report import RowProblem, row_problem
from natix_roadwork.model import photo


BATCH_SIZE = 256
PROBLEM_FIELDS = {"column": Value("string"), "value": Value("string"), "reason": Value("string")}
VALUE_FEATURES = Features(
    {
        "row_id": Value("string"),
        "label": Value("int64"),
        "latitude": Value("float64"),
        "longitude": Value("float64"),
        "weather": List(Value("string")),
        "daytime": List(Value("string")),
        "scene": List(Value("string")),
        "travel_alteration": List(Value("string")),
        "text": Value("string"),
        "city": Value("string"),
        "width": Value("int32"),
        "height": Value("int32"),
        "video_id": Value("string"),
        "sequence_id": Value("string"),
        "mask": Value("string"),
        "group": Value("string"),
        "num_bytes": Value("int64"),
        "dropped": Value("bool"),
        "problems": List(PROBLEM_FIELDS),
    }
)


def normalise_rows(
    raw: Dataset,
    columns: Mapping[str, str],
    shards: Sequence[tuple[str, int]],
    *,
    mask_folder: str = "",
    max_megapixels: float = 80.0,
    verify_images: bool = False,
    num_proc: int | None = None,
) -> Dataset:
    """Read every raw row into `VALUE_FEATURES`, one output row each.

    The result is cached by the raw data, these settings and the code that reads the values.

    Args:
        raw: Rows with an undecoded `image`, and either source columns or `row_id` and a JSON `record`.
        columns: Source column of each schema field.
        shards: Name and number of rows of each shard in order; a row's id is `shard:row`. Empty where rows bring ids.
        mask_folder: Folder that relative `mask` paths start from.
        max_megapixels: Largest accepted photo in millions of pixels.
        verify_images: Decode every photo once to find damage inside the picture data.
        num_proc: Processes that share the work.
    """
    starts = [0]
    for _, num_rows in shards:
        starts.append(starts[-1] + num_rows)
    return raw.with_format("arrow").map(
        normalise_batch,
        batched=True,
        batch_size=BATCH_SIZE,
        with_indices=True,
        remove_columns=raw.column_names,
        features=VALUE_FEATURES,
        num_proc=num_proc,
        desc="Reading rows",
        fn_kwargs={
            "columns": dict(columns),
            "shard_names": [name for name, _ in shards],
            "shard_starts": starts,
            "mask_folder": mask_folder,
            "max_megapixels": max_megapixels,
            "verify_images": verify_images,
            "code_hash": _code_hash(),
        },
    )


def normalise_batch(
    table: pa.Table,
    indices: Sequence[int],
    *,
    columns: Mapping[str, str],
    shard_names: Sequence[str],
    shard_starts: Sequence[int],
    mask_folder: str,
    max_megapixels: float,
    verify_images: bool,
    code_hash: str,
) -> pa.Table:
    """Read one Arrow batch; `code_hash` only decides whether a cached result is valid."""
    raw_rows = _raw_rows(table, columns)
    rows = []
    for number, (index, values) in enumerate(zip(indices, raw_rows, strict=True)):
        if shard_names:
            shard = bisect_right(shard_starts, index) - 1
            row_id = f"{shard_names[shard]}:{index - shard_starts[shard]}"
        else:
            row_id = table.column("row_id")[number].as_py()
        image = table.column("image")[number]
        rows.append(_normalise_row(row_id, values, columns, image, mask_folder, max_megapixels, verify_images))
    return pa.Table.from_pylist(rows, schema=VALUE_FEATURES.arrow_schema)


def _raw_rows(table: pa.Table, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the raw values by schema field, from JSON records or from the source's own columns."""
    if "record" in table.column_names:
        records = [json.loads(text) for text in table.column("record").to_pylist()]
        return [{field: record.get(name) for field, name in columns.items()} for record in records]
    values = {field: table.column(name).to_pylist() for field, name in columns.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _normalise_row(
    row_id: str,
    values: Mapping[str, Any],
    columns: Mapping[str, str],
    image: pa.StructScalar,
    mask_folder: str,
    max_megapixels: float,
    verify_images: bool,
) -> dict[str, Any]:
    parsed, problems = parse_values(row_id, values, columns)
    header = PhotoHeader(0, 0, 0)
    try:
        header = read_header(_stored_photo(image), max_megapixels, decode=verify_images)
        problems += _size_problem(row_id, values, header)
    except (ValueError, OSError) as error:
        name = image["path"].as_py() or "(bytes)" if image.is_valid else "(nothing)"
        problems.append(row_problem(row_id, "image", os.path.basename(name), str(error), dropped=True))
    dropping = [problem for problem in problems if problem.dropped]
    listed = dropping[:1] or problems
    if parsed["mask"] and mask_folder:
        parsed["mask"] = os.path.join(mask_folder, parsed["mask"])
    return {
        "row_id": row_id,
        **parsed,
        "width": header.width,
        "height": header.height,
        "num_bytes": header.num_bytes,
        "dropped": bool(dropping),
        "problems": [{"column": p.column, "value": p.value, "reason": p.reason} for p in listed],
    }


def _stored_photo(image: pa.StructScalar) -> pa.Buffer | str:
    stored = image["bytes"].as_buffer() if image.is_valid and image["bytes"].is_valid else None
    if stored is not None:
        return stored
    path = image["path"].as_py() if image.is_valid else None
    if not path or not os.path.isfile(path):
        raise ValueError("the row has no photo")
    return path


def _size_problem(row_id: str, values: Mapping[str, Any], header: PhotoHeader) -> list[RowProblem]:
    """Compare the written size with the photo's own; a quarter turn apart is the same size."""
    written = [values.get("width"), values.get("height")]
    if any(not isinstance(side, int) for side in written) or set(written) == {header.width, header.height}:
        return []
    reason = f"the photo measures {header.width}x{header.height}, which is used"
    return [row_problem(row_id, "width", f"{written[0]}x{written[1]}", reason, dropped=False)]


def _code_hash() -> str:
    """Hash the code that reads values and geopy's version: functions of a package are fingerprinted by name alone."""
    digest = hashlib.sha256(geopy.__version__.encode())
    for path in (
        __file__,
        natix_columns.__file__,
        gps_text.__file__,
        tags.__file__,
        photo_header.__file__,
        photo.__file__,
    ):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()
