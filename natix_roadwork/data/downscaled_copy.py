"""Make a local, downscaled copy of a large data set, once.

In comes a Hub id, parquet shards or an imagefolder; out comes the same layout with the same names and the same rows in
the same order, so that row ids stay as they are. Each file appears complete or not at all, and a stopped copy goes on.
"""

import json
import math
import os
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from huggingface_hub import HfApi
from tqdm.auto import tqdm

from natix_roadwork.data.copy_state import PARTIAL_SUFFIX, CopyReport, PrepareArguments, enter_copy, write_file
from natix_roadwork.data.downscale import DownscaledPhoto, downscale_photo
from natix_roadwork.data.imagefolder import photos_in, scan_imagefolder
from natix_roadwork.data.photo_header import read_header
from natix_roadwork.data.sources import HUB_ID, METADATA_FILE, find_source


def downscaled_copy(arguments: PrepareArguments) -> CopyReport:
    """Copy a data set with every photo's longer side at most `max_side`.

    Parquet columns keep their names, types and values; `width` and `height` of a shrunk photo become its new upright
    size, as they describe the stored photo. In an imagefolder, metadata lines are copied as they are, but for those
    two keys; other keys in pixels, such as boxes, still speak of the original photo.

    Raises:
        ValueError: If the source is not found, or the folder holds anything but a copy with the same settings.
    """
    target = Path(arguments.output_dir)
    with ThreadPoolExecutor(arguments.num_workers or os.cpu_count()) as pool:
        if _is_hub(arguments.dataset_name):
            url = _hub_url(arguments)
            return copy_shards(url, _hub_shards(url), target, arguments, pool)
        source = find_source(arguments.dataset_name)
        if source.layout == "parquet":
            paths = [str(path.absolute()) for paths in source.files.values() for path in paths]
            return copy_shards("file://", paths, target, arguments, pool)
        return _copy_imagefolder(Path(arguments.dataset_name), source.files, target, arguments, pool)


def _is_hub(dataset_name: str) -> bool:
    return HUB_ID.fullmatch(dataset_name) is not None and not Path(dataset_name).exists()


def _hub_url(arguments: PrepareArguments) -> str:
    try:
        commit = HfApi().dataset_info(arguments.dataset_name, revision=arguments.revision).sha
    except OSError as error:
        raise ValueError(
            f"dataset_name={arguments.dataset_name!r} is no folder here, and the Hub data set cannot be reached: {error}"
        ) from error
    return f"hf://datasets/{arguments.dataset_name}@{commit}"


def _hub_shards(url: str) -> list[str]:
    files, root = url_to_fs(url)
    paths = sorted(files.glob(f"{root}/*.parquet")) + sorted(files.glob(f"{root}/data/*.parquet"))
    if not paths:
        raise ValueError(f"{url} has no parquet shards in its root or in data/")
    return paths


def copy_shards(url: str, paths: list[str], target: Path, arguments: PrepareArguments, pool: Executor) -> CopyReport:
    """Copy parquet shards of any file system, one row group after the other.

    Args:
        url: Names the file system; the paths are its own.
        paths: Shards; each keeps its name.
        target: Folder of the copy.
        arguments: Sizes and quality.
        pool: Threads for the photos.
    """
    files = url_to_fs(url)[0]
    sizes = {PurePosixPath(path).name: files.info(path)["size"] for path in paths}
    enter_copy(target, arguments, {"source": url, "files": sizes})
    report = CopyReport()
    for path in tqdm(paths, desc="Shards"):
        output = target / PurePosixPath(path).name
        if output.exists():
            report.files_already_there += 1
            continue
        partial = output.with_name(output.name + PARTIAL_SUFFIX)
        _copy_shard(files, path, partial, arguments, pool, report)
        os.replace(partial, output)
    return report


def _copy_shard(
    files: AbstractFileSystem,
    path: str,
    partial: Path,
    arguments: PrepareArguments,
    pool: Executor,
    report: CopyReport,
) -> None:
    name = PurePosixPath(path).stem
    with files.open(path, "rb") as file:
        shard = pq.ParquetFile(file)
        schema = shard.schema_arrow
        if "image" not in schema.names:
            raise ValueError(f"{path} has no column 'image'; its columns are {schema.names}")
        row = 0
        with (
            pq.ParquetWriter(partial, schema) as writer,
            tqdm(total=shard.metadata.num_rows, desc=name, leave=False) as progress,
        ):
            for batch in shard.iter_batches(batch_size=arguments.rows_per_group):
                writer.write_batch(_shrink_batch(batch, schema, f"{name}:", row, arguments, pool, report))
                row += len(batch)
                progress.update(len(batch))


def _shrink_batch(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    prefix: str,
    first_row: int,
    arguments: PrepareArguments,
    pool: Executor,
    report: CopyReport,
) -> pa.RecordBatch:
    columns = {name: batch.column(name) for name in schema.names}
    images = columns["image"].to_pylist()
    stored = [image["bytes"] if isinstance(image, dict) else image for image in images]
    photos = list(pool.map(lambda data: _shrink(data or b"", arguments), stored))
    for number, (data, photo) in enumerate(zip(stored, photos, strict=True)):
        report.add(f"{prefix}{first_row + number}", data or b"", photo)
        if photo.size is not None:
            images[number] = (
                {**images[number], "bytes": photo.data} if isinstance(images[number], dict) else photo.data
            )
    columns["image"] = pa.array(images, type=schema.field("image").type)
    for axis, name in enumerate(("width", "height")):
        if name in columns:
            sides = columns[name].to_pylist()
            sides = [p.size[axis] if p.size else side for p, side in zip(photos, sides, strict=True)]
            columns[name] = pa.array(sides, type=schema.field(name).type)
    return pa.record_batch(list(columns.values()), schema=schema)


def _shrink(data: bytes, arguments: PrepareArguments) -> DownscaledPhoto:
    return downscale_photo(data, arguments.max_side, arguments.quality, arguments.max_megapixels)


def _copy_imagefolder(
    root: Path, folders: dict[str, list[Path]], target: Path, arguments: PrepareArguments, pool: Executor
) -> CopyReport:
    scans = {split: scan_imagefolder(found[0], split).signature for split, found in folders.items()}
    enter_copy(target, arguments, {"source": str(root.absolute()), "files": scans})
    report = CopyReport()
    for found in folders.values():
        folder = found[0]
        output = target / folder.relative_to(root)
        masks = _mask_names(folder)
        names = sorted({*photos_in(folder), *masks})
        todo = [name for name in names if not (output / name).exists()]
        report.files_already_there += len(names) - len(todo)
        progress = tqdm(total=len(todo), desc=folder.name)
        for start in range(0, len(todo), arguments.rows_per_group):
            chunk = todo[start : start + arguments.rows_per_group]
            stored = [(folder / name).read_bytes() for name in chunk]
            photos = pool.map(lambda data: _shrink(data, arguments), stored)
            for name, data, photo in zip(chunk, stored, photos, strict=True):
                kept = DownscaledPhoto(data) if name in masks else photo
                report.add(name, data, kept)
                write_file(output / name, kept.data)
                progress.update()
        progress.close()
        write_file(output / METADATA_FILE, _new_metadata(folder, output))
    return report


def _mask_names(folder: Path) -> set[str]:
    named = {str(record.get("mask") or "") for record in scan_imagefolder(folder, "").records.values()}
    return {name for name in named if name and (folder / name).is_file()}


def _new_metadata(folder: Path, output: Path) -> bytes:
    """Return the metadata with the new size of each shrunk photo; every other line keeps its bytes."""
    records = scan_imagefolder(folder, "").records
    sized = {name for name, record in records.items() if {"width", "height"} & set(record)}
    lines = []
    for line in (folder / METADATA_FILE).read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
            name = str(PurePosixPath(record["file_name"]))
        except (ValueError, TypeError, KeyError):
            name = ""
        if name in sized and (output / name).stat().st_size != (folder / name).stat().st_size:
            header = read_header(output / name, math.inf)
            size = {"width": header.width, "height": header.height}
            record |= {key: side for key, side in size.items() if key in record}
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        lines.append(line)
    return b"".join(lines)
