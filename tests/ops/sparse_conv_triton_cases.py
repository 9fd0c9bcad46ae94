"""Sparse convolution's Triton kernels on tiny shapes. `test_sparse_conv_triton.py` runs this file in a process of its own: see there."""

import importlib

import pytest
import torch
from torch import Tensor

from sparsedrive.ops.sparse_conv import kernel_tables, reached_coords, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
kernels = importlib.import_module("sparsedrive.ops.sparse_conv.triton_kernels")
if DEVICE == "cpu":  # the interpreter multiplies the bit patterns of bfloat16, so it is given the same numbers as float32
    kernels.TRITON_DTYPES[torch.bfloat16] = kernels.tl.float32
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Largest difference over largest value, to float64. Twice as much in bfloat16 on a CPU: the interpreter cuts digits off."""
BOTH = [True, True]
RELATIONS = {  # kernel, stride, start
    "1x1x1": ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
    "3x3x3": ((3, 3, 3), (1, 1, 1), (-1, -1, -1)),
    "2x2x2_stride_2": ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
}


def values(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def tables(relation: str, cells: int = 70) -> tuple[Tensor, Tensor]:
    """in_of_out and out_of_in of distinct random cells, to themselves where the stride is 1."""
    kernel, stride, start = RELATIONS[relation]
    flat = torch.randperm(2 * 6 * 5 * 4, generator=torch.Generator().manual_seed(0))[:cells]
    coords = torch.stack(torch.unravel_index(flat, (2, 6, 5, 4)), 1).to(torch.int32)
    geometry = {"kernel": kernel, "stride": stride, "start": start}
    bounds = torch.tensor([[0, 0, 0], [9, 9, 9]])
    outs = coords if stride == (1, 1, 1) else reached_coords(coords, **geometry, dilation=(1, 1, 1), bounds=bounds)
    found = kernel_tables(coords, outs, **geometry)
    return found[0].to(DEVICE), found[1].to(DEVICE)


def sample(pairs: tuple[Tensor, Tensor], channels: tuple[int, int] = (5, 7), dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Gradient of the output, features, weights and both tables."""
    ins, outs = pairs
    feats, weight = values(outs.shape[1], channels[0], seed=1, dtype=dtype), values(len(ins), *channels, seed=2, dtype=dtype)
    return values(ins.shape[1], channels[1], seed=3, dtype=dtype), feats, weight, ins, outs


def assert_agrees(grad: Tensor, feats: Tensor, weight: Tensor, ins: Tensor, outs: Tensor) -> list[Tensor]:
    """Output and both gradients are the reference's in float64; gives the kernels'."""
    leaves = [tensor.double().requires_grad_() for tensor in (feats, weight)]
    want = reference.sparse_conv(*leaves, ins, outs)
    want = [want, *torch.autograd.grad(want, leaves, grad.double())]
    got = [kernels.forward(feats, weight, ins, outs, "auto"), *kernels.backward(grad, feats, weight, ins, outs, "auto", BOTH)]
    for ours, theirs, dtype in zip(got, want, (feats.dtype, feats.dtype, weight.dtype), strict=True):
        bound = TOLERANCE[feats.dtype] * (2 if feats.dtype == torch.bfloat16 and DEVICE == "cpu" else 1)
        assert ours.dtype == dtype and ours.shape == theirs.shape
        assert (ours.double() - theirs).abs().max() <= bound * theirs.abs().max()
    return got


@pytest.mark.parametrize("swapped", [False, True], ids=["", "transposed"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_agrees_with_the_reference(relation, swapped):
    ins, outs = tables(relation)
    assert_agrees(*sample((outs, ins) if swapped else (ins, outs)))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_dtype(dtype):
    assert_agrees(*sample(tables("2x2x2_stride_2"), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_weights_beside_half_precision(dtype):
    grad, feats, _, *pairs = sample(tables("2x2x2_stride_2"), dtype=dtype)
    assert_agrees(grad, feats, values(8, 5, 7, seed=2), *pairs)


@pytest.mark.parametrize("channels", [(1, 1), (3, 70), (70, 3), (33, 65), (16, 32)], ids=str)
def test_every_width_of_channels(channels):
    assert_agrees(*sample(tables("2x2x2_stride_2", 20), channels))


@pytest.mark.parametrize("max_chunks", [1, 2, 32])
def test_long_tables_are_summed_in_chunks(monkeypatch, max_chunks):
    monkeypatch.setattr(kernels, "BLOCK_ROWS", 16)
    monkeypatch.setattr(kernels, "CHUNK", 16)
    monkeypatch.setattr(kernels, "MAX_CHUNKS", max_chunks)
    assert_agrees(*sample(tables("2x2x2_stride_2")))


def test_rows_without_a_pair_and_tiles_without_one():
    grad, feats, weight, ins, outs = sample(tables("3x3x3", 100))
    ins, outs = ins.clone(), outs.clone()
    ins[:, :80] = -1  # the first tile has no pair at any offset, the second starts without
    outs[(outs >= 0) & (outs < 80)] = -1
    got, *_ = assert_agrees(grad, feats, weight, ins, outs)
    assert not got[:80].any() and got[80:].any()


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_no_rows(n, m):
    ins, outs = (torch.full((27, count), -1, dtype=torch.int32, device=DEVICE) for count in (m, n))
    grad, feats, weight, *_ = sample((ins, outs))
    got = [kernels.forward(feats, weight, ins, outs, "auto"), *kernels.backward(grad, feats, weight, ins, outs, "auto", BOTH)]
    assert [value.shape for value in got] == [(m, 7), (n, 5), (27, 5, 7)] and not any(value.any() for value in got)


@pytest.mark.parametrize("needs", [[True, False], [False, True], [False, False]], ids=str)
def test_only_wanted_gradients(needs):
    arguments = sample(tables("2x2x2_stride_2"))
    every = kernels.backward(*arguments, "auto", BOTH)
    got = kernels.backward(*arguments, "auto", needs)
    want = [value for value, need in zip(every, needs, strict=True) if need]
    assert len(got) == len(want) and all(torch.equal(ours, theirs) for ours, theirs in zip(got, want, strict=True))


def test_strides_do_not_matter_and_the_same_bits_come_again():
    arguments = sample(tables("2x2x2_stride_2"))
    spread = [tensor.mT.contiguous().mT for tensor in arguments]
    assert not any(tensor.is_contiguous() for tensor in spread)
    want = [kernels.forward(*arguments[1:], "auto"), *kernels.backward(*arguments, "auto", BOTH)]
    got = [kernels.forward(*spread[1:], "implicit_gemm"), *kernels.backward(*spread, "implicit_gemm", BOTH)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, want, strict=True))


def test_reads_only_its_arguments():
    def fenced(tensor: Tensor) -> Tensor:
        fence = torch.nan if tensor.is_floating_point() else 0  # row 0 would be read and change the sums
        memory = torch.full((tensor.numel() + 400,), fence, dtype=tensor.dtype, device=DEVICE)
        memory[200:-200] = tensor.flatten()
        return memory[200:-200].view_as(tensor)

    arguments = sample(tables("2x2x2_stride_2"))
    want = [kernels.forward(*arguments[1:], "auto"), *kernels.backward(*arguments, "auto", BOTH)]
    fences = [fenced(tensor) for tensor in arguments]
    got = [kernels.forward(*fences[1:], "auto"), *kernels.backward(*fences, "auto", BOTH)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, want, strict=True))


def test_a_row_with_nan_spoils_its_neighbours_only():
    ins = torch.tensor([[-1, 0, 2], [0, 1, -1]], dtype=torch.int32, device=DEVICE)
    feats = torch.tensor([[torch.nan], [1.0], [2.0]], device=DEVICE)
    got = kernels.forward(feats, torch.ones(2, 1, 1, device=DEVICE), ins, ins, "auto")
    assert got.isnan().flatten().tolist() == [True, True, False] and got[2] == 2


def test_float64_and_gather_scatter_go_rowwise():
    grad, feats, weight, *pairs = (tensor.double() if tensor.is_floating_point() else tensor for tensor in sample(tables("3x3x3")))
    leaves = [feats.requires_grad_(), weight.requires_grad_()]
    want = reference.sparse_conv(*leaves, *pairs)
    grads = torch.autograd.grad(want, leaves, grad)
    for flow in ("auto", "gather_scatter"):
        with torch.no_grad():
            got = [kernels.forward(*leaves, *pairs, flow), *kernels.backward(grad, *leaves, *pairs, flow, BOTH)]
        for ours, theirs in zip(got, [want, *grads], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_fetch_on_demand_is_refused():
    with pytest.raises(ValueError, match="of backend 'triton', got 'fetch_on_demand'; take 'auto'"):
        kernels.forward(*sample(tables("1x1x1"))[1:], "fetch_on_demand")
