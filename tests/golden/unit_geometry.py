"""Key points, projections and embeddings on the published unit inputs, under the golden keys."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from sources import input_rules
from sparsedrive.geometry import box_state, camera, polyline
from sparsedrive.layers.embed import sine_embedding
from sparsedrive.layers.keypoints import BoxKeyPoints, PolylineKeyPoints
from sparsedrive.models.map_head import PolylineKind

Arrays = Mapping[str, np.ndarray]


def build(golden: Arrays) -> dict[str, np.ndarray]:
    """Every output array of the groups `kps`, `project_points` and `sine_embed` whose inputs are there."""
    ours = _key_points(golden)
    if "kps/T_temp2cur" in golden:
        ours |= _moved(golden)
    if "project_points/projection_mat" in golden:
        ours |= _projected(golden)
    ours["sine_embed/embed"] = sine_embedding(_tensor(golden, "sine_embed/pos"), 256)
    return {key: value.detach().numpy() for key, value in ours.items()}


def _tensor(golden: Arrays, key: str) -> Tensor:
    return torch.from_numpy(golden[key])


def _filled(linear: nn.Linear, name: str) -> None:
    for kind, parameter in linear.named_parameters():
        value = input_rules().weight_value(f"{name}.learnable_fc.{kind}", tuple(parameter.shape))
        parameter.data.copy_(torch.from_numpy(value))


def _key_points(golden: Arrays) -> dict[str, Tensor]:
    kind = PolylineKind()
    boxes = BoxKeyPoints(256)
    lines = PolylineKeyPoints(256, kind.num_points, kind.heights_m, kind.ground_height_m, kind.num_learned_points)
    _filled(boxes.learned_points, "unit.kps_det")
    _filled(lines.learned_offsets, "unit.kps_map")
    return {
        "kps/det_key_points": boxes(_tensor(golden, "kps/det_anchor"), _tensor(golden, "kps/det_feature")),
        "kps/map_key_points": lines(_tensor(golden, "kps/map_anchor"), _tensor(golden, "kps/map_feature")),
    }


def _moved(golden: Arrays) -> dict[str, Tensor]:
    now_T_then, elapsed_s = _tensor(golden, "kps/T_temp2cur"), _tensor(golden, "kps/time_interval")
    boxes = _tensor(golden, "kps/det_anchor")
    return {
        "kps/det_projected": box_state.transform(boxes, now_T_then, elapsed_s),
        "kps/det_projected_notime": box_state.transform(boxes, now_T_then),
        "kps/map_projected": polyline.transform(_tensor(golden, "kps/map_anchor"), now_T_then),
    }


def _projected(golden: Arrays) -> dict[str, Tensor]:
    points_m = _tensor(golden, "kps/det_key_points")
    matrices, size_px = _tensor(golden, "project_points/projection_mat"), _tensor(golden, "project_points/image_wh")
    return {"project_points/points_2d": camera.project(points_m, matrices, size_px).movedim(3, 1)}
