"""Decoded detections of a model as records for evaluation and for the official files: from the ego frame into the global frame.

The model says nothing of attributes; they follow from class and speed by the rule of the published Sparse4D and SparseDrive evaluation:
above 0.2 m/s vehicles are moving and cycles have a rider, below a pedestrian stands and a bus has stopped; otherwise the usual attribute of
the class: vehicle parked (bus: moving), pedestrian moving, cycle without rider, none for cones and barriers.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.geometry.box_state import YAW
from sparsedrive.metrics.records import ATTRIBUTES, BoxRecords
from sparsedrive.structures import DETECTION_CLASSES, Detections

MOVING_MPS = 0.2
VELOCITY = [YAW + 1, YAW + 2]
_USUAL = {
    "car": "vehicle.parked",
    "truck": "vehicle.parked",
    "construction_vehicle": "vehicle.parked",
    "trailer": "vehicle.parked",
    "bus": "vehicle.moving",
    "pedestrian": "pedestrian.moving",
    "motorcycle": "cycle.without_rider",
    "bicycle": "cycle.without_rider",
}
_FAST = _USUAL | dict.fromkeys(("car", "truck", "construction_vehicle", "trailer", "bus"), "vehicle.moving")
_FAST |= dict.fromkeys(("motorcycle", "bicycle"), "cycle.with_rider")
_SLOW = _USUAL | {"pedestrian": "pedestrian.standing", "bus": "vehicle.stopped"}


def records_of(detections: Detections, global_T_ego: Float[Tensor, "B 4 4"], frame: Int[np.ndarray, "B"]) -> BoxRecords:
    """The valid boxes of B frames in the global frame; `frame` are their indices into the key frames.

    Scores are the fused ones. Boxes without a track (`track_id` -1) get the empty name. Vertical motion in the ego frame counts as 0, as in
    the published evaluation. `ValueError` when the batch sizes differ.
    """
    if not len(detections.box) == len(global_T_ego) == len(frame):
        raise ValueError(
            f"records_of: {len(detections.box)} frames of detections, {len(global_T_ego)} poses and {len(frame)} indices; one each"
        )
    batch, row = (index.cpu().numpy() for index in torch.nonzero(detections.valid, as_tuple=True))
    box = detections.box.detach().cpu().double().numpy()[batch, row]
    pose = global_T_ego.detach().cpu().double().numpy()[batch]
    ahead = np.stack([np.cos(box[:, YAW]), np.sin(box[:, YAW]), np.zeros(len(box))], -1)
    motion = np.concatenate([box[:, VELOCITY], np.zeros((len(box), 1))], -1)
    heading, velocity = (np.einsum("nij,nj->ni", pose[:, :3, :3], vector) for vector in (ahead, motion))
    label, track = (column.cpu().numpy()[batch, row] for column in (detections.label, detections.track_id))
    fast = np.hypot(velocity[:, 0], velocity[:, 1]) > MOVING_MPS
    return BoxRecords(
        frame=np.asarray(frame)[batch],
        center_m=np.einsum("nij,nj->ni", pose[:, :3, :3], box[:, :3]) + pose[:, :3, 3],
        size_wlh_m=box[:, [4, 3, 5]],
        yaw_rad=np.arctan2(heading[:, 1], heading[:, 0]),
        velocity_mps=velocity[:, :2],
        label=label,
        score=detections.score.detach().cpu().double().numpy()[batch, row],
        attribute=np.where(fast, _indices(_FAST)[label], _indices(_SLOW)[label]),
        track_id=np.where(track < 0, "", track.astype(np.str_)),
        num_points=np.full(len(box), -1),
    )


def _indices(attribute_of_class: dict[str, str]) -> Int[np.ndarray, "10"]:
    return np.array([ATTRIBUTES.index(attribute_of_class[name]) if name in attribute_of_class else -1 for name in DETECTION_CLASSES])
