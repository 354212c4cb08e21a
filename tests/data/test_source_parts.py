from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_roadwork.data.dataset import load_rows


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("gps", "[39.7001, -86.18]"),
        ("scene_level_tags.weather", "['Sunny']"),
        ("scene_level_tags.daytime", "Dark"),
        ("scene_level_tags.scene_environment", None),
        ("scene_level_tags.travel_alteration", None),
        ("scene_description", "A closed lane."),
        ("city_name", "columbus"),
    ],
)
def test_changed_metadata_has_another_fingerprint(
    tmp_path: Path,
    natix_row: Callable[..., dict[str, Any]],
    write_shard: Callable[..., Path],
    column: str,
    value: object,
) -> None:
    rows = [natix_row(number) for number in range(12)]
    write_shard(tmp_path / "a" / "train-0.parquet", rows)
    write_shard(tmp_path / "b" / "train-0.parquet", [{**rows[0], column: value}, *rows[1:]])
    first, changed = (
        load_rows(str(tmp_path / name), cache_dir=str(tmp_path / "cache"), near_duplicates=False) for name in "ab"
    )
    assert first.manifest == changed.manifest and first.fingerprint != changed.fingerprint
