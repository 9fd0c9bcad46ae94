"""Sparse convolution's ops: against dense convolutions, against each other, and where their arguments end."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsedrive.ops import use_backend
from sparsedrive.ops.sparse_conv import cpp, kernel_places, kernel_tables, maps_op, op, reached_coords, sparse_conv

CPP = "cpp" if cpp.why_missing() is None else None
needs_cpp = pytest.mark.skipif(CPP is None, reason=f"C++ kernels: {cpp.why_missing()}")
BACKENDS = ["reference", pytest.param("cpp", marks=needs_cpp)]
DATAFLOWS = ["implicit_gemm", "gather_scatter", "fetch_on_demand"]
CENTRED = {"kernel": (3, 3, 3), "start": (-1, -1, -1)}
RELATIONS = [  # kernel, stride, padding, dilation
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
    ((1, 3, 2), (1, 2, 3), (0, 1, 1), (1, 2, 1)),
    ((3, 1, 5), (3, 1, 2), (0, 0, 2), (2, 1, 1)),
]


def random_cells(count: int, *, shape: tuple[int, ...] = (2, 9, 8, 7), seed: int = 0) -> Tensor:
    """Distinct cells in no order."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.Size(shape).numel()
    flat = torch.randperm(total, generator=generator)[:count]
    return torch.stack(torch.unravel_index(flat, shape), 1).to(torch.int32)


def values(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sample(
    cells: int = 60, channels: tuple[int, int] = (5, 6), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of a strided convolution, more outputs than inputs."""
    coords = random_cells(cells)
    bounds = torch.tensor([[0, 0, 0], [4, 3, 3]])
    relation = {**CENTRED, "stride": (2, 2, 2), "dilation": (1, 1, 1)}
    outs = reached_coords(coords, **relation, bounds=bounds)
    tables = kernel_tables(coords, outs, **relation)
    return values(cells, channels[0], dtype=dtype), values(27, *channels, dtype=dtype, seed=2), *tables


def dense_weight(weight: Tensor, kernel: tuple[int, int, int]) -> Tensor:
    """[out, in, kx, ky, kz] of [K, in, out] by the definition of the order."""
    dense = weight.new_zeros(weight.shape[2], weight.shape[1], *kernel)
    for k, (x, y, z) in enumerate(kernel_places(kernel)):
        dense[:, :, x, y, z] = weight[k].T
    return dense


class TestMaps:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), RELATIONS)
    def test_convolution_is_the_dense_one_where_anything_is_reached(self, backend, kernel, stride, padding, dilation):
        shape, coords = (2, 9, 8, 7), random_cells(50)
        feats, weight = values(50, 3), values(torch.Size(kernel).numel(), 3, 4)
        grid = feats.new_zeros(*shape, 3).index_put(tuple(coords.long().T), feats).movedim(-1, 1)
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        want = F.conv3d(grid, dense_weight(weight, kernel), **options)
        active = F.conv3d((grid != 0).any(1, keepdim=True).double(), torch.ones(1, 1, *kernel).double(), **options)[:, 0] > 0.5
        relation = {"kernel": kernel, "stride": stride, "start": tuple(-p for p in padding), "dilation": dilation, "backend": backend}
        outs = reached_coords(coords, **relation, bounds=torch.tensor([(0, 0, 0), [size - 1 for size in want.shape[2:]]]))
        assert torch.equal(outs.long(), active.nonzero())  # the same order: sorted by (b, x, y, z)
        got = sparse_conv(feats, weight, *kernel_tables(coords, outs, **relation), backend=backend)
        torch.testing.assert_close(got, want.movedim(1, -1)[active])

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), RELATIONS)
    def test_transposed_cells_are_those_a_dense_transposed_convolution_reaches(self, backend, kernel, stride, padding, dilation):
        coords = random_cells(20, shape=(2, 4, 4, 4))
        ones = torch.zeros(2, 4, 4, 4).index_put(tuple(coords.long().T), torch.ones(()))[:, None]
        reached = F.conv_transpose3d(ones, torch.ones(1, 1, *kernel), stride=stride, padding=padding, dilation=dilation)[:, 0] > 0.5
        relation = {"kernel": kernel, "stride": stride, "start": tuple(-p for p in padding), "dilation": dilation, "backend": backend}
        bounds = torch.tensor([(0, 0, 0), [size - 1 for size in reached.shape[1:]]])
        assert torch.equal(reached_coords(coords, **relation, bounds=bounds, transposed=True).long(), reached.nonzero())

    @needs_cpp
    @pytest.mark.parametrize("far", [0, -7, 2**31 - 20, -(2**31)])
    def test_both_backends_find_the_same_pairs_anywhere_in_int32(self, far):
        coords = random_cells(80)
        coords[:, 1] += far
        coords[:, 2] -= 3
        tables = [kernel_tables(coords, coords, **CENTRED, backend=backend) for backend in ("cpp", "reference")]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*tables, strict=True))
        assert (tables[0][0] >= 0).sum() > 150
        assert torch.equal(tables[0][0][13], torch.arange(80, dtype=torch.int32))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_keys_beyond_32_bits_are_right(self, backend):
        far = torch.tensor([[0, 0, 0, 0], [0, 2**20, 2**20, 2**19], [3, 5, 5, 5], [0, 2**20, 2**20, 2**19 + 1]], dtype=torch.int32)
        table, back = kernel_tables(far, far, **CENTRED, backend=backend)
        pairs = {(k, int(table[k, m]), m) for k, m in (table >= 0).nonzero().tolist()}
        assert pairs == {(13, 0, 0), (13, 1, 1), (13, 2, 2), (13, 3, 3), (22, 3, 1), (4, 1, 3)}
        assert back[22].tolist() == [-1, -1, -1, 1] and back[4].tolist() == [-1, 3, -1, -1]

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_cells_too_far_apart_are_refused(self, backend):
        ends = torch.tensor([[0, *[-(2**31)] * 3], [0, *[2**31 - 1] * 3]], dtype=torch.int32)
        with pytest.raises(ValueError, match="expected cells in a box of at most"):
            kernel_tables(ends, ends, kernel=(1, 1, 1), backend=backend)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_equal_cells_are_refused(self, backend):
        coords = random_cells(10)
        coords[7] = coords[2]
        with pytest.raises(ValueError, match="expected each cell once, got some twice"):
            kernel_tables(coords, coords, **CENTRED, backend=backend)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(("ins", "outs"), [(0, 0), (0, 3), (3, 0)])
    def test_no_cells(self, backend, ins, outs):
        tables = kernel_tables(random_cells(ins), random_cells(outs), **CENTRED, backend=backend)
        assert [table.shape for table in tables] == [(27, outs), (27, ins)] and all((table == -1).all() for table in tables)
        bounds = torch.tensor([[0] * 3, [9] * 3])
        reached = reached_coords(random_cells(0), **CENTRED, stride=(2,) * 3, dilation=(1,) * 3, bounds=bounds, backend=backend)
        assert reached.shape == (0, 4) and reached.dtype == torch.int32

    def test_kernel_order(self):
        assert kernel_places((3, 1, 3))[:4] == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 0, 1)]
        assert kernel_places((2, 1, 3))[:4] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0)]

    def test_arguments_are_checked(self):
        coords = random_cells(4)
        for call, message in [
            (lambda: kernel_tables(coords.long(), coords, kernel=(3, 3, 3)), r"in_coords: expected int32 \[N, 4\], got torch.int64"),
            (lambda: kernel_tables(coords, coords[:, :3], kernel=(3, 3, 3)), r"out_coords: expected int32 \[N, 4\]"),
            (lambda: kernel_tables(coords, coords, kernel=(3, 0, 3)), "kernel: expected three positive numbers"),
            (lambda: kernel_tables(coords, coords, kernel=(3, 3, 3), backend="cuda"), "'cuda' is not built"),
        ]:
            with pytest.raises(ValueError, match=message):
                call()


class TestConvolution:
    @needs_cpp
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("dataflow", DATAFLOWS)
    def test_output_and_gradients_are_the_reference_s(self, dtype, dataflow):
        feats, weight, *tables = sample(dtype=dtype)
        exact = [tensor.double().requires_grad_() for tensor in (feats, weight)]
        grad = values(tables[0].shape[1], 6, dtype=dtype, seed=3)
        want = sparse_conv(*exact, *tables, backend="reference")
        leaves = [feats.requires_grad_(), weight.requires_grad_()]
        got = sparse_conv(*leaves, *tables, dataflow=dataflow, backend="cpp")
        bound = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
        pairs = [(got, want), *zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, exact, grad.double()), strict=True)]
        for ours, theirs in pairs:
            assert ours.dtype == dtype
            assert (ours.double() - theirs).abs().max() <= bound * theirs.abs().max()

    @needs_cpp
    @pytest.mark.parametrize("isa", [0, 1, 2])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_every_width_of_channels_in_every_instruction_set(self, monkeypatch, isa, dtype):
        monkeypatch.setattr(cpp, "WIDEST_ISA", isa)
        widths = (1, 3, 8, 17, 31, 33, 64, 130)
        for channels in itertools.chain(zip(widths, reversed(widths), strict=True), [(16, 112), (64, 64)]):
            feats, weight, *tables = sample(40, channels, dtype)
            grad = values(tables[0].shape[1], channels[1], dtype=dtype)
            got = [op.KERNELS[0].forward(feats, weight, *tables, "auto"), *cpp.backward(grad, feats, weight, *tables, "auto", [True, True])]
            leaves = [feats.double().requires_grad_(), weight.double().requires_grad_()]
            want = sparse_conv(*leaves, *tables, backend="reference")
            want = [want, *torch.autograd.grad(want, leaves, grad.double())]
            for ours, theirs in zip(got, want, strict=True):
                bound = (2e-6 if dtype == torch.float32 else 1e-13) * theirs.abs().max()
                assert (ours.double() - theirs).abs().max() <= bound, (channels, isa)

    @pytest.mark.parametrize("backend", [*BACKENDS, "rowwise"])
    def test_gradcheck(self, backend):
        feats, weight, *tables = sample(5, (2, 3))
        leaves = [feats.requires_grad_(), weight.requires_grad_()]
        assert torch.autograd.gradcheck(lambda *inputs: sparse_conv(*inputs, *tables, backend=backend), leaves)

    @needs_cpp
    @pytest.mark.parametrize("threads", [2, 8])
    def test_any_number_of_threads_gives_the_same_bits_in_twenty_runs(self, threads):
        coords = random_cells(3000, shape=(2, 24, 24, 24))
        feats, weight, grad = (values(*shape, dtype=torch.float32) for shape in ((3000, 24), (27, 24, 40), (3000, 40)))

        def outcome() -> list[Tensor]:
            tables = kernel_tables(coords, coords, **CENTRED, backend="cpp")
            return [*tables, cpp.forward(feats, weight, *tables, "auto"), *cpp.backward(grad, feats, weight, *tables, "auto", [True, True])]

        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            want = outcome()
            torch.set_num_threads(threads)
            for _ in range(20):
                assert all(torch.equal(ours, theirs) for ours, theirs in zip(outcome(), want, strict=True))
        finally:
            torch.set_num_threads(before)

    @needs_cpp
    def test_reads_only_its_arguments(self):
        def fenced(tensor: Tensor) -> Tensor:
            memory = torch.full((tensor.numel() + 403,), torch.nan, dtype=tensor.dtype)
            memory[203:-200] = tensor.flatten()
            return memory[203:-200].view_as(tensor)

        feats, weight, *tables = sample(channels=(7, 19), dtype=torch.float32)
        grad = values(tables[0].shape[1], 19, dtype=torch.float32)
        fences = [fenced(tensor) for tensor in (feats, weight, grad)]
        got = [cpp.forward(*fences[:2], *tables, "auto"), *cpp.backward(fences[2], *fences[:2], *tables, "auto", [True, True])]
        want = [cpp.forward(feats, weight, *tables, "auto"), *cpp.backward(grad, feats, weight, *tables, "auto", [True, True])]
        assert all(torch.equal(ours, theirs) and ours.isfinite().all() for ours, theirs in zip(got, want, strict=True))

    @needs_cpp
    def test_a_row_with_nan_spoils_its_neighbours_only(self):
        coords = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]], dtype=torch.int32)
        feats = torch.tensor([[torch.nan], [1.0], [2.0]])
        got = sparse_conv(feats, torch.ones(27, 1, 1), *kernel_tables(coords, coords, **CENTRED), backend="cpp")
        assert got.isnan().flatten().tolist() == [True, True, False] and got[2] == 2

    @pytest.mark.parametrize("backend", [*BACKENDS, "rowwise"])
    def test_strides_do_not_matter(self, backend):
        feats, weight, *tables = sample()
        want = sparse_conv(feats, weight, *tables, backend=backend)
        spread = [tensor.T.contiguous().T for tensor in (feats, *tables)]
        got = sparse_conv(spread[0], weight.transpose(1, 2).contiguous().transpose(1, 2), *spread[1:], backend=backend)
        torch.testing.assert_close(got, want)

    @pytest.mark.parametrize("backend", [*BACKENDS, "rowwise"])
    @pytest.mark.parametrize(("ins", "outs"), [(0, 0), (0, 3), (3, 0)])
    def test_no_rows(self, backend, ins, outs):
        tables = kernel_tables(random_cells(ins), random_cells(outs), **CENTRED)
        leaves = [torch.ones(ins, 2, requires_grad=True), torch.ones(27, 2, 4, requires_grad=True)]
        got = sparse_conv(*leaves, *tables, backend=backend)
        assert got.shape == (outs, 4) and not got.any()
        got.sum().backward()
        assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves)

    def test_opcheck(self):
        feats, weight, *tables = sample(10, (2, 3), torch.float32)
        torch.library.opcheck(op.run, (feats.requires_grad_(), weight.requires_grad_(), *tables, "auto", "auto"))

    def test_opcheck_of_maps(self):
        coords, geometry = random_cells(20), ([3, 3, 3], [2, 2, 2], [-1, -1, -1], [1, 1, 1])
        torch.library.opcheck(maps_op.kernel_tables, (coords, coords, *geometry, "auto"))
        torch.library.opcheck(maps_op.reached_coords, (coords, *geometry, torch.tensor([[0] * 3, [9] * 3]), False, "auto"))

    def test_one_gradient_alone(self):
        feats, weight, *tables = sample()
        full = [feats.clone().requires_grad_(), weight.clone().requires_grad_()]
        want = torch.autograd.grad(sparse_conv(*full, *tables).sum(), full)
        for i in range(2):
            leaves = [leaf.detach().requires_grad_(j == i) for j, leaf in enumerate(full)]
            (got,) = torch.autograd.grad(sparse_conv(*leaves, *tables).sum(), leaves[i])
            assert torch.equal(got, want[i])

    def test_contexts_choose(self):
        feats, weight, *tables = sample()
        with use_backend("rowwise", op="sparse_conv"), pytest.raises(ValueError, match="of backend 'rowwise', got 'implicit_gemm'"):
            sparse_conv(feats, weight, *tables, dataflow="implicit_gemm")
        with use_backend("reference", op="sparse_conv_maps"):
            assert len(kernel_tables(random_cells(3), random_cells(3), kernel=(1, 1, 1))) == 2

    def test_arguments_are_checked(self):
        feats, weight, ins, outs = sample()
        for arguments, message in [
            ((feats[0], weight, ins, outs), r"feats: expected \[N, I\]"),
            ((feats, weight[:, :2], ins, outs), r"weight: expected \[K, 5, O\]"),
            ((feats, weight.float(), ins, outs), "weight: expected torch.float64 like feats, got torch.float32"),
            ((feats, weight, ins[:3], outs), r"in_of_out: expected int32 \[27, M\]"),
            ((feats, weight, outs, ins), r"out_of_in: expected int32 \[27, 60\]"),
            ((feats, weight, ins.long(), outs), "in_of_out: expected int32"),
        ]:
            with pytest.raises(ValueError, match=message):
                sparse_conv(*arguments)
        with pytest.raises(ValueError, match="dataflow: expected one of auto"):
            sparse_conv(feats, weight, ins, outs, dataflow="fast")
