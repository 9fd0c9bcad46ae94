"""What this machine can run: versions, devices, op kernels, extras, and a check that the ops give the right numbers."""

import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec

import torch
from torch import Tensor

from sparsedrive import ops
from sparsedrive.ops import sparse_conv as _  # noqa: F401  ops enter the table when they are imported
from sparsedrive.ops.backends import backend_report

PACKAGES = ("sparsedrive", "torch", "numpy", "scipy", "shapely", "opencv-python-headless", "safetensors", "tyro", "jaxtyping", "rich")
EXTRAS = {"triton": "GPU kernels of torch.compile", "pytest": "the test suite: pip install sparsedrive[dev]"}
"""Module -> what it is good for. The library runs without them."""
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`note`: threads of the CPU; capability and memory of a GPU, or why there is none."""

    name: str
    usable: bool
    note: str
    bfloat16: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpKernel:
    """One implementation of one op: `active_for` are the devices where a plain call takes it; `note` says what it is or why not."""

    op: str
    backend: str
    usable: bool
    active_for: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An optional package."""

    module: str
    installed: bool
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """One op on a tiny input against a number worked out by hand."""

    name: str
    passed: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The whole report. A version is None where the package is missing."""

    python: str
    system: str
    versions: dict[str, str | None]
    devices: tuple[Device, ...]
    kernels: tuple[OpKernel, ...]
    extras: tuple[Extra, ...]
    checks: tuple[SelfCheck, ...]

    def to_plain(self) -> dict:
        """The report as dicts and lists, for JSON."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Looks at the machine. Never raises for what it finds: a failing check is part of the report."""
    return Diagnosis(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={name: _version(name) for name in PACKAGES},
        devices=(_cpu(), _cuda()),
        kernels=tuple(
            OpKernel(
                op=row.op,
                backend=row.backend,
                usable=row.available,
                active_for=tuple(name for name, active in (("cpu", row.active_for_cpu), ("cuda", row.active_for_cuda)) if active),
                note=row.reason,
            )
            for row in backend_report()
        ),
        extras=tuple(Extra(module=name, installed=find_spec(name) is not None, purpose=purpose) for name, purpose in EXTRAS.items()),
        checks=tuple(check(device) for device in _usable_devices() for check in (_check_deformable_aggregation, _check_sigmoid_focal_loss)),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        module = {"opencv-python-headless": "cv2"}.get(package, package)  # another distribution of the same module
        return getattr(sys.modules.get(module), "__version__", None)


def _cpu() -> Device:
    note = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return Device(name=f"cpu ({platform.processor() or platform.machine()})", usable=True, note=note, bfloat16=True)


def _cuda() -> Device:
    if not torch.cuda.is_available():
        reason = "no GPU or driver found" if torch.version.cuda else "this PyTorch was built without CUDA"
        return Device(name="cuda", usable=False, note=reason, bfloat16=False)
    facts = torch.cuda.get_device_properties(0)
    note = f"compute capability {facts.major}.{facts.minor}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return Device(name=f"cuda ({facts.name})", usable=True, note=note, bfloat16=torch.cuda.is_bf16_supported())


def _usable_devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _check_deformable_aggregation(device: str) -> SelfCheck:
    """The middle of a 2 x 2 picture is the mean of its pixels; a point on the border counts nothing."""
    picture = torch.tensor([0.0, 1.0, 2.0, 3.0], device=device).view(1, 1, 4, 1)
    points = torch.tensor([[0.5, 0.5], [1.0, 0.5]], device=device).view(1, 1, 2, 1, 2)
    weights = torch.tensor([2.0, 5.0], device=device).view(1, 1, 2, 1, 1, 1)
    return _check(f"deformable_aggregation on {device}", 3.0, lambda: ops.deformable_aggregation(picture, (2, 2), points, weights))


def _check_sigmoid_focal_loss(device: str) -> SelfCheck:
    """An undecided logit of a true class: 0.25 * 0.5 ** 2 * log 2."""
    logits, label = torch.zeros(1, 1, device=device), torch.zeros(1, dtype=torch.long, device=device)
    expected = 0.25 * 0.5**2 * math.log(2)
    return _check(f"sigmoid_focal_loss on {device}", expected, lambda: ops.sigmoid_focal_loss(logits, label).sum())


def _check(name: str, expected: float, compute: Callable[[], Tensor]) -> SelfCheck:
    try:
        got = float(compute())
    except Exception as error:  # whatever goes wrong belongs into the report
        return SelfCheck(name=name, passed=False, note=f"{type(error).__name__}: {error}")
    passed = abs(got - expected) <= TOLERANCE
    return SelfCheck(name=name, passed=passed, note="" if passed else f"expected {expected:.6f}, got {got:.6f}")
