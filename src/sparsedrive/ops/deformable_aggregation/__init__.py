"""Deformable aggregation: what every instance reads from the images. See README.md in this folder."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparsedrive.ops import backends
from sparsedrive.ops.deformable_aggregation import op, reference

__all__ = ["deformable_aggregation"]

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def deformable_aggregation(
    packed: Float[Tensor, "B C S D"],
    level_hw: tuple[int, ...],
    points: Float[Tensor, "B A P C 2"],
    weights: Float[Tensor, "B A P C L G"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "B A D"]:
    """Sample every anchor's points in all cameras and levels and sum them with weights.

    A (point, camera) pair counts only if 0 < x < 1 and 0 < y < 1 (open interval, false for NaN). Any other adds nothing to the
    output and gets no gradient, nor do its weights, whatever inf or NaN they hold; the weights of the others are not renormalised.
    Sampling is bilinear with pixel centres at (i + 0.5) / size; of a tap outside the map nothing is added. Channel d takes the
    weights of group d // (D / G).

    Args:
        packed: features of B streams and C cameras; for each its L levels one after the other, row-major pixels, channels last
            (`structures.ImageFeatures.packed`).
        level_hw: sizes (H0, W0, H1, W1, ...) of the levels in pixels.
        points: P points (x, y) an anchor in each camera, in image units: (0, 0) top left corner, (1, 1) bottom right.
        weights: weight of each point, camera, level and channel group.
        backend: "reference", "visible", "cpp" (on a CPU), "triton" or "cuda" (on a GPU), or None for the `use_backend` context or else
            the best for the device.

    `points` and `weights` have the dtype of `packed`; beside half precision features they may be float32 (and points better are).
    Half precision sums are made in float32 and rounded once.

    Raises:
        ValueError: an argument does not fit, or the backend cannot run.

    Source: deformable aggregation of Sparse4D (arXiv:2211.10581, section 3.2; arXiv:2305.14018, section 3.3), with the semantics of
    the CUDA op of HorizonRobotics/Sparse4D and swc-17/SparseDrive.
    """
    _check(packed, level_hw, points, weights)
    choice = backends.choose(op.NAME, backend, packed.device.type)
    if choice == backends.REFERENCE:
        return reference.deformable_aggregation(packed, level_hw, points, weights)
    return op.run(packed, list(level_hw), points, weights, choice)


def _check(packed: Tensor, level_hw: tuple[int, ...], points: Tensor, weights: Tensor) -> None:
    _check_rank("packed", packed, "[B, C, S, D]")
    _check_rank("points", points, "[B, A, P, C, 2]")
    _check_rank("weights", weights, "[B, A, P, C, L, G]")
    batch, cameras, pixels, channels = packed.shape
    if len(level_hw) == 0 or len(level_hw) % 2 or any(size < 1 for size in level_hw):
        raise _error("level_hw", "positive (H0, W0, H1, W1, ...)", level_hw, "give height and width of each level")
    total = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    if pixels != total:
        raise _error("packed", f"S = {total} pixels for level_hw {tuple(level_hw)}", pixels, "give the sizes the features were packed with")
    if points.shape[0] != batch or points.shape[3] != cameras or points.shape[4] != 2:
        expected = f"[{batch}, A, P, {cameras}, 2] to go with packed"
        raise _error("points", expected, list(points.shape), "give (x, y) of every point in every camera")
    if weights.shape[:4] != points.shape[:4] or weights.shape[4] != len(level_hw) // 2:
        expected = f"[{', '.join(str(size) for size in points.shape[:4])}, {len(level_hw) // 2}, G] to go with points and level_hw"
        raise _error("weights", expected, list(weights.shape), "give one weight a point, camera, level and group")
    groups = weights.shape[5]
    if groups == 0 or channels % groups:
        raise _error("weights", f"G that divides D = {channels}", groups, "choose another number of groups")
    _check_dtypes(packed, points, weights)


def _check_dtypes(packed: Tensor, points: Tensor, weights: Tensor) -> None:
    if packed.dtype not in FLOATS:
        raise _error("packed", "float64, float32, bfloat16 or float16", packed.dtype, "convert the features")
    allowed = {packed.dtype, reference.compute_dtype(packed.dtype)}
    for name, tensor in (("points", points), ("weights", weights)):
        if tensor.dtype not in allowed:
            raise _error(name, " or ".join(sorted(str(dtype) for dtype in allowed)), tensor.dtype, "convert it to go with packed")
        if tensor.device != packed.device:
            raise _error(name, f"a tensor on {packed.device} like packed", tensor.device, "move all to one device")


def _check_rank(name: str, tensor: Tensor, axes: str) -> None:
    if tensor.dim() != axes.count(",") + 1:
        raise _error(name, axes, list(tensor.shape), "add or remove dimensions (a single stream has B = 1)")


def _error(name: str, expected: str, got: object, remedy: str) -> ValueError:
    return ValueError(f"deformable_aggregation.{name}: expected {expected}, got {got}; {remedy}")
