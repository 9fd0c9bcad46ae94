"""Which kernel runs an op: a table of backends per op, and the rule that chooses from it.

Choice: the call's own `backend=` > the innermost `use_backend(...)` around it > the best one there is for the tensors' device.
A backend asked for by name that cannot run raises; nothing falls back silently.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

AUTO = "auto"
REFERENCE = "reference"
KNOWN_ABSENT = ("cuda", "triton", "cpp")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One backend's implementation of one op, run below autograd.

    `forward(*inputs)` returns the output; `backward(grad, *inputs, needs)` the gradients of those differentiable inputs whose
    entry in `needs` is True, in order. `inputs` are the op's arguments without the backend.
    """

    backend: str
    devices: tuple[str, ...]
    note: str
    forward: Callable[..., Tensor]
    backward: Callable[..., list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class BackendRow:
    """One line of `backend_report`. `active_for_*`: what a call without `backend=` would run now, were its tensors there."""

    op: str
    backend: str
    available: bool
    active_for_cpu: bool
    active_for_cuda: bool
    reason: str


# op -> kernels, best first. "reference" is not listed: every op has it, on every device.
_tables: dict[str, tuple[Kernel, ...]] = {}
# (op, backend) -> why a kernel that exists as source is not in the table
_missing: dict[tuple[str, str], str] = {}
# (op or None for all, backend), innermost last. A plain module variable because torch.compile guards on it and so recompiles
# when it changes; a thread-local one is read once and then wrong for ever, a ContextVar cannot be traced.
_contexts: tuple[tuple[str | None, str], ...] = ()


def declare(op: str, kernels: tuple[Kernel, ...] = (), missing: Mapping[str, str] | None = None) -> None:
    """Enter an op with its kernels, best first, and for backends that could not be built or loaded here the reason."""
    assert op not in _tables, f"op {op} declared twice"
    _tables[op] = kernels
    _missing.update({(op, backend): reason for backend, reason in (missing or {}).items()})


@contextmanager
def use_backend(backend: str, *, op: str | None = None) -> Iterator[None]:
    """Within this context ops (all, or only `op`) run on `backend`: a backend's name, "reference", or "auto" for the best.

    Holds for the whole process, not only for this thread. Ops already exported keep what they were exported with.

    Raises:
        ValueError: `op` is unknown, or no op (or not this op) has the backend; the message lists the reasons.
    """
    global _contexts
    if op is not None and op not in _tables:
        raise ValueError(f"use_backend.op: expected one of {', '.join(_tables)}, got {op!r}")
    concerned = [op] if op is not None else list(_tables)
    missing = [_why_missing(name, backend) for name in concerned]
    if all(missing):
        raise ValueError("; ".join(reason for reason in missing if reason))
    before = _contexts
    _contexts = (*before, (op, backend))
    try:
        yield
    finally:
        _contexts = before


def choose(op: str, backend: str | None, device: str) -> str:
    """What a call shall run: a kernel's name, "reference", or "auto" where the kernel is chosen when the op runs.

    "auto" is kept (not resolved) so that a program exported on one device takes the best kernel of the device it later runs on;
    only a device no kernel knows gets "reference" at once.

    Raises:
        ValueError: the backend asked for is unknown, not built, or does not run on `device`.
    """
    name = backend if backend is not None else _from_context(op)
    if name == REFERENCE:
        return name
    if name == AUTO:
        return AUTO if any(device in kernel.devices for kernel in _tables[op]) else REFERENCE
    return find_kernel(op, name, device).backend


def find_kernel(op: str, backend: str, device: str) -> Kernel:
    """The kernel of that name, or for "auto" the best one for the device. Raises ValueError where there is none."""
    for kernel in _tables[op]:
        if backend in (kernel.backend, AUTO) and device in kernel.devices:
            return kernel
    reason = _why_missing(op, backend) or f"{op}: backend {backend!r} does not run on {device!r} tensors"
    remedy = f"leave the choice out for the best one, take {REFERENCE!r}, or limit use_backend to the op meant with op="
    raise ValueError(f"{reason}; {remedy}")


def _from_context(op: str) -> str:
    for concerned, backend in reversed(_contexts):
        if concerned is None or concerned == op:
            return backend
    return AUTO


def _why_missing(op: str, backend: str) -> str | None:
    """Why the op has no such backend; None if it has."""
    names = [kernel.backend for kernel in _tables[op]]
    if backend in (AUTO, REFERENCE, *names):
        return None
    if backend in KNOWN_ABSENT:
        return f"{op}: backend {backend!r} is {_why_absent(op, backend)}"
    return f"{op}: expected a backend of {', '.join([*names, REFERENCE])}, got {backend!r}"


def _why_absent(op: str, backend: str) -> str:
    return _missing.get((op, backend), "not built in this version")


def backend_report() -> list[BackendRow]:
    """Every op with every known backend, built or not: what `sparsedrive doctor` prints."""
    rows = []
    for op, kernels in _tables.items():
        active = {device: _active(op, device) for device in ("cpu", "cuda")}
        entries = [(kernel.backend, True, kernel.note) for kernel in kernels]
        entries.append((REFERENCE, True, "the specification, in plain PyTorch; any device"))
        built = [kernel.backend for kernel in kernels]
        entries += [(name, False, _why_absent(op, name)) for name in KNOWN_ABSENT if name not in built]
        for name, available, reason in entries:
            on_cpu, on_cuda = active["cpu"] == name, active["cuda"] == name
            rows.append(BackendRow(op=op, backend=name, available=available, active_for_cpu=on_cpu, active_for_cuda=on_cuda, reason=reason))
    return rows


def _active(op: str, device: str) -> str | None:
    """Name of the backend a plain call would take on that device now; None where it would raise."""
    try:
        name = choose(op, None, device)
        return find_kernel(op, name, device).backend if name == AUTO else name
    except ValueError:
        return None
