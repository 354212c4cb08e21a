from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.data.groups import components_of, group_names, near_pairs, pairs_of_file


KM = 1 / 111.195  # degrees of latitude


def test_name_is_the_group_given_or_the_video_or_the_sequence_or_the_row() -> None:
    names = group_names(
        ["r0", "r1", "r2", "r3"], ["v", "v", "", ""], ["1", "1", "1", ""], ["x"] * 4, ["g", "", "", ""]
    )
    assert names == ["g", "video:v", "sequence:x:1", "row:r3"]


def test_links_of_every_kind_join_and_chain() -> None:
    gps = np.full((6, 2), np.nan)
    gps[2], gps[3] = (40.0, -80.0), (40.0 + 0.09 * KM, -80.0)
    blank = [""] * 6
    names = group_names(
        [f"r{n}" for n in range(6)],
        ["", "v", "v", "", "", ""],
        blank,
        blank,
        ["", "", "", "", "mine", ""],
        gps=gps,
        duplicates=np.array([[3, 4]]),
    )
    assert names == ["row:r0", "mine", "mine", "mine", "mine", "row:r5"]


def test_names_do_not_depend_on_the_order_of_rows() -> None:
    ids, videos = ["a", "b", "c", "d"], ["v2", "v1", "v1", ""]
    pairs = np.array([[0, 2]])
    first = group_names(ids, videos, [""] * 4, [""] * 4, [""] * 4, duplicates=pairs)
    turned = group_names(ids[::-1], videos[::-1], [""] * 4, [""] * 4, [""] * 4, duplicates=3 - pairs)
    assert first == turned[::-1] == ["video:v1", "video:v1", "video:v1", "row:d"]


def _joined(gps: np.ndarray, within_km: float = 0.1) -> list[int]:
    return components_of(len(gps), [near_pairs(gps, within_km)]).tolist()


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ((40.0, -80.0), (40.0 + 0.099 * KM, -80.0), True),
        ((40.0, -80.0), (40.0 + 0.101 * KM, -80.0), False),
        ((0.0, 180.0), (0.0, -180.0 + 0.09 * KM), True),
        ((90.0, 10.0), (90.0, -120.0), True),
        ((np.nan, -80.0), (np.nan, -80.0), False),
        ((np.nan, np.nan), (40.0, -80.0), False),
    ],
)
def test_places_join_within_a_hundred_metres(first: tuple, second: tuple, joined: bool) -> None:
    components = _joined(np.array([first, second]))
    assert (components[0] == components[1]) == joined


def test_places_agree_with_all_pairs() -> None:
    rng = np.random.default_rng(0)
    gps = np.column_stack([rng.uniform(40.0, 40.02, 300), rng.uniform(-80.0, -79.98, 300)])
    gps[::7] = np.nan
    metres = (gps[:, None] - gps[None]) * (111_195, 111_195 * np.cos(np.radians(40.01)))
    near = np.argwhere(np.hypot(*np.moveaxis(metres, 2, 0)) < 100.0)
    assert _joined(gps) == components_of(300, [near]).tolist()


def test_many_rows_at_one_place_stay_few_links() -> None:
    gps = np.repeat([[40.0, -80.0], [41.0, -80.0]], 20_000, axis=0)
    pairs = near_pairs(gps)
    assert len(pairs) <= 40_010
    assert len(set(components_of(len(gps), [pairs]).tolist())) == 2


def test_dense_places_are_linked_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natix_roadwork.data.groups.PAIRS_A_PASS", 50)
    gps = np.column_stack([40.0 + np.arange(60) * 0.05 * KM, np.full(60, -80.0)])
    assert len(set(_joined(gps))) == 1


@pytest.mark.parametrize(("gps", "message"), [([[95.0, 0.0]], r"gps\[0\]"), ([[0.0, 181.0]], "out of range")])
def test_coordinates_out_of_range_are_named(gps: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        near_pairs(np.array(gps))


@pytest.mark.parametrize("within_km", [0.0, -1.0, 7000.0])
def test_distance_out_of_range_is_named(within_km: float) -> None:
    with pytest.raises(ValueError, match="within_km"):
        near_pairs(np.zeros((1, 2)), within_km)


def test_file_of_groups_links_its_rows(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("row_id,group,split\na,x,train\nb,y,dev\nc,x,dev\ngone,x,dev\n")
    assert pairs_of_file(tmp_path / "groups.csv", ["new", "c", "b", "a"]).tolist() == [[3, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist; recipes/audit.py writes one"),
        ("row_id;group\na;x\n", r"has no column \['group', 'row_id'\]"),
        ("row_id,group\nother,x\n", "has none of the 1 rows, such as 'a'"),
    ],
)
def test_unusable_file_of_groups_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        pairs_of_file(tmp_path / "groups.csv", ["a"])
