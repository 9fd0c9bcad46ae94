"""City maps: the published converter's lines on real frames, a small city with known answers, broken files."""

import gzip
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import LineString

from sparsedrive.data.map_lines import clip_to_roi, cut, is_ring, turn
from sparsedrive.data.nuscenes.map_expansion import BOUNDARY, CROSSING, DIVIDER, CityMap, load_city_map
from sparsedrive.data.nuscenes.poses import pose_matrix
from sparsedrive.data.prepared import MAP_HALF_SIZE_M


class City:
    """Writes an expansion file; every polygon and line gets nodes of its own."""

    def __init__(self) -> None:
        names = ("node", "line", "polygon", "lane", "road_segment", "ped_crossing", "lane_divider", "road_divider")
        self.layers: dict[str, list[dict]] = {name: [] for name in names}

    def nodes(self, points: list) -> list[str]:
        tokens = [f"n{len(self.layers['node']) + i}" for i in range(len(points))]
        self.layers["node"] += [{"token": token, "x": x, "y": y} for token, (x, y) in zip(tokens, points, strict=True)]
        return tokens

    def area(self, layer: str, exterior: list, *holes: list) -> "City":
        token = f"p{len(self.layers['polygon'])}"
        rings = [{"node_tokens": self.nodes(hole)} for hole in holes]
        self.layers["polygon"].append({"token": token, "exterior_node_tokens": self.nodes(exterior), "holes": rings})
        self.layers[layer].append({"token": f"{layer}-{token}", "polygon_token": token})
        return self

    def line(self, layer: str, points: list) -> "City":
        token = f"l{len(self.layers['line'])}"
        self.layers["line"].append({"token": token, "node_tokens": self.nodes(points)})
        self.layers[layer].append({"token": f"{layer}-{token}", "line_token": token})
        return self

    def load(self, root: Path) -> CityMap:
        path = root / "maps" / "expansion" / "town.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.layers))
        return load_city_map(root, "town")


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def winding_city() -> City:
    """A winding road of 200 m with a lane that overlaps it, a square with an island, a crossing, dividers."""
    y = np.linspace(-100, 100, 81)
    x = 10 * np.sin(y / 15)
    road = np.concatenate([np.stack([x - 6, y], 1), np.stack([x + 6, y], 1)[::-1]]).tolist()
    lane = np.concatenate([np.stack([x + 1, y], 1), np.stack([x + 7.5, y], 1)[::-1]]).tolist()
    city = City().area("road_segment", road).area("lane", lane)
    city.area("road_segment", rectangle(-40, -20, 40, 20), rectangle(-25, -8, -20, 8)).area("ped_crossing", rectangle(-9, 21, 9, 25))
    for dash_m in range(-60, 60, 4):
        city.line("lane_divider", [(dash_m, 15), (dash_m + 3, 15)]).line("lane_divider", [(30, dash_m), (30, dash_m + 3)])
    return city.line("lane_divider", np.stack([x, y], 1).tolist()).line("road_divider", [(-60, 3), (60, 4)])


def pose(x_m: float, y_m: float, yaw_rad: float) -> np.ndarray:
    """Pose of an ego frame."""
    global_T_ego = np.eye(4)
    global_T_ego[:2, :2] = [[np.cos(yaw_rad), -np.sin(yaw_rad)], [np.sin(yaw_rad), np.cos(yaw_rad)]]
    global_T_ego[:3, 3] = [x_m, y_m, 1.7]
    return global_T_ego


def unmatched(ours: list, expected: list, tolerance_m: float) -> list:
    """Lines of either list without a partner of the same label, place and direction in the other."""
    left, lonely = list(ours), []
    for label, points in expected:
        for index, (other, candidate) in enumerate(left):
            same_ends = np.allclose(points[[0, -1]], candidate[[0, -1]], atol=tolerance_m) or (is_ring(points) and is_ring(candidate))
            if other == label and same_ends and shapely.hausdorff_distance(LineString(points), LineString(candidate)) <= tolerance_m:
                left.pop(index)
                break
        else:
            lonely.append((label, points))
    return lonely + left


def test_lines_of_all_real_frames_are_those_of_the_published_converter(real_root):
    maps, count = {}, np.zeros(3, int)
    for split in ("train", "val"):
        with gzip.open(real_root / "reference" / f"sparsedrive_infos_{split}.json.gz") as file:
            infos = json.load(file)["infos"]
        for info in infos:
            location = info["map_location"]
            maps[location] = maps.get(location) or load_city_map(real_root, location)
            sides = ("ego2global", "lidar2ego")
            global_T_car, car_T_ego = (pose_matrix(info[f"{side}_translation"], info[f"{side}_rotation"]).numpy() for side in sides)
            ours = clip_to_roi(maps[location].lines(global_T_car @ car_T_ego))
            expected = [(int(label), np.array(line["__array__"])) for label, lines in info["map_annos"].items() for line in lines]
            assert not unmatched(ours, expected, 1e-9), info["token"]
            count += np.bincount([label for label, _ in ours], minlength=3)
    assert count.tolist() == [0, 469, 291]


@pytest.mark.parametrize("seed", range(25))
def test_clipping_wide_first_changes_nothing_and_turning_commutes(seed, tmp_path):
    rng = np.random.default_rng(seed)
    city = winding_city().load(tmp_path)
    x, y, yaw, angle = rng.uniform([-30, -60, -np.pi, -np.pi], [30, 60, np.pi, np.pi])
    ego_T_global = np.linalg.inv(pose(x, y, yaw))
    whole = [
        (int(label), shapely.get_coordinates(line) @ ego_T_global[:2, :2].T + ego_T_global[:2, 3])
        for label, line in zip(city.labels, city.lines_m, strict=True)
    ]
    square = shapely.box(-MAP_HALF_SIZE_M, -MAP_HALF_SIZE_M, MAP_HALF_SIZE_M, MAP_HALF_SIZE_M)
    assert not unmatched(city.lines(pose(x, y, yaw)), cut(whole, square, square), 1e-6)
    lines = clip_to_roi(city.lines(pose(x, y, yaw)))
    assert lines and not unmatched(lines, clip_to_roi(whole), 1e-6)
    assert not unmatched(clip_to_roi(turn(city.lines(pose(x, y, yaw + angle)), angle)), lines, 1e-6)


def test_lines_fill_the_square_and_no_more(tmp_path):
    lines = winding_city().load(tmp_path).lines(pose(0, 0, 0.7))
    reach = max(np.abs(points).max() for _, points in lines)
    assert reach == pytest.approx(MAP_HALF_SIZE_M, abs=1e-9)
    labels = [label for label, _ in lines]
    assert labels == sorted(labels) and set(labels) == {CROSSING, DIVIDER, BOUNDARY}


def test_ego_frame_is_x_right_y_forward(tmp_path):
    city = City().line("road_divider", [(10, 5), (10, 9)]).load(tmp_path)
    # The ego frame's x axis looks south, so forward is east.
    ((label, points),) = city.lines(pose(4, 5, -np.pi / 2))
    assert label == DIVIDER
    np.testing.assert_allclose(points, [[0, 6], [-4, 6]], atol=1e-12)


def test_height_does_not_matter_but_a_bad_pose_does(tmp_path):
    city = winding_city().load(tmp_path)
    high = pose(3, 4, 1)
    high[2, 3] = 300
    assert not unmatched(city.lines(high), city.lines(pose(3, 4, 1)), 0)
    high[0, 3] = np.nan
    with pytest.raises(ValueError, match="pose"):
        city.lines(high)


def test_boundaries_have_the_road_on_their_right(tmp_path):
    y = np.linspace(-100, 100, 81)
    road = LineString(np.stack([10 * np.sin(y / 15), y], 1)).buffer(4).union(shapely.box(-40, -20, 40, 20)) - shapely.box(-25, -8, -20, 8)
    boundaries = [points for label, points in winding_city().load(tmp_path).lines(pose(0, 0, 0)) if label == BOUNDARY]
    assert any(is_ring(points) for points in boundaries)
    for points in boundaries:
        along = np.diff(points, axis=0)
        right = np.stack([along[:, 1], -along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
        beside = (points[1:] + points[:-1]) / 2 + 3 * right
        assert shapely.contains_xy(road.buffer(1.5), *beside.T).all()


def test_areas_side_by_side_have_no_boundary_between_them(tmp_path):
    city = City().area("road_segment", rectangle(-8, -50, 0, 50)).area("lane", rectangle(0, -50, 4, 50))
    boundaries = [points for _, points in city.load(tmp_path).lines(pose(0, 0, 0))]
    assert sorted(points[0, 0] for points in boundaries) == [-8, 4]


@pytest.mark.parametrize("layer", ["lane", "road_segment", "ped_crossing"])
def test_a_polygon_that_crosses_itself_is_left_out_and_counted(layer, tmp_path):
    city = City().area(layer, [(0, 0), (5, 5), (5, 0), (0, 5)]).area(layer, rectangle(10, 0, 15, 5)).load(tmp_path)
    assert city.invalid_polygons == 1
    assert len(city.lines(pose(0, 0, 0))) == 1


def test_a_line_of_one_node_is_nothing(tmp_path):
    assert City().line("lane_divider", [(1, 1)]).line("lane_divider", []).load(tmp_path).lines(pose(0, 0, 0)) == []


def test_map_without_crossings_says_nothing(tmp_path):
    city = City().line("lane_divider", [(0, -5), (0, 5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [label for label, _ in clip_to_roi(city.load(tmp_path).lines(pose(0, 0, 0)))] == [DIVIDER]
        assert City().load(tmp_path).lines(pose(0, 0, 0)) == []


def test_missing_city_says_which_file_and_what_to_unpack(tmp_path):
    with pytest.raises(ValueError, match=r"expansion.atlantis\.json.*nuScenes-map-expansion"):
        load_city_map(tmp_path, "atlantis")


def broken_cities() -> dict[str, tuple[City, str]]:
    """Name -> a broken city and what its error must say."""
    cases = {}
    for layer, key, parent in (("road_divider", "line_token", "line"), ("lane", "polygon_token", "polygon")):
        city = winding_city()
        city.layers[layer][0][key] = "gone"
        cases[parent] = (city, rf"'{layer}', row '{city.layers[layer][0]['token']}': 'gone' is in no row of layer '{parent}'")
    city = winding_city()
    city.layers["line"][1]["node_tokens"][0] = "gone"
    cases["node of a line"] = (city, "layer 'line', row 'l1': 'gone' is in no row of layer 'node'")
    city = winding_city()
    city.layers["polygon"][2]["holes"][0]["node_tokens"][1] = "gone"
    cases["node of a hole"] = (city, "layer 'polygon', row 'p2': 'gone' is in no row of layer 'node'")
    city = winding_city()
    city.layers["node"][4]["y"] = float("nan")
    cases["nan"] = (city, "layer 'node'.*'n4'.*finite")
    city = winding_city()
    del city.layers["node"][4]["x"]
    cases["field"] = (city, "layer 'node'.*'n4'.*KeyError")
    city = winding_city()
    del city.layers["ped_crossing"]
    cases["layer"] = (city, "expected a list 'ped_crossing'")
    return cases


@pytest.mark.parametrize("name", broken_cities())
def test_broken_city_names_the_place(name, tmp_path):
    city, message = broken_cities()[name]
    with pytest.raises(ValueError, match=message) as error:
        city.load(tmp_path)
    assert re.search(r"town\.json", str(error.value))


def test_cut_short_and_foreign_files(tmp_path):
    winding_city().load(tmp_path)
    path = tmp_path / "maps" / "expansion" / "town.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match=r"town\.json.*malformed"):
        load_city_map(tmp_path, "town")
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"town\.json.*JSON object of layers"):
        load_city_map(tmp_path, "town")
