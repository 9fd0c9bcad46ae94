"""The golden arrays of the ops, computed by ours from the stored inputs: groups `daf_*` and `focal` of unit.npz."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsedrive.ops import deformable_aggregation, sigmoid_focal_loss

SAMPLING_GROUPS = ("daf_small", "daf_mid", "daf_inrange")
MMDET_EPSILON = float(torch.finfo(torch.float32).eps)  # mmdetection adds it to the average factor


def build(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output array of the groups that are there, under its golden key."""
    built = {}
    for group in (name for name in SAMPLING_GROUPS if f"{name}/value" in golden):
        built |= sampling(golden, group)
    return built | focal(golden)


def sampling(golden: Mapping[str, np.ndarray], group: str, backend: str | None = None) -> dict[str, np.ndarray]:
    """Output and gradients of one `daf_*` group, and the published fallback's output, which has no visibility mask."""
    names = ("value", "sampling_location", "weights", "grad_output")
    value, points, weights, grad_output = (torch.from_numpy(golden[f"{group}/{name}"]) for name in names)
    shapes = golden[f"{group}/spatial_shape"]
    assert (shapes == shapes[0]).all(), "our layout has the same levels in every camera"
    level_hw = tuple(int(size) for size in shapes[0].flatten())
    packed = value.unflatten(1, (len(shapes), -1))
    leaves = [tensor.requires_grad_() for tensor in (packed, points, weights)]
    output = deformable_aggregation(packed, level_hw, points, weights, backend=backend)
    grad_packed, grad_points, grad_weights = torch.autograd.grad(output, leaves, grad_output)
    results = {
        "output": output,
        "output_unmasked_fallback": _unmasked(packed, level_hw, points, weights),
        "grad_value": grad_packed.flatten(1, 2),
        "grad_sampling_location": grad_points,
        "grad_weights": grad_weights,
    }
    return {f"{group}/{name}": result.detach().numpy() for name, result in results.items()}


def _unmasked(packed: Tensor, level_hw: tuple[int, ...], points: Tensor, weights: Tensor) -> Tensor:
    """Plain `grid_sample` of every point: those less than a pixel outside the picture still count."""
    batch, cameras, _, channels = packed.shape
    anchors, per_anchor, groups = points.shape[1], points.shape[2], weights.shape[5]
    grid = (points * 2 - 1).permute(0, 3, 1, 2, 4).flatten(0, 1)
    output, start = torch.zeros(batch, anchors, groups, channels // groups), 0
    for level, (height, width) in enumerate(zip(level_hw[::2], level_hw[1::2], strict=True)):
        images = packed[:, :, start : start + height * width].transpose(2, 3).reshape(-1, channels, height, width)
        start += height * width
        sampled = F.grid_sample(images, grid, align_corners=False).view(batch, cameras, groups, -1, anchors, per_anchor)
        output = output + torch.einsum("bcgdap,bapcg->bagd", sampled, weights[..., level, :])
    return output.flatten(2)


def focal(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Losses, gradients and the three reductions of mmdetection's `FocalLoss(loss_weight=2)`."""
    logits = torch.from_numpy(golden["focal/logits"]).requires_grad_()
    target, weight = (torch.from_numpy(golden[f"focal/{name}"]) for name in ("target", "weight"))
    exact = sigmoid_focal_loss(logits, target)
    clamped = sigmoid_focal_loss(logits, target, clamp_log=True)
    results = {
        "loss": exact,
        "grad_of_sum": torch.autograd.grad(exact.sum(), logits)[0],
        "cuda_kernel_loss": clamped,
        "cuda_kernel_grad_of_sum": torch.autograd.grad(clamped.sum(), logits)[0],
        "FocalLoss_lw2_avg7": 2 * exact.sum() / (7 + MMDET_EPSILON),
        "FocalLoss_lw2_weight_mean": 2 * (exact * weight[:, None]).mean(),
        "FocalLoss_lw2_weight_avg7": 2 * (exact * weight[:, None]).sum() / (7 + MMDET_EPSILON),
    }
    return {f"focal/{name}": result.detach().numpy() for name, result in results.items()}
