"""The embedded scenes: same bytes every time, exact masks, NATIX's columns and every quirk behind its switch."""

import ast
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from natix_roadwork.data.natix_columns import NATIX_COLUMNS
from natix_roadwork.data.scene_canvas import Light
from natix_roadwork.data.scene_distractors import DISTRACTOR_KINDS, draw_distractor
from natix_roadwork.data.scene_objects import DESIGN_SHARES, DESIGNS, OBJECT_KINDS, draw_object
from natix_roadwork.data.scene_plan import plan_place
from natix_roadwork.data.scene_table import (
    CITIES,
    SceneLeaks,
    SceneSettings,
    photo_shape,
    plan_rows,
    scene_record,
)
from natix_roadwork.data.scenes import draw_plan, draw_scene, write_contact_sheet, write_scenes


SMALL = SceneSettings(num_rows=16, test_share=0.25, width=240, positive_share=0.5, test_positive_share=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "small", SMALL, progress=False)


def rows_of(settings: SceneSettings) -> list[dict[str, object]]:
    return [scene_record(plan, plan.place(settings), b"", (16, 9), settings) for plan in plan_rows(settings)]


def parquet_rows(folder: Path, split: str) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_objects_are_drawn_at_size_and_repeatably(kind: str) -> None:
    for variant in range(len(DESIGNS[kind])):
        first, second = (draw_object(kind, 60, np.random.default_rng(3), Light(), variant) for _ in range(2))
        assert np.array_equal(first, second)
        assert first.dtype == np.uint8 and first.shape[2] == 4
        assert 54 <= first.shape[0] <= 60
        assert (first[..., 3] > 127).mean() > 0.1


def test_unknown_objects_are_named() -> None:
    with pytest.raises(ValueError, match="tram"):
        draw_object("tram", 60, np.random.default_rng(0))
    with pytest.raises(ValueError, match="size_px"):
        draw_distractor("bin", 3, np.random.default_rng(0))


def test_ordinary_things_can_be_orange() -> None:
    def redness(picture: np.ndarray) -> float:
        solid = picture[..., 3] > 127
        return float(picture[..., 0][solid].mean() - picture[..., 2][solid].mean())

    for kind in ("car_rear", "bin", "hydrant", "van_rear"):
        orange, plain = (draw_distractor(kind, 80, np.random.default_rng(5), orange=flag) for flag in (True, False))
        assert redness(orange) > redness(plain)


def test_design_shares_are_complete() -> None:
    assert {kind: len(shares) for kind, shares in DESIGN_SHARES.items()} == {k: len(d) for k, d in DESIGNS.items()}
    assert all(sum(shares) == pytest.approx(1) for shares in DESIGN_SHARES.values())
    assert not set(DISTRACTOR_KINDS) & set(OBJECT_KINDS)


def test_evidence_changes_nothing_else_at_a_place() -> None:
    bare, roadwork = plan_place(0, 7, has_evidence=False), plan_place(0, 7, has_evidence=True)
    assert tuple(thing for thing in roadwork.things if not thing.is_evidence) == bare.things
    assert (bare.environment, bare.weather, bare.daytime) == (roadwork.environment, roadwork.weather, roadwork.daytime)


def test_mask_is_exact() -> None:
    plan = next(plan for plan in plan_rows(SMALL) if plan.label == 1)
    with_evidence = draw_plan(plan, SMALL)
    without = draw_plan(plan, replace(SMALL, draw_evidence=False))
    assert not without.mask.any() and with_evidence.mask.any()
    inside = with_evidence.mask > 0
    difference = np.abs(with_evidence.photo.astype(int) - without.photo.astype(int)).max(2)
    assert difference[inside].mean() > 5 * max(difference[~inside].mean(), 0.1)


def test_without_evidence_a_photo_does_not_depend_on_its_label() -> None:
    settings = replace(SMALL, draw_evidence=False)
    plan = next(plan for plan in plan_rows(settings) if plan.label == 1)
    assert np.array_equal(draw_plan(plan, settings).photo, draw_plan(replace(plan, label=0), settings).photo)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_positive_shows_evidence_and_no_negative_does(seed: int) -> None:
    settings = SceneSettings(num_rows=14, width=320, positive_share=0.7, test_share=0.0, seed=seed)
    for plan in plan_rows(settings):
        scene = draw_plan(plan, settings)
        assert scene.mask.max() < 1 << len(OBJECT_KINDS)
        assert ((scene.mask > 0).sum() >= 8) == (scene.label == 1)


def test_mask_bits_name_the_kinds_that_stand_there() -> None:
    settings = SceneSettings(num_rows=12, width=400, positive_share=1.0, test_share=0.0)
    for index in range(0, 12, 3):
        scene = draw_scene(index, settings)
        planned = {OBJECT_KINDS.index(thing.kind) for thing in scene.place.things if thing.is_evidence}
        assert {bit for bit in range(8) if (scene.mask >> bit & 1).any()} <= planned


def test_photo_width_follows_the_settings() -> None:
    scene = draw_scene(0, SceneSettings(num_rows=1, test_share=0.0, width=3200))
    assert max(scene.photo.shape) == 3200 and scene.photo.shape[:2] == scene.mask.shape


@pytest.mark.process
def test_same_settings_same_bytes_for_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    again = write_scenes(tmp_path / "again", SMALL, num_workers=2, progress=False)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_finished_folder_is_left_alone_and_others_are_refused(folder: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_scenes(folder, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ValueError, match="other settings"):
        write_scenes(folder, SMALL, seed=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_scenes(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_scenes(tmp_path / "new", num_rows=2, width=200, progress=False)
    assert not list(tmp_path.iterdir())


def test_datasets_reads_the_folder_as_natix_columns(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {split: len(part) for split, part in dataset.items()} == {"train": 12, "test": 4}
    row = dataset["train"][0]
    assert tuple(dataset["train"].column_names) == NATIX_COLUMNS and len(NATIX_COLUMNS) == 19
    assert row["image"].size == (row["width"], row["height"])


def test_rows_hold_what_natix_rows_hold(folder: Path) -> None:
    rows = parquet_rows(folder, "train") + parquet_rows(folder, "test")
    assert [row["id"] for row in rows] == list(range(16))
    for row in rows:
        assert row["flickr_url"] is None and row["label"] in (0, 1)
        assert row["gps"] is None or 24 < json.loads(row["gps"])[0] < 50 > -60 > json.loads(row["gps"])[1]
        weather = row["scene_level_tags.weather"]
        assert weather is None or (isinstance(ast.literal_eval(weather), list) and "'" in weather)
        assert row["scene_level_tags.daytime"] in ("Light", "Dark", "Twilight", None)
        with Image.open(io.BytesIO(row["image"]["bytes"])) as photo, Image.open(mask_path(folder, row)) as mask:
            assert photo.size == mask.size == (row["width"], row["height"])
            assert bool(np.asarray(mask).any()) == (row["label"] == 1)


def mask_path(folder: Path, row: dict[str, object]) -> Path:
    return folder / "masks" / f"{row['id']:06d}_seg_mask.png"


def test_rows_are_sorted_by_label_and_shares_hold() -> None:
    plans = plan_rows(SceneSettings(num_rows=1000, test_share=0.3))
    for split, share, size in (("train", 0.8, 700), ("test", 0.9, 300)):
        labels = [plan.label for plan in plans if plan.split == split]
        assert labels == sorted(labels) and len(labels) == size
        assert np.mean(labels) == pytest.approx(share, abs=0.005)


def test_videos_hold_frames_of_one_place_on_one_side() -> None:
    plans = plan_rows(SceneSettings(num_rows=400))
    videos = Counter(plan.video for plan in plans)
    assert max(videos.values()) == 2 and min(videos.values()) == 1
    places: dict[int, set[tuple[str, int]]] = {}
    for plan in plans:
        places.setdefault(plan.place_number, set()).add((plan.split, plan.label))
    assert all(len(sides) == 1 for sides in places.values())


def test_near_duplicates_look_alike_but_are_not_equal() -> None:
    settings = SceneSettings(num_rows=60, width=320, duplicate_share=0.5, test_share=0.0)
    plans = plan_rows(settings)
    copy = next(plan for plan in plans if plan.variation)
    key = (copy.place_number, copy.frame)
    source = next(plan for plan in plans if (plan.place_number, plan.frame) == key and not plan.variation)
    other = next(
        plan
        for plan in plans
        if plan.place_number != copy.place_number and photo_shape(plan, settings) == photo_shape(copy, settings)
    )
    assert source.video != copy.video

    def small(plan: object) -> np.ndarray:
        return np.asarray(Image.fromarray(draw_plan(plan, settings).photo).resize((16, 16)), dtype=float)

    distance = np.abs(small(copy) - small(source)).mean()
    assert 0 < distance < 0.5 * np.abs(small(copy) - small(other)).mean()


def agreement(settings: SceneSettings) -> float:
    rows = rows_of(settings)
    described = [row["scene_description"] not in (None, "", "No Description") for row in rows]
    return float(np.mean([told == (row["label"] == 1) for told, row in zip(described, rows, strict=True)]))


def test_description_leak_has_a_switch() -> None:
    many = {"num_rows": 160, "positive_share": 0.5, "test_share": 0.0}
    assert 0.85 < agreement(SceneSettings(**many)) < 0.99
    assert agreement(SceneSettings(**many, inconsistent_share=0.0)) == 1.0
    assert agreement(SceneSettings(**many, leaks=SceneLeaks(description=False))) == pytest.approx(0.5, abs=0.14)


def leak_gaps(settings: SceneSettings) -> tuple[float, float]:
    """How much more often label 1 has a 16:9 photo, and a city of the first half, than label 0."""
    plans = plan_rows(settings)
    place = plans[0].place(settings)
    first_half = {name for name, *_ in CITIES[: len(CITIES) // 2]}
    wide = np.array([photo_shape(plan, settings) == (16, 9) for plan in plans], float)
    cities = [scene_record(plan, place, b"", (16, 9), settings)["city_name"] for plan in plans]
    first, labels = np.isin(cities, list(first_half)), np.array([plan.label for plan in plans])
    return tuple(float(hits[labels == 1].mean() - hits[labels == 0].mean()) for hits in (wide, first))


def test_city_and_size_leaks_have_switches() -> None:
    many = {"num_rows": 600, "positive_share": 0.5, "test_share": 0.0, "max_frames": 1}
    assert leak_gaps(SceneSettings(**many)) == pytest.approx((0, 0), abs=0.12)
    assert min(leak_gaps(SceneSettings(**many, leaks=SceneLeaks(photo_size=True, city=True)))) > 0.5


def test_missing_values_follow_their_share() -> None:
    rows = rows_of(SceneSettings(num_rows=150, missing_share=0.2))
    for column in ("gps", "scene_level_tags.weather", "scene_level_tags.daytime"):
        assert np.mean([row[column] is None for row in rows]) == pytest.approx(0.2, abs=0.11)
    assert all(row["gps"] is not None for row in rows_of(SceneSettings(num_rows=50, missing_share=0.0)))


@pytest.mark.parametrize("change", [{"num_rows": 0}, {"width": 10}, {"positive_share": 1.5}, {"seed": -1}])
def test_impossible_settings_are_named(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        SceneSettings(**change)


def test_contact_sheet_is_a_small_jpeg(tmp_path: Path) -> None:
    path = write_contact_sheet(
        tmp_path / "sheet.jpg", SceneSettings(num_rows=60, width=320, positive_share=0.5), 2, 1, 200
    )
    with Image.open(path) as sheet:
        assert sheet.format == "JPEG" and sheet.size == (404, 112)
