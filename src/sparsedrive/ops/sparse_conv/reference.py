"""The specification of sparse convolution: which rows meet at each kernel offset, and the sum over them. Plain PyTorch, any device."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Triple = tuple[int, int, int]
Ints = Sequence[int]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precision is computed in float32 and rounded once at the end."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def kernel_places(kernel: Ints) -> list[Triple]:
    """Place (jx, jy, jz) of each kernel index, in TorchSparse's order: x fastest if the kernel's volume is odd, z fastest if even."""
    x_places, y_places, z_places = (range(size) for size in kernel)
    if kernel[0] * kernel[1] * kernel[2] % 2 == 0:
        return list(itertools.product(x_places, y_places, z_places))
    return [(x, y, z) for z, y, x in itertools.product(z_places, y_places, x_places)]


def sparse_conv(
    feats: Float[Tensor, "N I"], weight: Float[Tensor, "K I O"], in_of_out: Int[Tensor, "K M"], out_of_in: Int[Tensor, "K N"]
) -> Float[Tensor, "M O"]:
    """As the public function of this package; differentiable by autograd."""
    dtype = compute_dtype(feats.dtype)
    rows, kernel = feats.to(dtype), weight.to(dtype)
    output = rows.new_zeros(in_of_out.shape[1], weight.shape[2])
    for offset, table in enumerate(in_of_out):
        (outs,) = torch.nonzero(table >= 0, as_tuple=True)
        ins = table[outs].long()
        output = output.index_add(0, outs, rows[ins] @ kernel[offset])
    return output.to(feats.dtype)


def kernel_tables(
    in_coords: Int[Tensor, "N 4"], out_coords: Int[Tensor, "M 4"], kernel: Ints, stride: Ints, start: Ints, dilation: Ints
) -> tuple[Int[Tensor, "K M"], Int[Tensor, "K N"]]:
    """As the public function of this package: look every cell up in the sorted list of the input's."""
    places = torch.tensor(kernel_places(kernel), device=in_coords.device)
    offsets = torch.tensor(start, device=in_coords.device) + places * torch.tensor(dilation, device=in_coords.device)
    scaled = out_coords[:, 1:].long() * torch.tensor(stride, device=in_coords.device)
    wanted = torch.cat([out_coords[:, :1].long().expand(len(places), -1, 1), scaled + offsets[:, None]], dim=2)  # [K, M, 4]
    in_of_out = in_coords.new_full(wanted.shape[:2], -1)
    out_of_in = in_coords.new_full((len(places), len(in_coords)), -1)
    if not len(in_coords) or not len(out_coords):
        return in_of_out, out_of_in

    keys, wanted_keys = _keys(in_coords.long(), wanted)
    sorted_keys, rows = keys.sort()
    require(sorted_keys[1:] != sorted_keys[:-1], "sparse_conv.coords", "each cell once", "some twice", "sparse_quantize keeps one of each")
    place = torch.searchsorted(sorted_keys, wanted_keys).clamp(max=len(keys) - 1)
    found = sorted_keys[place] == wanted_keys
    in_of_out = torch.where(found, rows[place], -1).to(torch.int32)
    return in_of_out, inverse_table(in_of_out, len(in_coords))


def inverse_table(in_of_out: Int[Tensor, "K M"], num_in: int) -> Int[Tensor, "K N"]:
    """For each kernel offset and input row the output row, -1 for none."""
    outs = torch.arange(in_of_out.shape[1], dtype=torch.int32, device=in_of_out.device).expand_as(in_of_out)
    # One column more takes what has no input.
    table = in_of_out.new_full((in_of_out.shape[0], num_in + 1), -1)
    ins = torch.where(in_of_out >= 0, in_of_out, num_in).long()
    return table.scatter(1, ins, outs)[:, :num_in].contiguous()


def reached_coords(
    coords: Int[Tensor, "N 4"],
    kernel: Triple,
    stride: Triple,
    start: Triple,
    dilation: Triple,
    bounds: Int[Tensor, "2 3"],
    transposed: bool,
) -> Int[Tensor, "M 4"]:
    """As the public function of this package: all candidates of every offset, each kept once."""
    device = coords.device
    offsets = torch.tensor(start, device=device) + torch.tensor(kernel_places(kernel), device=device) * torch.tensor(
        dilation, device=device
    )
    strides, cells = torch.tensor(stride, device=device), coords[:, None, 1:].long()
    if transposed:
        candidates = cells * strides + offsets
        valid = torch.ones_like(candidates, dtype=torch.bool)
    else:
        candidates = torch.div(cells - offsets, strides, rounding_mode="floor")
        valid = candidates * strides == cells - offsets
    valid = (valid & (candidates >= bounds[0]) & (candidates <= bounds[1])).all(2)
    batch = coords[:, None, :1].long().expand(-1, candidates.shape[1], 1)
    return torch.unique(torch.cat([batch, candidates], dim=2)[valid], dim=0).to(torch.int32)


def _keys(cells: Int[Tensor, "N 4"], wanted: Int[Tensor, "K M 4"]) -> tuple[Int[Tensor, " N"], Int[Tensor, "K M"]]:
    """One number a cell, in the order of (b, x, y, z)."""
    low = torch.minimum(cells.amin(0), wanted.amin((0, 1)))
    size = torch.maximum(cells.amax(0), wanted.amax((0, 1))) - low + 1
    require(size.double().prod() <= 4e18, "sparse_conv.coords", "cells in a box of at most 4e18", "a larger one", "remove far outliers")
    steps = torch.cat([size.flip(0).cumprod(0).flip(0)[1:], size.new_ones(1)])
    return ((cells - low) * steps).sum(-1), ((wanted - low) * steps).sum(-1)


def require(condition: Tensor, name: str, expected: str, got: str, remedy: str) -> None:
    """ValueError where not all is true; on a GPU the assertion of the device, so that nothing waits for it."""
    message = f"{name}: expected {expected}, got {got}; {remedy}"
    if condition.device.type == "cuda":
        torch._assert_async(condition.all(), message)
    elif not bool(condition.all()):
        raise ValueError(message)
