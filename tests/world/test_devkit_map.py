"""The official devkit reads our map; it knows four city names, so ours goes under one of them."""

import json

import numpy as np
import pytest
from writer_samples import little_town

from sparsedrive.world.map_expansion import lane_token, map_expansion

map_api = pytest.importorskip("nuscenes.map_expansion.map_api", reason="no devkit; pip install --no-deps -r requirements-oracle.txt")
CITY = "boston-seaport"


@pytest.fixture(scope="module")
def devkit_map(tmp_path_factory):
    root = tmp_path_factory.mktemp("map")
    (root / "maps" / "expansion").mkdir(parents=True)
    (root / "maps" / "expansion" / f"{CITY}.json").write_text(json.dumps(map_expansion(little_town(), "here")))
    return map_api.NuScenesMap(dataroot=str(root), map_name=CITY)


def test_devkit_extracts_the_same_lines_and_polygons(devkit_map):
    town = little_town()
    for layer, divider in zip(("lane_divider", "road_divider"), town.dividers, strict=True):
        (record,) = getattr(devkit_map, layer)
        np.testing.assert_array_equal(np.array(devkit_map.extract_line(record["line_token"]).coords), divider.points_m)
    (crossing,) = devkit_map.ped_crossing
    corners = np.array(devkit_map.extract_polygon(crossing["polygon_token"]).exterior.coords)[:-1]
    np.testing.assert_array_equal(corners, town.crossings[0].outline_m)
    (area,) = devkit_map.drivable_area
    drivable = devkit_map.extract_polygon(area["polygon_tokens"][0])
    np.testing.assert_array_equal(np.array(drivable.exterior.coords), town.boundaries[0])
    np.testing.assert_array_equal(np.array(drivable.interiors[0].coords), town.boundaries[1])


def test_devkit_finds_what_is_near_and_what_lies_below_a_point(devkit_map):
    found = devkit_map.get_records_in_radius(20, 12, 5, ["lane", "lane_divider", "ped_crossing", "road_segment"])
    assert len(found["lane"]) == 2 and len(found["lane_divider"]) == 1 and found["ped_crossing"] == []
    below = devkit_map.layers_on_point(31, 4)
    assert below["ped_crossing"] and below["road_segment"] and below["drivable_area"] and not below["lane"]
    assert not devkit_map.layers_on_point(20, 18)["drivable_area"]  # the block of grass


def test_devkit_follows_the_lanes(devkit_map):
    town = little_town()
    first, turn = (lane_token("here", town.lane(number)) for number in (0, 2))
    assert devkit_map.get_outgoing_lane_ids(first) == [turn] and devkit_map.get_incoming_lane_ids(turn) == [first]
    assert devkit_map.get_closest_lane(10, 12.3, radius=2) == first
    centre = devkit_map.discretize_lanes([turn], 0.5)[turn]
    distance = np.abs(np.linalg.norm(np.array(centre)[:, :2] - (40, 20), axis=1) - 8)
    assert distance.max() < 0.02 and np.allclose(centre[-1][:2], town.lane(2).centre_m[-1], atol=0.02)


def test_devkit_draws_the_masks(devkit_map):
    mask = devkit_map.get_map_mask((20, 15, 30, 40), 0, ["drivable_area", "ped_crossing", "lane_divider"], (300, 400))
    assert mask.shape == (3, 300, 400) and all(layer.any() and not layer.all() for layer in mask)
