"""A small hand-made town for tests: 3 x 3 junctions, four lanes along the streets, two lanes along the avenues, crossings, pavements."""

import numpy as np

from sparsedrive.world.town import Building, Crossing, Lane, Parking, Town, Tree, Turn

BLOCK_M, HALF_BOX_M, LANE_M, PAVEMENT_M, SHOULDER_M = 100.0, 14.0, 3.5, 3.0, 2.2


def lanes_between(a: tuple[int, int], b: tuple[int, int]) -> list[np.ndarray]:
    """Centre lines from node a to node b, leftmost first: two on streets (east-west), one on avenues."""
    begin, end = BLOCK_M * np.array(a, float), BLOCK_M * np.array(b, float)
    forward = (end - begin) / np.linalg.norm(end - begin)
    right = np.array([forward[1], -forward[0]])
    at_m = np.linspace(HALF_BOX_M, BLOCK_M - HALF_BOX_M, round(BLOCK_M - 2 * HALF_BOX_M) + 1)
    return [begin + at_m[:, None] * forward + right * LANE_M * (k + 0.5) for k in range(2 if forward[0] else 1)]


def connection(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A smooth curve from the end of one lane to the begin of another."""
    p0, p3 = begin[-1], end[0]
    d0, d3 = begin[-1] - begin[-2], end[1] - end[0]
    reach = np.linalg.norm(p3 - p0) * (0.39 if abs(d0 @ d3) < 0.5 else 0.33)
    p1, p2 = p0 + d0 / np.linalg.norm(d0) * reach, p3 - d3 / np.linalg.norm(d3) * reach
    t = np.linspace(0, 1, max(8, round(np.linalg.norm(p3 - p0))))[:, None]
    return (1 - t) ** 3 * p0 + 3 * t * (1 - t) ** 2 * p1 + 3 * t**2 * (1 - t) * p2 + t**3 * p3


def grid_town(size: int = 3) -> Town:
    """The town. Streets have priority over avenues, straight and right turns over oncoming left turns."""
    nodes = [(x, y) for x in range(size) for y in range(size)]
    edges = [(a, b) for a in nodes for b in nodes if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1]
    drafts: list[dict] = []
    roads = {}
    for a, b in edges:
        roads[a, b] = list(range(len(drafts), len(drafts) + len(lanes_between(a, b))))
        for k, centre in enumerate(lanes_between(a, b)):
            first = len(drafts) - k
            left, right = (first if k else None), (first + 1 if k == 0 and len(roads[a, b]) > 1 else None)
            drafts.append(
                {
                    "centre_m": centre,
                    "left": left,
                    "right": right,
                    "successors": [],
                    "speed_limit_mps": 13.0 if len(roads[a, b]) > 1 else 10.0,
                }
            )
    for number, node in enumerate(nodes):
        arms = [a for a, b in edges if b == node]
        for a in arms:
            for b in arms:
                if a != b:
                    _connect(drafts, roads[a, node], roads[node, b], number, corner=len(arms) == 2)
    _fill_yields(drafts)
    crossings = [_crossing(a, b, roads) for a, b in edges if a < b]
    pavements = [_strip(a, b, side, roads) for a, b in edges if a < b for side in (-1, 1)]
    ground = [_road(a, b, roads) for a, b in edges if a < b]
    ground += [BLOCK_M * np.array(n, float) + HALF_BOX_M * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) for n in nodes]
    lanes = tuple(Lane(lane_id=k, width_m=LANE_M, **(d | {"successors": tuple(d["successors"])})) for k, d in enumerate(drafts))
    far = BLOCK_M * (size - 1) + 40
    return Town(
        name="grid", extent_m=(-40.0, -40.0, far, far), lanes=lanes, roads=tuple(ground), boundaries=(), pavements=tuple(pavements),
        crossings=tuple(crossings), dividers=(), parkings=tuple(_parkings(edges)),
        buildings=(Building(outline_m=np.array([[40.0, 40], [60, 40], [60, 60], [40, 60]]), height_m=10.0, colour_rgb=(150, 120, 100)),),
        trees=(Tree(position_m=np.array([30.0, 30.0]), height_m=6.0, crown_radius_m=2.0),),
    )  # fmt: skip


def _connect(drafts: list[dict], incoming: list[int], outgoing: list[int], junction: int, *, corner: bool) -> None:
    d0 = np.diff(drafts[incoming[0]]["centre_m"][:2], axis=0)[0]
    d1 = np.diff(drafts[outgoing[0]]["centre_m"][:2], axis=0)[0]
    cross = d0[0] * d1[1] - d0[1] * d1[0]
    turn: Turn = "straight" if d0 @ d1 > 0.5 else "left" if cross > 0 else "right"
    if turn == "straight":
        pairs = list(zip(incoming, outgoing, strict=False))
    elif corner:
        pairs = [(a, outgoing[min(k, len(outgoing) - 1)]) for k, a in enumerate(incoming)]
    else:
        pick = 0 if turn == "left" else -1
        pairs = [(incoming[pick], outgoing[pick])]
    for a, b in pairs:
        drafts[a]["successors"].append(len(drafts))
        drafts.append(
            {"centre_m": connection(drafts[a]["centre_m"], drafts[b]["centre_m"]), "successors": [b], "junction": junction,
             "turn": turn, "speed_limit_mps": drafts[a]["speed_limit_mps"]}
        )  # fmt: skip


def _fill_yields(drafts: list[dict]) -> None:
    for k, d in enumerate(drafts):
        if "junction" not in d:
            continue
        begin = d["centre_m"][1] - d["centre_m"][0]
        rivals = []
        for other, e in enumerate(drafts):
            if e.get("junction") != d["junction"] or other == k:
                continue
            begin_e = e["centre_m"][1] - e["centre_m"][0]
            oncoming = begin @ begin_e < -0.5 * np.linalg.norm(begin) * np.linalg.norm(begin_e)
            minor = abs(begin[1]) > abs(begin[0]) and abs(begin_e[0]) > abs(begin_e[1])
            if minor or (oncoming and d["turn"] == "left" and e["turn"] != "left"):
                rivals.append(other)
        d["yields_to"] = tuple(rivals)


def _frame(a: tuple[int, int], b: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    begin, end = BLOCK_M * np.array(a, float), BLOCK_M * np.array(b, float)
    forward = (end - begin) / BLOCK_M
    return begin, forward, np.array([forward[1], -forward[0]]), (2 if forward[0] else 1) * LANE_M


def _rectangle(begin, forward, right, along_m, across_m) -> np.ndarray:
    return np.array([begin + forward * along_m[i] + right * across_m[j] for i, j in ((0, 1), (1, 1), (1, 0), (0, 0))])


def _crossing(a, b, roads) -> Crossing:
    begin, forward, right, half = _frame(a, b)
    outline = _rectangle(begin, forward, right, (16.0, 20.0), (-half - SHOULDER_M, half + SHOULDER_M))
    side = (half + SHOULDER_M + PAVEMENT_M / 2) * right
    walk = np.array([begin + 18.0 * forward - side, begin + 18.0 * forward + side])
    return Crossing(outline_m=outline, walk_m=walk, lane_ids=tuple(roads[a, b] + roads[b, a]))


def _strip(a, b, side, roads) -> np.ndarray:
    begin, forward, right, half = _frame(a, b)
    inner = half + SHOULDER_M
    return _rectangle(begin, forward, right * side, (HALF_BOX_M, BLOCK_M - HALF_BOX_M), (inner, inner + PAVEMENT_M))[::side]


def _road(a, b, roads) -> np.ndarray:
    begin, forward, right, half = _frame(a, b)
    return _rectangle(begin, forward, right, (HALF_BOX_M, BLOCK_M - HALF_BOX_M), (-half - SHOULDER_M, half + SHOULDER_M))


def _parkings(edges) -> list[Parking]:
    places = []
    for a, b in edges:
        begin, forward, right, half = _frame(a, b)
        for at_m in np.arange(32.0, 70.0, 6.5):
            place = begin + forward * at_m + right * (half + SHOULDER_M / 2)
            places.append(Parking(position_m=place, yaw_rad=float(np.arctan2(forward[1], forward[0]))))
    return places
