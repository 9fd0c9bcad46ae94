"""A small SparseDrive with weights that do something, and random drives for it."""

import math
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from sparsedrive import preset
from sparsedrive.geometry import se3
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.object_head import ObjectHeadConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.structures import CameraRig, Frame, ParityOptions

CAMERAS = ("FRONT", "LEFT", "BACK")
CAMERA_YAW_RAD = (0.0, 2.1, math.pi)  # about z, from the ego's forward axis
WIDTH, HEIGHT, FOCAL_PX = 96, 64, 50.0
EPOCH_S = 1_533_151_603.547590


def config(*, stage: int = 2, parity: ParityOptions | None = None) -> SparseDriveConfig:
    """Three cameras, 64 x 96 pixels, 24 boxes of which 16 survive, 12 map elements of which 6 survive."""
    base = preset("tiny")
    layer = replace(base.detection.layer, dim=32, num_heads=4, ffn_dim=48, num_groups=4)
    small = replace(base.detection, num_anchors=24, num_memory=16, num_layers=3, layer=layer, denoising=None)
    # Who carries an id, and what coasts, are choices that the last bits of another batch size could change.
    detection = replace(small, hands_over_ids=False, coasting=None)
    assert base.planner is not None
    planner = replace(base.planner, dim=32, num_heads=4, ffn_dim=48, num_layers=2, num_agents=10, num_elements=5)
    return replace(
        base,
        name=f"sample_stage{stage}",
        image_wh_px=(WIDTH, HEIGHT),
        camera_names=CAMERAS,
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=18), neck=FPNConfig(out_channels=32)),
        objects=ObjectHeadConfig(num_proposals=6),
        detection=detection,
        map=replace(
            base.map, kind=PolylineKind(), num_anchors=12, num_memory=6, num_layers=2, layer=replace(layer, decoupled_attention=False)
        ),
        planner=replace(planner, ego_velocity="predicted", plan_paths="whole", plan_modes=6) if stage == 2 else None,
        parity=parity or ParityOptions(),
    )


def build(cfg: SparseDriveConfig | None = None, seed: int = 0) -> SparseDrive:
    """In eval mode; every decoder parameter is moved off its initial value, so that no branch is silent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (cfg or config()).build()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("image_encoder.") or name.endswith(("anchors", "initial_feature")):
                    continue
                parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() > 1 else 0.1))
                if ".class_branch." in name and parameter.shape[0] in (3, 10):
                    parameter.copy_(
                        torch.randn_like(parameter) * 0.3 - (1.5 if parameter.dim() == 1 else 0.0)
                    )  # confidences all over (0, 1)
                if name.endswith("state_scale"):
                    parameter.mul_(0.3)  # boxes stay in sight
    return model.eval()


def rig(batch: int = 1, seed: int = 0) -> CameraRig:
    """Cameras near the ego origin, slightly different for every seed."""
    draw = torch.Generator().manual_seed(seed)
    image_T_ego = torch.zeros(batch, len(CAMERAS), 4, 4)
    for b in range(batch):
        for index, yaw_rad in enumerate(CAMERA_YAW_RAD):
            right = torch.tensor([math.cos(yaw_rad), math.sin(yaw_rad), 0.0])
            forward = torch.tensor([-math.sin(yaw_rad), math.cos(yaw_rad), 0.0])
            down = torch.tensor([0.0, 0.0, -1.0])
            camera_T_ego = torch.eye(4)
            camera_T_ego[:3, :3] = torch.stack([right, down, forward])
            camera_T_ego[:3, 3] = torch.randn(3, generator=draw) * 0.3
            image_T_camera = torch.tensor([[FOCAL_PX, 0, WIDTH / 2, 0], [0, FOCAL_PX, HEIGHT / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
            image_T_ego[b, index] = image_T_camera @ camera_T_ego
    return CameraRig(
        image_T_ego=image_T_ego,
        image_wh_px=torch.tensor([WIDTH, HEIGHT]).float().expand(batch, len(CAMERAS), 2).contiguous(),
        focal_px=torch.full((batch, len(CAMERAS)), FOCAL_PX),
        available=torch.ones(batch, len(CAMERAS), dtype=torch.bool),
        names=CAMERAS,
    )


def frame(index: int = 0, *, stream: int = 0, sequence: int | None = None, start_s: float = EPOCH_S, step_s: float = 0.5) -> Frame:
    """Frame `index` of the endless drive `stream`: its own pictures, speed and turn rate. Batch of one."""
    draw = torch.Generator().manual_seed(1000 * stream + index)
    speed_mps, turn_radps = 2.0 + 3.0 * stream, 0.1 * (stream - 1)
    time_s = torch.tensor([index * step_s], dtype=torch.float64)
    x_m, y_m = 700.0 + 50 * stream + 0.3 * time_s, 1500.0 + speed_mps * time_s
    return Frame(
        images=torch.randn(1, len(CAMERAS), 3, HEIGHT, WIDTH, generator=draw),
        rig=rig(seed=stream),
        global_T_ego=se3.from_yaw(x_m, y_m, 0.2 * stream + turn_radps * time_s),
        time_s=start_s + time_s,
        sequence_id=torch.tensor([stream if sequence is None else sequence]),
        ego_status=torch.randn(1, 10, generator=draw),
        command=torch.tensor([index % 3]),
    )


def run(model: SparseDrive, frames: list[Frame], state=None) -> tuple[list, object]:
    """Predictions of every frame, and the last state."""
    predictions = []
    with torch.no_grad():
        for now in frames:
            prediction, state = model(now, state)
            predictions.append(prediction)
    return predictions, state


def named_leaves(value, where: str = "") -> dict[str, Tensor]:
    """Every tensor inside a structure, by the path of its field."""
    if isinstance(value, Tensor):
        return {where: value}
    if is_dataclass(value):
        return {k: v for f in fields(value) for k, v in named_leaves(getattr(value, f.name), f"{where}.{f.name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in named_leaves(item, f"{where}[{i}]").items()}
    return {}


@dataclass(frozen=True)
class Tolerance:
    """Absolute and relative; zero means the same bits."""

    atol: float = 0.0
    rtol: float = 0.0


SAME_BITS = Tolerance()
ROUNDING = Tolerance(atol=2e-5, rtol=2e-5)
"""Float32 sums made in another order (other batch sizes, other masks)."""


def differences(a, b, tolerance: Tolerance = SAME_BITS) -> list[str]:
    """Paths of the tensors in which two structures differ, with how far; integers and booleans have to be equal."""
    left, right = named_leaves(a), named_leaves(b)
    assert left.keys() == right.keys()
    found = []
    for path, x in left.items():
        y = right[path]
        exact = tolerance == SAME_BITS or not x.is_floating_point()
        same = x.shape == y.shape and (torch.equal(x, y) if exact else torch.allclose(x, y, atol=tolerance.atol, rtol=tolerance.rtol))
        if not same:
            gap = (x.double() - y.double()).abs().max().item() if x.shape == y.shape else math.nan
            found.append(f"{path} {tuple(x.shape)} by {gap:.3g}")
    return found


def take_stream(value, index: int):
    """One stream of a batched structure, as a batch of one."""
    return torch.utils._pytree.tree_map(lambda leaf: leaf[index : index + 1], value)
