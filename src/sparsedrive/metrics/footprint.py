"""The ground that the ego vehicle covers along a plan, and what it touches there.

Rectangles are rows x_m, y_m, length_m, width_m, yaw_rad in the ego frame of the frame the plan starts in (x right, y forward, so straight
ahead is a yaw of 90 degrees). To touch is to hit: edges belong to the rectangle.
"""

import cv2
import numpy as np
import shapely
from jaxtyping import Bool, Float, Int

from sparsedrive.geometry.rectangles import corners_m, touch
from sparsedrive.metrics.mapping import MapLines

STANDING_M = 0.5
"""A plan whose first and last waypoints are closer than this stands: its heading is straight ahead."""

GRID_M, GRID_CELLS = 0.5, 200


def heading_rad(path_m: Float[np.ndarray, "N T 2"]) -> Float[np.ndarray, "N T"]:
    """Heading at each waypoint: from the one before (the origin before the first) to the one after, of the last from the one before.

    Source: planning evaluation of swc-17/SparseDrive.
    """
    around_m = np.concatenate([np.zeros_like(path_m[:, :1]), path_m, path_m[:, -1:]], 1)
    along_m = around_m[:, 2:] - around_m[:, :-2]
    stands = np.linalg.norm(path_m[:, -1] - path_m[:, 0], axis=1) < STANDING_M
    return np.where(stands[:, None], np.pi / 2, np.arctan2(along_m[..., 1], along_m[..., 0]))


def ego_rectangles(
    path_m: Float[np.ndarray, "N T 2"], yaw_rad: Float[np.ndarray, "N T"], length_m: float, width_m: float, ahead_m: float
) -> Float[np.ndarray, "N T 5"]:
    """The vehicle at each waypoint; its centre is `ahead_m` ahead of the ego frame's origin."""
    centre_m = path_m + ahead_m * np.stack([np.cos(yaw_rad), np.sin(yaw_rad)], 2)
    size_m = np.broadcast_to([length_m, width_m], centre_m.shape)
    return np.concatenate([centre_m, size_m, yaw_rad[..., None]], 2)


def hits_objects(
    ego: Float[np.ndarray, "N T 5"], objects: Float[np.ndarray, "K 5"], frame: Int[np.ndarray, "K"], step: Int[np.ndarray, "K"]
) -> Bool[np.ndarray, "N T"]:
    """Whether the vehicle touches an object at each waypoint; object k is there at `step[k]` (from 0) of `frame[k]`."""
    hits = np.zeros(ego.shape[:2], bool)
    touched = touch(ego[frame, step], objects)
    hits[frame[touched], step[touched]] = True
    return hits


def hits_objects_on_grid(
    path_m: Float[np.ndarray, "N T 2"],
    length_m: float,
    width_m: float,
    ahead_m: float,
    objects: Float[np.ndarray, "K 5"],
    frame: Int[np.ndarray, "K"],
    step: Int[np.ndarray, "K"],
) -> Bool[np.ndarray, "N T"]:
    """The same as the first papers on planning did: everything painted on a grid of 0.5 m, 50 m to each side, the vehicle never turned.

    Objects grow by up to a cell; the vehicle is the cells whose centres it covers, moved by its waypoint rounded down, and waypoints
    off the grid are moved to its edge. Source: planning evaluation and occupancy labels of OpenDriveLab/UniAD.
    """
    half = GRID_CELLS / 2
    rows, columns = (
        np.arange(np.ceil((middle_m - size_m / 2) / GRID_M + half - 0.5), np.floor((middle_m + size_m / 2) / GRID_M + half - 0.5) + 1)
        for middle_m, size_m in ((ahead_m, length_m), (0.0, width_m))
    )
    hits = np.zeros(path_m.shape[:2], bool)
    reach_m = np.hypot(objects[:, 2], objects[:, 3]) / 2 + np.hypot(length_m, width_m) / 2 + abs(ahead_m) + 4 * GRID_M
    ego_m = np.clip(path_m, -half * GRID_M, half * GRID_M)[frame, step]
    near = np.flatnonzero(np.linalg.norm(objects[:, :2] - ego_m, axis=1) <= reach_m)
    outlines = np.round(corners_m(objects[near]) / GRID_M + half).astype(np.int32)
    instant = frame[near] * path_m.shape[1] + step[near]
    order = np.argsort(instant, kind="stable")
    instants, begin = np.unique(instant[order], return_index=True)
    for now, together in zip(instants, np.split(outlines[order], begin[1:]), strict=False):
        n, t = divmod(int(now), path_m.shape[1])
        grid = np.zeros((GRID_CELLS, GRID_CELLS), np.uint8)
        for outline in together:
            cv2.fillPoly(grid, [outline], 1)  # one by one: polygons filled together cancel where they overlap
        row, column = (
            np.clip((place_m / GRID_M + cells).astype(int), 0, GRID_CELLS - 1)
            for place_m, cells in ((path_m[n, t, 1], rows), (path_m[n, t, 0], columns))
        )
        hits[n, t] = grid[np.ix_(row, column)].any()
    return hits


def crosses_lines(ego: Float[np.ndarray, "N T 5"], path_m: Float[np.ndarray, "N T 2"], lines: MapLines) -> Bool[np.ndarray, "N T"]:
    """Whether the vehicle touches a line of its frame at each waypoint, or crosses one on the way there from the waypoint before.

    `lines.frame` is the row of `ego`.
    """
    order = np.argsort(lines.frame, kind="stable")
    shapes = np.full(len(ego), None)
    if len(lines):
        every = shapely.linestrings(lines.points_m, indices=np.repeat(np.arange(len(lines)), np.diff(lines.splits)))
        rows, number = np.unique(lines.frame[order], return_inverse=True)
        shapes[rows] = shapely.multilinestrings(np.asarray(every)[order], indices=number)
        shapely.prepare(shapes)
    before_m = np.concatenate([np.zeros_like(path_m[:, :1]), path_m[:, :-1]], 1)
    ways = shapely.linestrings(np.stack([before_m, path_m], 2))
    return np.asarray(shapely.intersects(shapes[:, None], shapely.polygons(corners_m(ego))) | shapely.intersects(shapes[:, None], ways))
