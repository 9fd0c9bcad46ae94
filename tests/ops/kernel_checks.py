"""What every kernel of an op has to pass, below autograd: for kernels that run in an interpreter, in an emulator, or on a GPU.

A kernel is a module with `forward` and `backward`, or a `Kernel` of the ops' table.
"""

import itertools
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from sources import golden_folder
from sparsedrive.ops import deformable_aggregation, sigmoid_focal_loss
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample

Implementation = ModuleType | Kernel
UNIT = golden_folder() / "sparsedrive" / "unit.npz"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
"""Largest error over largest value, beside the same numbers in float64: sums are rounded once."""
TINY = {"batch": 1, "anchors": 3, "per_anchor": 3, "cameras": 2, "groups": 2}
NEEDS = list(itertools.product([True, False], repeat=3))


def on_device(sample: Sample, device: str) -> Sample:
    """The same arguments on a device."""
    return Sample(*(value.to(device) if isinstance(value, Tensor) else value for value in sample))


def output_gradient(sample: Sample) -> Tensor:
    """A gradient of the output to begin the backward with."""
    shape = (sample.points.shape[0], sample.points.shape[1], sample.packed.shape[3])
    return torch.linspace(-1, 1, max(1, int(np.prod(shape))))[: int(np.prod(shape))].view(shape).to(sample.packed)


def outcome(kernel: Implementation, sample: Sample, needs: tuple[bool, ...] = (True, True, True)) -> list[Tensor]:
    """Output and the wanted gradients."""
    arguments = (sample.packed, list(sample.level_hw), sample.points, sample.weights)
    return [kernel.forward(*arguments), *kernel.backward(output_gradient(sample), *arguments, list(needs))]


def exact(sample: Sample) -> list[Tensor]:
    """Output and gradients by the reference, in float64 on the CPU."""
    leaves = [tensor.detach().cpu().double().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights)]
    output = deformable_aggregation(leaves[0], sample.level_hw, *leaves[1:], backend="reference")
    return [output.detach(), *torch.autograd.grad(output, leaves, output_gradient(sample).cpu().double())]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    """Errors, relative to the largest value of each."""
    for ours, theirs in zip(got, want, strict=True):
        assert ours.shape == theirs.shape and ours.is_contiguous()
        scale = theirs.abs().max().double().clamp(min=1e-30) if theirs.numel() else torch.ones(())
        error = (ours.double().cpu() - theirs.double().cpu()).abs()
        assert not error.isnan().any() and (error <= tolerance * scale.cpu()).all(), f"{error.max() / scale.cpu():.1e}"


def assert_agrees(kernel: Implementation, sample: Sample, tolerance: float | None = None) -> None:
    """With the reference, in the dtypes of the inputs."""
    got = outcome(kernel, sample)
    assert [value.dtype for value in got] == [sample.packed.dtype, sample.packed.dtype, sample.points.dtype, sample.weights.dtype]
    assert_close(got, exact(sample), tolerance or TOLERANCE[sample.packed.dtype])


def assert_golden(kernel: Implementation, group: str, device: str = "cpu") -> None:
    """The arrays recorded from the published op: output and all gradients, points on the border among them."""
    with np.load(UNIT, allow_pickle=False) as golden:
        names = ("value", "sampling_location", "weights", "grad_output")
        value, points, weights, grad = (torch.from_numpy(golden[f"{group}/{name}"]).to(device) for name in names)
        shapes = golden[f"{group}/spatial_shape"]
        level_hw = [int(size) for size in shapes[0].flatten()]
        arguments = (value.unflatten(1, (len(shapes), -1)), level_hw, points, weights)
        got = [kernel.forward(*arguments), *kernel.backward(grad, *arguments, [True] * 3)]
        for name, ours in zip(("output", "grad_value", "grad_sampling_location", "grad_weights"), got, strict=True):
            want = torch.from_numpy(golden[f"{group}/{name}"])
            torch.testing.assert_close(ours.cpu().view_as(want), want, rtol=0, atol=1e-6 + 1e-5 * want.abs().max().item())


def border_sample(dtype: torch.dtype = torch.float32) -> Sample:
    """Points at exactly 0 and 1, the numbers next to them, NaN, infinities, and pixel centres, where the slope jumps."""
    size, one = 5, torch.ones((), dtype=dtype)
    edges = [0.0, 1.0, torch.nextafter(0 * one, one).item(), torch.nextafter(one, 0 * one).item(), -1e-7, float("nan"), float("inf"), 0.5]
    values = torch.tensor([*edges, 0.1, 0.3, 0.7], dtype=dtype)  # of sizes 5 and 3 the product with 0.3 and 0.7 has to be rounded
    grid = torch.cartesian_prod(values, values)
    features = torch.randn(1, 1, size * size + 9, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = torch.linspace(-1, 1, len(grid) * 2, dtype=dtype).view(1, 1, len(grid), 1, 2, 1)
    return Sample(features, (size, size, 3, 3), grid.view(1, 1, -1, 1, 2), weights)


def assert_borders(kernel: Implementation, device: str = "cpu") -> None:
    """As `visible` in PyTorch, to the side of every pixel's centre a point is on."""
    sample = border_sample()
    leaves = [tensor.requires_grad_() for tensor in (sample.packed, sample.points, sample.weights)]
    output = deformable_aggregation(leaves[0], sample.level_hw, *leaves[1:], backend="visible")
    want = [output.detach(), *torch.autograd.grad(output, leaves, output_gradient(sample))]
    got = outcome(kernel, on_device(Sample(*(v.detach() if isinstance(v, Tensor) else v for v in sample)), device))
    assert_close(got, want, 1e-6)


def assert_reads_only_its_arguments(kernel: Implementation, device: str = "cpu", **sizes: int) -> None:
    """Features, weights and coordinates lie between NaNs; those of hidden points are NaN or inf themselves. 3: nothing is aligned."""

    def fenced(tensor: Tensor) -> Tensor:
        memory = torch.full((tensor.numel() + 403,), torch.nan, dtype=tensor.dtype, device=device)
        memory[203:-200] = tensor.flatten()
        return memory[203:-200].view_as(tensor)

    sample = on_device(random_sample(**{**TINY, **sizes}), device)
    hidden = ~((sample.points > 0) & (sample.points < 1)).all(-1)
    assert hidden.any() and not hidden.all()
    points = sample.points.masked_fill(hidden[..., None], torch.nan)
    weights = sample.weights.masked_fill(hidden[..., None, None], torch.inf)
    got = outcome(kernel, Sample(fenced(sample.packed), sample.level_hw, fenced(points), fenced(weights)))
    assert_close(got, exact(sample), TOLERANCE[sample.packed.dtype])


def assert_only_wanted_gradients(kernel: Implementation, needs: tuple[bool, ...], device: str = "cpu") -> None:
    """Each gradient is the same whether the others are computed or not."""
    sample = on_device(random_sample(**TINY), device)
    want = [grad for grad, need in zip(exact(sample)[1:], needs, strict=True) if need]
    assert_close(outcome(kernel, sample, needs)[1:], want, TOLERANCE[torch.float32])


def focal_sample(dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Ordinary and saturated logits, with both kinds of background."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(40, 5, generator=generator, dtype=torch.float64)
    logits[0] = torch.tensor([-1e4, 1e4, -90.0, 90.0, 0.0])
    logits[1] = torch.tensor([1e4, -1e4, 30.0, -30.0, 17.0])
    target = torch.randint(-1, 6, (40,), generator=generator)
    return logits.to(device, dtype), target.to(device)


def assert_focal_agrees(kernel: Implementation, dtype: torch.dtype, gamma: float, clamp_log: bool, device: str = "cpu") -> None:
    """Loss and gradient of the reference; the clamped form saturates by dtype, so it is compared in the dtype it is computed in."""
    logits, target = focal_sample(dtype, device)
    grad = torch.linspace(-1, 1, logits.numel()).view_as(logits).to(logits)
    loss = kernel.forward(logits, target, 0.3, gamma, clamp_log)
    (slope,) = kernel.backward(grad, logits, target, 0.3, gamma, clamp_log, [True])
    computed = torch.float32 if clamp_log and dtype != torch.float64 else torch.float64
    leaf = logits.detach().cpu().to(computed).requires_grad_()
    want = sigmoid_focal_loss(leaf, target.cpu(), alpha=0.3, gamma=gamma, clamp_log=clamp_log, backend="reference")
    (want_slope,) = torch.autograd.grad(want, leaf, grad.cpu().to(computed))
    assert loss.dtype == slope.dtype == dtype and loss.shape == slope.shape == logits.shape
    bounds = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
    for ours, theirs in ((loss, want.detach()), (slope, want_slope)):
        torch.testing.assert_close(ours.cpu(), theirs.to(dtype), rtol=bounds[dtype], atol=bounds[dtype])
