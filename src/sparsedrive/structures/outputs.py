"""Decoded results in metric units, ego frame of their frame. Fixed shapes; rows are sorted by score, best first."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.structures._structure import structure

DETECTION_CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
)  # fmt: skip
MAP_CLASSES = ("ped_crossing", "divider", "boundary")


@structure
class Detections:
    """Boxes x y z l w h yaw_rad vx vy vz. `score` = class score * centerness; `class_score` the class score alone.

    `track_id` is -1 throughout for a model without tracking. `valid` is False where a score threshold dropped the row.
    `query_index` is the row of the decoder that made the box.
    """

    box: Float[Tensor, "B N 10"]
    score: Float[Tensor, "B N"]
    class_score: Float[Tensor, "B N"]
    label: Int[Tensor, "B N"]
    track_id: Int[Tensor, "B N"]
    query_index: Int[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]


@structure
class MapElements:
    """Polylines in ego metres (x, y)."""

    points_m: Float[Tensor, "B N P 2"]
    score: Float[Tensor, "B N"]
    label: Int[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]


@structure
class Forecasts:
    """Futures of the detections (same rows): positions in ego metres, 0.5 s apart; past boxes of the same instance, oldest first."""

    trajectory_m: Float[Tensor, "B N M T 2"]
    mode_score: Float[Tensor, "B N M"]
    history_box: Float[Tensor, "B N H 10"]
    period: Int[Tensor, "B N"]


@structure
class Plan:
    """Ego futures in ego metres, 0.5 s apart: every mode of every command, and the one selected for the given command.

    `mode_score` is after the collision-aware rescore; `mode_collides` says which modes of the given command hit a forecast.
    """

    trajectory_m: Float[Tensor, "B T 2"]
    all_trajectories_m: Float[Tensor, "B 3 M T 2"]
    mode_score: Float[Tensor, "B 3 M"]
    mode_collides: Bool[Tensor, "B M"]
    command: Int[Tensor, "B"]
    history_box: Float[Tensor, "B H 10"]
    period: Int[Tensor, "B"]
    ego_status: Float[Tensor, "B 10"]


@structure
class Scene:
    """What the model says about one instant. Absent stages are `None`."""

    detections: Detections
    map: MapElements | None
    forecasts: Forecasts | None
    plan: Plan | None

    def stream(self, index: int) -> "Scene":
        """Result of one stream, as a batch of one."""
        return pytree.tree_map(lambda leaf: leaf[index : index + 1], self)

    def to(self, device: torch.device | str) -> "Scene":
        """The same result on another device."""
        return pytree.tree_map(lambda leaf: leaf.to(device), self)
