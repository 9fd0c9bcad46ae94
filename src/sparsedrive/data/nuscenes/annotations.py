"""Annotated boxes in the ego frame of their key frame, for drawing, checks and targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.data.nuscenes.poses import pose_matrix
from sparsedrive.data.nuscenes.tables import AnnotationRow, ObjectTables, SampleRow
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
    """

    box: Float[Tensor, "N 10"]
    label: Int[Tensor, "N"]
    instance_tokens: tuple[str, ...]


def boxes_in_ego(
    rows: Sequence[AnnotationRow], objects: ObjectTables, samples: Mapping[str, SampleRow], ego_T_global: Float[Tensor, "4 4"]
) -> Annotations:
    """Annotation rows of one key frame as boxes in the ego frame (float64)."""
    classes = [CLASS_OF_CATEGORY.get(objects.categories[objects.instances[row.instance_token].category_token].name) for row in rows]
    kept = [(row, DETECTION_CLASSES.index(name)) for row, name in zip(rows, classes, strict=True) if name is not None]
    if not kept:
        return Annotations(box=torch.empty(0, 10, dtype=torch.float64), label=torch.empty(0, dtype=torch.long), instance_tokens=())
    ego_T_box = ego_T_global @ pose_matrix([row.translation_m for row, _ in kept], [row.rotation_wxyz for row, _ in kept])
    size_m = torch.tensor([row.size_wlh_m for row, _ in kept], dtype=torch.float64)[:, [1, 0, 2]]
    # Boxes stand upright in the global frame and the ego frame is a little tilted: rotation = tilt @ rotation_about_z(yaw).
    yaw_rad = torch.atan2(-ego_T_box[:, 0, 1], ego_T_box[:, 0, 0])
    velocity = torch.tensor([_global_velocity_mps(row, objects.annotations, samples) for row, _ in kept], dtype=torch.float64)
    velocity = velocity @ ego_T_global[:3, :3].T
    return Annotations(
        box=torch.cat([ego_T_box[:, :3, 3], size_m, yaw_rad[:, None], velocity], -1),
        label=torch.tensor([label for _, label in kept]),
        instance_tokens=tuple(row.instance_token for row, _ in kept),
    )


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
