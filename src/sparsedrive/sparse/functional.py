"""Sparse convolution, pooling, cropping and activations as functions of tensors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.sparse_conv import sparse_conv
from sparsedrive.ops.sparse_conv.reference import require
from sparsedrive.sparse import kernel_map
from sparsedrive.sparse.config import ConvConfig, current_config
from sparsedrive.sparse.kernel_map import Cells, Step
from sparsedrive.sparse.tensor import SparseTensor, Triple

Size = int | tuple[int, ...]


def triple(value: Size, name: str = "size") -> Triple:
    """Three numbers of one or three.

    Raises:
        ValueError: neither.
    """
    values = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(values) != 3 or not all(isinstance(number, int) for number in values):
        raise ValueError(f"{name}: expected a whole number or three of them, got {value!r}; give one each for x, y, z")
    return values[0], values[1], values[2]


def conv3d(
    x: SparseTensor,
    kernel: Float[Tensor, "K I O"],
    bias: Float[Tensor, " O"] | None = None,
    *,
    kernel_size: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    submanifold: bool | None = None,
    transposed: bool = False,
    generative: bool = False,
    config: ConvConfig | None = None,
) -> SparseTensor:
    """Sparse convolution; what the arguments mean stands at `Conv3d`. `kernel` may be [I, O] if it has one offset.

    Raises:
        ValueError: arguments do not go together, or not with the tensor.
    """
    size, steps = triple(kernel_size, "kernel_size"), triple(stride, "stride")
    if _is_pointwise(size, steps, transposed, submanifold):
        weight = kernel.reshape(kernel.shape[-2:]).T
        if x.feats.dtype in (torch.float16, torch.bfloat16):  # decide for both, as everywhere
            weight, bias = weight.to(x.feats.dtype), bias if bias is None else bias.to(x.feats.dtype)
        return x.with_feats(F.linear(x.feats, weight, bias))
    config = config or current_config()
    numbers = (size, steps, triple(padding, "padding"), triple(dilation, "dilation"))
    step = _step(x, *numbers, submanifold, transposed, generative, config)
    feats = _sums(x, kernel[None] if kernel.dim() == 2 else kernel, step, config)
    return _at(x, step, feats if bias is None else feats + bias.to(feats.dtype))


def _is_pointwise(kernel: Triple, stride: Triple, transposed: bool, submanifold: bool | None) -> bool:
    return kernel == stride == (1, 1, 1) and not transposed and submanifold is not False


def _sums(x: SparseTensor, kernel: Tensor, step: Step, config: ConvConfig) -> Tensor:
    if config.mask_splits == 0 or config.dataflow not in ("auto", "implicit_gemm"):
        return sparse_conv(x.feats, kernel, step.pairs.in_of_out, step.pairs.out_of_in, dataflow=config.dataflow)
    total = None
    for part in x.maps.sorted_parts(step, config.mask_splits):
        pairs = part.pairs
        rows = sparse_conv(x.feats, kernel[part.first : part.last], pairs.in_of_out, pairs.out_of_in, dataflow=config.dataflow)
        total = rows[part.place] if total is None else total + rows[part.place]
    assert total is not None, "a kernel has at least one offset"
    return total


def _step(
    x: SparseTensor,
    kernel: Triple,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    submanifold: bool | None,
    transposed: bool,
    generative: bool,
    config: ConvConfig,
) -> Step:
    cells = Cells(coords=x.coords, stride=x.stride, spatial_range=x.spatial_range, site=x.site)
    if generative and transposed:
        return kernel_map.spread(x.maps, cells, kernel, stride, padding, dilation)
    if transposed:
        return kernel_map.undone(x.maps, cells, kernel, stride, dilation)
    on_the_fly = config.kmap_mode == "hashmap_on_the_fly"
    if submanifold or (submanifold is None and stride == (1, 1, 1)):
        even = kernel[0] * kernel[1] * kernel[2] % 2 == 0
        return kernel_map.submanifold(x.maps, cells, kernel, dilation, centred=not (even and on_the_fly))
    tiling = not on_the_fly and stride != (1, 1, 1) and all(s in (1, k) for s, k in zip(stride, kernel, strict=True))
    if config.downsample_mode == "minkowski" or tiling:
        return kernel_map.floored(x.maps, cells, kernel, stride, dilation)
    return kernel_map.strided(x.maps, cells, kernel, stride, padding, dilation)


def _at(x: SparseTensor, step: Step, feats: Tensor) -> SparseTensor:
    """Features at the step's target."""
    target = step.target
    return SparseTensor(
        coords=target.coords, feats=feats, stride=target.stride, spatial_range=target.spatial_range, maps=x.maps, site=target.site
    )


def max_pool3d(
    x: SparseTensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    *,
    config: ConvConfig | None = None,
) -> SparseTensor:
    """Largest value over the active cells under the kernel, each channel; inactive cells do not count as zeros.

    Output cells as of a convolution that is not submanifold; `stride` is the kernel's size if left out. Of equal values the first in
    kernel order gets the gradient.
    """
    step = _pool_step(x, kernel_size, stride, padding, dilation, config)
    if not len(x):
        return _at(x, step, x.feats)
    values, table = x.feats.detach(), step.pairs.in_of_out.long()
    best = values.new_full((table.shape[1], values.shape[1]), -torch.inf)
    winner = table.new_zeros(best.shape)
    for ins in table:
        candidate = values[ins.clamp(min=0)]
        better = ((candidate > best) | candidate.isnan()) & (ins >= 0)[:, None]
        best, winner = torch.where(better, candidate, best), torch.where(better, ins[:, None], winner)
    # -inf never wins against the start: such a cell takes its last active neighbour, which is -inf too.
    some = torch.where(table >= 0, table, -1).amax(0)
    winner = torch.where(best == -torch.inf, some[:, None], winner)
    return _at(x, step, x.feats.gather(0, winner))


def avg_pool3d(
    x: SparseTensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    *,
    config: ConvConfig | None = None,
) -> SparseTensor:
    """Mean over the active cells under the kernel, each channel. Otherwise as `max_pool3d`."""
    step = _pool_step(x, kernel_size, stride, padding, dilation, config)
    if not len(x):
        return _at(x, step, x.feats)
    table = step.pairs.in_of_out
    total = x.feats.new_zeros(table.shape[1], x.feats.shape[1])
    for ins in table:
        total = total + torch.where((ins >= 0)[:, None], x.feats[ins.clamp(min=0).long()], 0)
    return _at(x, step, total / (table >= 0).sum(0)[:, None])


def _pool_step(x: SparseTensor, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, config: ConvConfig | None) -> Step:
    kernel = triple(kernel_size, "kernel_size")
    steps = kernel if stride is None else triple(stride, "stride")
    numbers = (triple(padding, "padding"), triple(dilation, "dilation"))
    return _step(x, kernel, steps, *numbers, False, False, False, config or current_config())


def samples(x: SparseTensor) -> tuple[Int[Tensor, " N"], int]:
    """The sample of each cell, and how many samples there are.

    Raises:
        ValueError: a batch index is negative, or beyond the `spatial_range`.
    """
    batch, count = x.coords[:, 0].long(), x.batch_size()
    if not torch.compiler.is_compiling():
        expected, remedy = f"batch indices from 0 to {count - 1}", "number the samples from 0, or give a larger spatial_range"
        require((batch >= 0) & (batch < count), "SparseTensor.coords", expected, "others", remedy)
    return batch, count


def global_avg_pool(x: SparseTensor) -> Float[Tensor, "B C"]:
    """Mean over each sample's cells; zeros for a sample without any."""
    batch, count = samples(x)
    total = x.feats.new_zeros(count, x.feats.shape[1]).index_add(0, batch, x.feats)
    return total / torch.bincount(batch, minlength=count).clamp(min=1)[:, None].to(x.feats.dtype)


def global_max_pool(x: SparseTensor) -> Float[Tensor, "B C"]:
    """Largest value over each sample's cells, each channel; zeros for a sample without any."""
    batch, count = samples(x)
    zeros = x.feats.new_zeros(count, x.feats.shape[1])
    return zeros.scatter_reduce(0, batch[:, None].expand_as(x.feats), x.feats, "amax", include_self=False)


def spcrop(x: SparseTensor, lowest: Triple | None = None, highest: Triple | None = None) -> SparseTensor:
    """The cells with lowest <= (x, y, z) < highest, coordinates unchanged."""
    keep = torch.ones(len(x), dtype=torch.bool, device=x.coords.device)
    if lowest is not None:
        keep &= (x.coords[:, 1:] >= torch.tensor(lowest, device=keep.device)).all(1)
    if highest is not None:
        keep &= (x.coords[:, 1:] < torch.tensor(highest, device=keep.device)).all(1)
    return SparseTensor(coords=x.coords[keep], feats=x.feats[keep], stride=x.stride, spatial_range=x.spatial_range)


def relu(x: SparseTensor) -> SparseTensor:
    """max(0, value)."""
    return x.with_feats(F.relu(x.feats))


def leaky_relu(x: SparseTensor, negative_slope: float = 0.01) -> SparseTensor:
    """value where positive, negative_slope * value elsewhere."""
    return x.with_feats(F.leaky_relu(x.feats, negative_slope))


def silu(x: SparseTensor) -> SparseTensor:
    """value * sigmoid(value)."""
    return x.with_feats(F.silu(x.feats))
