"""The plan of a town: a bent grid with gaps, as streets between junctions. Every junction has three or four arms, no street ends."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparsedrive.world.curves import Points, Vector, join, left_of, unit

Node = tuple[int, int]
Graph = dict[Node, set[Node]]

CENTRE_M = (800.0, 1600.0)
"""Middle of the town: far from zero, as the coordinates of a surveyed map are."""
JITTER_M = (3.0, 11.0)
BOW_M = (4.0, 9.0)
LONGEST_BEND_LEG_M, BEND_LEG_PART = 75.0, 0.58
PATH_STEP_M = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TownSize:
    """How large a town is: crossings of a grid in x and y, and the distance between them."""

    columns: int = 5
    rows: int = 5
    block_m: float = 115.0

    def __post_init__(self):
        if self.columns < 3 or self.rows < 3:
            raise ValueError(f"TownSize: expected at least 3 columns and 3 rows, got {self.columns} and {self.rows}")
        if self.block_m < 100:
            raise ValueError(f"TownSize.block_m: expected at least 100 m, for shorter streets do not fit, got {self.block_m}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Street:
    """A street from the middle of one junction to the middle of another; `path_m` is its centre line, points 0.25 m apart."""

    ends: tuple[int, int]
    path_m: Points
    lanes: int
    lane_width_m: float


def plan_streets(rng: np.random.Generator, size: TownSize) -> list[Street]:
    """Streets between junctions numbered from 0. `lanes` counts one direction."""
    graph = with_gaps(rng, size)
    places_m = place_nodes(rng, size)
    numbers = {node: number for number, node in enumerate(node for node in graph if len(graph[node]) > 2)}
    wide_rows, wide_columns = wide_lines(rng, size.rows), wide_lines(rng, size.columns)
    streets = []
    for route in routes(graph):
        wide = any(a[1] in wide_rows if a[1] == b[1] else a[0] in wide_columns for a, b in pairwise(route))
        streets.append(
            Street(
                ends=(numbers[route[0]], numbers[route[-1]]),
                path_m=street_path(rng, graph, places_m, route),
                lanes=2 if wide else 1,
                lane_width_m=float(rng.choice([3.3, 3.5, 3.7])),
            )
        )
    return streets


def wide_lines(rng: np.random.Generator, lines: int) -> set[int]:
    """Which rows (or columns) are main streets: one inside, and now and then one at the edge."""
    wide = {int(rng.integers(1, lines - 1))}
    return wide | {int(rng.choice([0, lines - 1]))} if rng.random() < 0.4 else wide


def with_gaps(rng: np.random.Generator, size: TownSize) -> Graph:
    """The grid without some corners and some inner edges, still in one piece and without dead ends."""
    nodes = [(x, y) for x in range(size.columns) for y in range(size.rows)]
    graph: Graph = {(x, y): {(x + dx, y + dy) for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1))} & set(nodes) for x, y in nodes}
    corners = [(x, y) for x in (0, size.columns - 1) for y in (0, size.rows - 1)]
    for corner in corners:
        if rng.random() < 0.35:
            graph = without(graph, [(corner, other) for other in sorted(graph[corner])])
    edges = sorted((a, b) for a in graph for b in graph[a] if a < b and not on_rim(a, b, size))
    removals = int(rng.integers(1, len(edges) // 6 + 2))
    for a, b in (edges[i] for i in rng.permutation(len(edges))):
        if removals > 0:
            fewer = without(graph, [(a, b)])
            removals -= fewer is not graph
            graph = fewer
    return graph


def on_rim(a: Node, b: Node, size: TownSize) -> bool:
    return (a[0] == b[0] and a[0] in (0, size.columns - 1)) or (a[1] == b[1] and a[1] in (0, size.rows - 1))


def without(graph: Graph, edges: list[tuple[Node, Node]]) -> Graph:
    """The graph without the edges if that is still a town, else the graph itself."""
    fewer = {node: set(others) for node, others in graph.items()}
    for a, b in edges:
        fewer[a].discard(b)
        fewer[b].discard(a)
    fewer = {node: others for node, others in fewer.items() if others}
    return fewer if is_town(fewer) else graph


def is_town(graph: Graph) -> bool:
    """In one piece, no dead ends, at least two junctions, and room for every bend: no two bends in a row."""
    if any(len(others) < 2 for others in graph.values()) or sum(len(others) > 2 for others in graph.values()) < 2:
        return False
    if any(is_bend(graph, node) and is_bend(graph, other) for node in graph for other in graph[node]):
        return False
    seen: set[Node] = set()
    front = {next(iter(graph))}
    while front:
        seen |= front
        front = {other for node in front for other in graph[node]} - seen
    return len(seen) == len(graph)


def is_bend(graph: Graph, node: Node) -> bool:
    return len(graph[node]) == 2 and not any(opposite(node, other) in graph[node] for other in graph[node])


def opposite(node: Node, other: Node) -> Node:
    """The neighbour on the other side."""
    return 2 * node[0] - other[0], 2 * node[1] - other[1]


def routes(graph: Graph) -> list[list[Node]]:
    """Chains of nodes from junction to junction, each once."""
    found = []
    for start in graph:
        for second in sorted(graph[start]) if len(graph[start]) > 2 else ():
            route = [start, second]
            while len(graph[route[-1]]) == 2:
                route.append(next(other for other in graph[route[-1]] if other != route[-2]))
            if route <= route[::-1]:
                found.append(route)
    return found


def place_nodes(rng: np.random.Generator, size: TownSize) -> dict[Node, Vector]:
    """Nodes of the grid, shaken and turned."""
    jitter_m, turn_rad = rng.uniform(*JITTER_M), rng.uniform(-0.35, 0.35)
    rotation = np.array([[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]])
    middle = np.array([size.columns - 1, size.rows - 1]) / 2
    nodes = [(x, y) for x in range(size.columns) for y in range(size.rows)]
    shaken_m = {node: (np.array(node) - middle) * size.block_m + rng.uniform(-jitter_m, jitter_m, 2) for node in nodes}
    return {node: rotation @ place_m + CENTRE_M for node, place_m in shaken_m.items()}


def leaving(graph: Graph, places_m: dict[Node, Vector], node: Node, towards: Node) -> Vector:
    """Direction of an arm at its node: in line with the arm opposite, or nearly square to the through street."""
    ahead = unit(places_m[towards] - places_m[node])
    if opposite(node, towards) in graph[node]:
        return unit(places_m[towards] - places_m[opposite(node, towards)])
    others = sorted(graph[node] - {towards})
    square = left_of(unit(places_m[others[0]] - places_m[others[1]]))
    return unit(ahead + 3 * square * np.sign(square @ ahead))


def street_path(rng: np.random.Generator, graph: Graph, places_m: dict[Node, Vector], route: list[Node]) -> Points:
    """The centre line along a route: through the nodes between, round at bends, some stretches bowed to a side."""
    knots = [(places_m[route[0]], leaving(graph, places_m, route[0], route[1]))]
    for i in range(1, len(route)):
        before_m, here_m = places_m[route[i - 1]], places_m[route[i]]
        if not is_bend(graph, route[i - 1]) and not is_bend(graph, route[i]) and rng.random() < 0.4:
            ahead = unit(here_m - before_m)
            bow_m = rng.uniform(*BOW_M) * rng.choice([-1, 1])
            knots.append(((before_m + here_m) / 2 + bow_m * left_of(ahead), ahead))
        if i == len(route) - 1:
            knots.append((here_m, -leaving(graph, places_m, route[i], route[i - 1])))
        elif is_bend(graph, route[i]):
            knots += bend_knots(rng, before_m, here_m, places_m[route[i + 1]])
        else:
            knots.append((here_m, unit(places_m[route[i + 1]] - before_m)))
    pieces = [join(*a, *b, PATH_STEP_M) for a, b in pairwise(knots)]
    return np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])


def bend_knots(rng: np.random.Generator, before_m: Vector, here_m: Vector, after_m: Vector) -> list[tuple[Vector, Vector]]:
    """Where the curve around a corner begins and ends."""
    legs_m = [float(np.linalg.norm(here_m - before_m)), float(np.linalg.norm(after_m - here_m))]
    longest_m = min(LONGEST_BEND_LEG_M, BEND_LEG_PART * min(legs_m))
    leg_m = rng.uniform(min(52.0, longest_m), longest_m)
    into, out_of = unit(here_m - before_m), unit(after_m - here_m)
    return [(here_m - leg_m * into, into), (here_m + leg_m * out_of, out_of)]
