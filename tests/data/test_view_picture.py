from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.data.view_picture import draw_view_boxes, draw_views, main, view_colours


def has_colour(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(axis=2).any())


def test_every_box_is_drawn_in_its_own_colour() -> None:
    colours = view_colours(12)
    assert len(set(colours)) == 12
    picture = draw_view_boxes(
        Image.new("RGB", (600, 400)), RoadworkImageProcessor(view_size=32).view_boxes(600, 400), width=300
    )
    assert picture.size == (300, 200)
    assert all(has_colour(picture, colour) for colour in colours)


def test_a_box_left_out_is_not_drawn() -> None:
    picture = draw_view_boxes(Image.new("RGB", (60, 40)), [None, None, (0, 0, 40, 40)], width=120)
    _, absent, present = view_colours(3)
    assert has_colour(picture, present) and not has_colour(picture, absent)


def test_an_edge_is_drawn_where_the_box_lies() -> None:
    picture = np.asarray(draw_view_boxes(Image.new("RGB", (200, 100)), [(50, 0, 150, 100)], width=400))
    row = np.flatnonzero((picture[100] > 0).any(axis=1))
    assert abs(row.min() - 100) <= 4 and abs(row.max() - 300) <= 4


def test_the_views_stand_beside_the_photo() -> None:
    photo = Image.new("RGB", (400, 300), (90, 120, 30))
    photo12 = draw_views(RoadworkImageProcessor(view_size=32), photo, width=300)
    single = draw_views(RoadworkImageProcessor(view_size=32, view_layout="single"), photo, width=300)
    assert photo12.width > 300 and single.width > 300
    assert all(has_colour(photo12, colour) for colour in view_colours(12))
    assert not has_colour(single, view_colours(12)[5])


def test_the_command_draws_a_photo(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "photo.png")
    main([str(tmp_path / "views.png"), "--photo", str(tmp_path / "photo.png"), "--view_size", "32"])
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.width > 960 and has_colour(picture, (90, 120, 30))


def test_the_command_draws_a_scene_when_no_photo_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natix_roadwork.data.view_picture.SCENE_WIDTH", 320)
    main([str(tmp_path / "views.png"), "--view_size", "32"])
    with Image.open(tmp_path / "views.png") as picture:
        assert all(has_colour(picture, colour) for colour in view_colours(12))
