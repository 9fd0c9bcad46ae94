"""A plan from the vehicle's own status and the command alone, learned in seconds: a planner with cameras has to beat it.

Source of the idea: Zhai et al., arXiv:2305.10430; Li et al., arXiv:2312.03031. The network and its training are ours.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from sparsedrive.structures import EGO_STATUS_DIM, Command

HIDDEN, STEPS, WARM_UP, BATCH, SEED = 64, 400, 100, 256, 0
RATE, BETAS = 5e-3, (0.9, 0.99)
MIN_FRAMES = 16
Tensors = Sequence[torch.Tensor]


def features(
    ego_status: Float[np.ndarray, "N 10"], known: Bool[np.ndarray, "N 10"], command: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N 23"]:
    """What the network sees: status (0 where not known), which of it is known, the command as one of three."""
    return np.concatenate([np.where(known, ego_status, 0.0), known, np.eye(len(Command))[command]], 1)


def learn(
    seen: Float[np.ndarray, "N 23"], path_m: Float[np.ndarray, "N T 2"], valid: Bool[np.ndarray, "N T"]
) -> "EgoMlp | None":  # fmt: skip
    """Fit the mean distance to the driven paths; the same data give the same network. None for fewer than `MIN_FRAMES` frames."""
    rows = np.flatnonzero(valid.any(1))
    if len(rows) < MIN_FRAMES:
        return None
    x, y, weight = (torch.from_numpy(part[rows].astype(np.float32)) for part in (seen, path_m, valid))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = EgoMlp(x, y, weight)
    parameters = list(model.parameters())
    means, squares = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    batches = torch.Generator().manual_seed(SEED)
    for step in range(1, STEPS + 1):
        batch = torch.randint(len(x), (min(BATCH, len(x)),), generator=batches)
        error_m = (model(x[batch]) - y[batch]).square().sum(-1).add(1e-6).sqrt()
        loss = (error_m * weight[batch]).sum() / weight[batch].sum().clamp(min=1.0)
        _adam(parameters, torch.autograd.grad(loss, parameters), means, squares, step)
    return model.eval()


@torch.no_grad()
def _adam(parameters: Tensors, gradients: Tensors, means: Tensors, squares: Tensors, step: int) -> None:
    """One step of Adam, the rate rising and falling once. By hand: an optimiser of torch loads its compiler, which takes longer than all
    the learning."""
    rate = RATE * min(step / WARM_UP, (STEPS - step) / (STEPS - WARM_UP))
    for parameter, gradient, mean, square in zip(parameters, gradients, means, squares, strict=True):
        mean.lerp_(gradient, 1 - BETAS[0])
        square.lerp_(gradient.square(), 1 - BETAS[1])
        parameter -= rate * (mean / (1 - BETAS[0] ** step)) / ((square / (1 - BETAS[1] ** step)).sqrt() + 1e-8)


class EgoMlp(nn.Module):
    """Two hidden layers between standardised features and standardised waypoints."""

    center: torch.Tensor
    scale: torch.Tensor
    path_center_m: torch.Tensor
    path_scale_m: torch.Tensor

    def __init__(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> None:
        super().__init__()
        assert x.shape[1] == 2 * EGO_STATUS_DIM + len(Command)
        spread = x.std(0)
        self.register_buffer("center", x.mean(0))
        self.register_buffer("scale", torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        count = weight.sum(0).clamp(min=1.0)[:, None]
        center_m = (y * weight[..., None]).sum(0) / count
        self.register_buffer("path_center_m", center_m)
        self.register_buffer("path_scale_m", (((y - center_m).square() * weight[..., None]).sum(0) / count).sqrt().clamp(min=0.1))
        self.layers = nn.Sequential(
            nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, y[0].numel())
        )

    def forward(self, x: Float[torch.Tensor, "N 23"]) -> Float[torch.Tensor, "N T 2"]:
        """Waypoints [m], 0.5 s apart."""
        out = self.layers((x - self.center) / self.scale)
        return out.reshape(len(x), *self.path_center_m.shape) * self.path_scale_m + self.path_center_m

    @torch.no_grad()
    def plan(self, seen: Float[np.ndarray, "N 23"]) -> Float[np.ndarray, "N T 2"]:
        """Plans of N frames."""
        return self(torch.from_numpy(seen.astype(np.float32))).double().numpy()
