"""Small predictions and targets."""

import torch

from sparsedrive.geometry import box_state
from sparsedrive.structures import BoxTargets, DecoderStep, FrameTargets, FutureTargets, MapTargets

ROI_M = (30.0, 60.0)


def box_targets(boxes: torch.Tensor, label: torch.Tensor) -> BoxTargets:
    """boxes [B, N, 10], label [B, N]; all valid."""
    return BoxTargets(
        box=boxes,
        label=label,
        instance=torch.arange(label.shape[1]).expand_as(label),
        lidar_returns=torch.ones_like(label),
        valid=torch.ones_like(label, dtype=torch.bool),
    )


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    """[1, count, 10], well apart."""
    draw = torch.Generator().manual_seed(seed)
    box = torch.rand(1, count, 10, generator=draw)
    box[..., 0] = torch.arange(count) * 7.0 - 20
    box[..., 3:6] += 1.0
    return box


def perfect_step(targets: BoxTargets, extra: int = 3, confidence: float = 8.0) -> DecoderStep:
    """Predictions that are the targets, in reverse order, after `extra` ones that are nothing."""
    batch, count = targets.label.shape
    logits = torch.full((batch, extra + count, 10), -confidence)
    state = torch.zeros(batch, extra + count, 11)
    state[..., 0], state[..., box_state.COS_YAW] = 500.0, 1.0
    state[:, extra:] = box_state.encode(targets.box.nan_to_num()).flip(1)
    logits[:, extra:].scatter_(2, targets.label.flip(1)[..., None], confidence)
    return DecoderStep(class_logits=logits, state=state, quality=torch.full((batch, extra + count, 2), confidence))


def line_targets(lines_m: torch.Tensor, label: torch.Tensor) -> MapTargets:
    """Open lines [B, L, P, 2] in both directions."""
    orders = torch.stack([lines_m, lines_m.flip(2)], 2)
    return MapTargets(
        points_m=orders,
        order_valid=torch.ones(orders.shape[:3], dtype=torch.bool),
        label=label,
        valid=torch.ones_like(label, dtype=torch.bool),
    )


def frame_targets(boxes: BoxTargets, lines: MapTargets, ego_valid: bool = True) -> FrameTargets:
    """Everything moves 1 m forward a step."""
    batch, count = boxes.label.shape
    ahead_m = torch.arange(1, 13.0)[:, None] * torch.tensor([0.0, 1.0])
    futures = FutureTargets(
        agent_m=boxes.box[:, :, None, :2] + ahead_m,
        agent_valid=torch.ones(batch, count, 12, dtype=torch.bool),
        ego_m=ahead_m[:6].expand(batch, 6, 2).contiguous(),
        ego_valid=torch.full((batch, 6), ego_valid),
    )
    return FrameTargets(boxes=boxes, map=lines, futures=futures, depth_m=(), ego_status_known=torch.ones(batch, 10, dtype=torch.bool))
