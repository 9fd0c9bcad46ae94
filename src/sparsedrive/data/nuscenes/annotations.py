"""Annotated boxes in the ego frame of their key frame, for drawing, checks and targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.data.nuscenes.poses import check_pose, pose_matrix
from sparsedrive.data.nuscenes.rows import AnnotationRow, SampleRow
from sparsedrive.data.nuscenes.tables import ObjectTables
from sparsedrive.structures import DETECTION_CLASSES

CLASS_OF_CATEGORY = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.construction": "construction_vehicle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "movable_object.barrier": "barrier",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
}
"""Categories of the nuScenes detection task (nuscenes.org, detection task); boxes of other categories are left out."""

MAX_TRACK_GAP_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotations:
    """N boxes x y z l w h yaw_rad vx vy vz, ego frame, float64; `label` indexes `DETECTION_CLASSES`.

    Velocities are NaN where the track is too short; vertical motion in the global frame counts as 0, as in the published targets.
    `lidar_returns` and `radar_returns` count the points in each box; the published targets take boxes without any as not there.
    """

    box: Float[Tensor, "N 10"]
    label: Int[Tensor, "N"]
    lidar_returns: Int[Tensor, "N"]
    radar_returns: Int[Tensor, "N"]
    instance_tokens: tuple[str, ...]


def detection_rows(rows: Sequence[AnnotationRow], objects: ObjectTables) -> list[AnnotationRow]:
    """The rows whose category is one of the detection task, in their order."""
    return [row for row in rows if _class_of(row, objects) is not None]


def boxes_in_ego(
    rows: Sequence[AnnotationRow], objects: ObjectTables, samples: Mapping[str, SampleRow], ego_T_global: Float[Tensor, "4 4"]
) -> Annotations:
    """Annotation rows of one key frame as boxes in the ego frame (float64). `ValueError` names a row whose box is none."""
    kept = detection_rows(rows, objects)
    for row in kept:
        _check_box(row)
    labels = [DETECTION_CLASSES.index(_class_of(row, objects) or "") for row in kept]
    places = torch.tensor([row.translation_m for row in kept], dtype=torch.float64).reshape(-1, 3)
    turns = torch.tensor([row.rotation_wxyz for row in kept], dtype=torch.float64).reshape(-1, 4)
    ego_T_box = ego_T_global @ pose_matrix(places, turns)
    size_m = torch.tensor([row.size_wlh_m for row in kept], dtype=torch.float64).reshape(-1, 3)[:, [1, 0, 2]]
    # Boxes stand upright in the global frame and the ego frame is a little tilted: rotation = tilt @ rotation_about_z(yaw).
    yaw_rad = torch.atan2(-ego_T_box[:, 0, 1], ego_T_box[:, 0, 0])
    velocities = [_global_velocity_mps(row, objects.annotations, samples) for row in kept]
    velocity = torch.tensor(velocities, dtype=torch.float64).reshape(-1, 3) @ ego_T_global[:3, :3].T
    return Annotations(
        box=torch.cat([ego_T_box[:, :3, 3], size_m, yaw_rad[:, None], velocity], -1),
        label=torch.tensor(labels, dtype=torch.long),
        lidar_returns=torch.tensor([row.num_lidar_pts for row in kept], dtype=torch.long),
        radar_returns=torch.tensor([row.num_radar_pts for row in kept], dtype=torch.long),
        instance_tokens=tuple(row.instance_token for row in kept),
    )


def heading_turns_rad(rows: Sequence[AnnotationRow], ego_T_global: Float[Tensor, "4 4"]) -> Float[Tensor, "N"]:
    """How far the heading of each box turns from the global to the ego frame, seen from above: minus the ego's yaw, but for the tilt."""
    turns = torch.tensor([row.rotation_wxyz for row in rows], dtype=torch.float64).reshape(-1, 4)
    ahead = pose_matrix(torch.zeros(len(rows), 3, dtype=torch.float64), turns)[:, :3, 0]
    in_ego = ahead @ ego_T_global[:3, :3].T
    return torch.atan2(in_ego[:, 1], in_ego[:, 0]) - torch.atan2(ahead[:, 1], ahead[:, 0])


def _class_of(row: AnnotationRow, objects: ObjectTables) -> str | None:
    return CLASS_OF_CATEGORY.get(objects.categories[objects.instances[row.instance_token].category_token].name)


def _check_box(row: AnnotationRow) -> None:
    place = f"sample {row.sample_token}: sample_annotation.json, row {row.token!r}"
    check_pose(row.translation_m, row.rotation_wxyz, place)
    if not all(isfinite(size) and size > 0 for size in row.size_wlh_m):
        raise ValueError(f"{place}: expected a positive size, got {list(row.size_wlh_m)}; correct the row or leave the scene out")


def _global_velocity_mps(
    row: AnnotationRow, annotations: Mapping[str, AnnotationRow], samples: Mapping[str, SampleRow]
) -> tuple[float, float, float]:
    """Horizontal velocity from the neighbours in the track, NaN without one or when they are too far apart in time.

    Central difference; at an end of the track one-sided. Source: nuScenes devkit, `box_velocity`.
    """
    before, after = annotations.get(row.prev, row), annotations.get(row.next, row)
    elapsed_s = 1e-6 * (samples[after.sample_token].timestamp_us - samples[before.sample_token].timestamp_us)
    gap_s = 2 * MAX_TRACK_GAP_S if row.prev and row.next else MAX_TRACK_GAP_S
    if before is after or not 0 < elapsed_s <= gap_s:
        return nan, nan, nan
    (x0, y0, _), (x1, y1, _) = before.translation_m, after.translation_m
    return (x1 - x0) / elapsed_s, (y1 - y0) / elapsed_s, 0.0
