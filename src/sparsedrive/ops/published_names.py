"""The names under which the published SparseDrive and Sparse4D code reaches these ops, for code that is being ported.

What they take and return is laid out as there: the cameras' features one after the other in one dimension, with tables of level sizes
and starts. The sizes are read on the host, so on a GPU every call waits for the device: code of its own calls `deformable_aggregation`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.deformable_aggregation import deformable_aggregation

DAF_AVAILABLE = True
"""That deformable aggregation can be used: it always can, on every device, without anything to compile."""
FOCAL_LOSS_AVAILABLE = True
"""That the sigmoid focal loss can be used: it always can."""


def deformable_aggregation_function(
    feature_maps: Float[Tensor, "B N D"],
    spatial_shape: Int[Tensor, "C L 2"],
    scale_start_index: Int[Tensor, "C L"],
    sampling_location: Float[Tensor, "B A P C 2"],
    weights: Float[Tensor, "B A P C L G"],
) -> Float[Tensor, "B A D"]:
    """`deformable_aggregation` with the arguments of the published op; differentiable in features, locations and weights.

    Args:
        feature_maps: pixels of all cameras and levels, as `feature_maps_format` lays them out.
        spatial_shape: (height, width) of each camera's levels in pixels, the same for all cameras.
        scale_start_index: where each level begins along N.
        sampling_location: points (x, y) in image units, (0, 0) top left, (1, 1) bottom right.
        weights: weight of each point, camera, level and channel group.

    Unlike there features, locations and weights keep their dtypes (there all is float32), and the result has the features'.

    Raises:
        ValueError: an argument does not fit, or the cameras' levels differ in size (call once for each size and add up).

    Source: `ops/deformable_aggregation.py` of HorizonRobotics/Sparse4D and swc-17/SparseDrive.
    """
    sizes = _level_hw(spatial_shape)
    if scale_start_index.tolist() != _starts(spatial_shape).tolist():
        raise _error("scale_start_index", f"{_starts(spatial_shape).tolist()}, one level after the other", scale_start_index.tolist())
    cameras, pixels = spatial_shape.shape[0], sum(height * width for height, width in sizes)
    if feature_maps.dim() != 3 or feature_maps.shape[1] != cameras * pixels:
        raise _error("feature_maps", f"[B, {cameras * pixels}, D] for {cameras} cameras with levels {sizes}", list(feature_maps.shape))
    packed = feature_maps.unflatten(1, (cameras, pixels))
    return deformable_aggregation(packed, tuple(size for level in sizes for size in level), sampling_location, weights)


def feature_maps_format(feature_maps: Sequence, inverse: bool = False) -> list:
    """Feature maps by level to (or with `inverse` from) the layout `deformable_aggregation_function` takes.

    Args:
        feature_maps: a [B, C, D, H, W] tensor a level, or a list of such lists for groups of cameras with other sizes; with `inverse`
            the result of a call without.
        inverse: back again.

    Returns:
        [feature_maps [B, N, D], spatial_shape [C, L, 2], scale_start_index [C, L]]; with `inverse` a list, for each run of cameras with
        the same sizes, of lists of [B, C, D, H, W] tensors. A camera group is one entry of that list even if it is the only one.
    """
    if inverse:
        return _by_level(*feature_maps)
    groups = feature_maps if isinstance(feature_maps[0], (list, tuple)) else [feature_maps]
    pixels, shapes = [], []
    for levels in groups:
        pixels.append(torch.cat([level.flatten(3) for level in levels], -1).transpose(2, 3).flatten(1, 2))
        shapes += [[list(level.shape[-2:]) for level in levels]] * levels[0].shape[1]
    features = torch.cat(pixels, 1) if len(pixels) > 1 else pixels[0]
    spatial_shape = torch.tensor(shapes, dtype=torch.int64)
    return [features, spatial_shape.to(features.device), _starts(spatial_shape).to(features.device)]


def _by_level(features: Tensor, spatial_shape: Tensor, scale_start_index: Tensor) -> list[list[Tensor]]:
    shapes = spatial_shape.tolist()
    firsts = [camera for camera in range(len(shapes)) if camera == 0 or shapes[camera] != shapes[camera - 1]]
    groups, begin = [], 0
    for first, end in zip(firsts, [*firsts[1:], len(shapes)], strict=True):
        areas = [height * width for height, width in shapes[first]]
        part = features[:, begin : begin + (end - first) * sum(areas)].unflatten(1, (end - first, sum(areas)))
        begin += (end - first) * sum(areas)
        levels = zip(part.split(areas, 2), shapes[first], strict=True)
        groups.append([level.transpose(2, 3).unflatten(3, size) for level, size in levels])
    return groups


def _level_hw(spatial_shape: Tensor) -> list[list[int]]:
    if spatial_shape.dim() != 3 or spatial_shape.shape[2] != 2 or spatial_shape.shape[0] == 0:
        raise _error("spatial_shape", "[C, L, 2]", list(spatial_shape.shape))
    cameras = spatial_shape.tolist()
    if any(levels != cameras[0] for levels in cameras):
        raise _error("spatial_shape", "the same level sizes in every camera", cameras)
    return cameras[0]


def _starts(spatial_shape: Tensor) -> Tensor:
    """Where levels begin that follow each other, camera by camera."""
    areas = spatial_shape.prod(-1).flatten()
    return (areas.cumsum(0) - areas).view(spatial_shape.shape[:2])


def _error(name: str, expected: str, got: object) -> ValueError:
    return ValueError(f"deformable_aggregation_function.{name}: expected {expected}, got {got}; build it with feature_maps_format")
