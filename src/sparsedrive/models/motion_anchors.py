"""Trajectory anchors to start from where no trained or clustered ones are given: arcs of constant speed and turn rate."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEP_S = 0.5
TYPICAL_SPEED_MPS = (8.0, 7.0, 1.0, 6.0, 4.0, 0.2, 7.0, 4.0, 1.4, 0.2)
"""Per detection class, `structures.DETECTION_CLASSES` order; the last is used for any further class."""


def _arcs(speeds_mps: Tensor, turn_rates_radps: Tensor, steps: int, start_yaw_rad: float) -> Tensor:
    time_s = STEP_S * torch.arange(1, steps + 1)
    yaw_rad = start_yaw_rad + turn_rates_radps[:, None] * time_s
    heading = torch.stack([yaw_rad.cos(), yaw_rad.sin()], dim=-1)
    return (speeds_mps[:, None, None] * STEP_S * heading).cumsum(dim=1)


def default_motion(num_classes: int, modes: int, steps: int) -> Float[Tensor, "K M T 2"]:
    """Positions in the agent frame (x along its heading), metres, 0.5 s apart: slow to fast, straight, left and right."""
    index = torch.arange(modes)
    turn_rate = (index % 3 - 1) * 0.15
    classes = []
    for label in range(num_classes):
        speed = TYPICAL_SPEED_MPS[min(label, len(TYPICAL_SPEED_MPS) - 1)] * (index + 0.5) / modes
        classes.append(_arcs(speed, turn_rate, steps, start_yaw_rad=0.0))
    return torch.stack(classes)


def default_plan(num_commands: int, modes: int, steps: int) -> Float[Tensor, "3 M T 2"]:
    """Positions in the ego frame (y forward), metres, 0.5 s apart, for the commands right, left, straight."""
    speed = 9.0 * (torch.arange(modes) + 0.5) / modes
    turn_rates = (-0.25, 0.25, 0.0)[:num_commands]
    return torch.stack([_arcs(speed, torch.full((modes,), rate), steps, start_yaw_rad=math.pi / 2) for rate in turn_rates])


def going_on(
    velocity_mps: Float[Tensor, "B 2"], turn_rate_radps: Float[Tensor, "B"], age_s: Float[Tensor, "B"], steps: int
) -> Float[Tensor, "B T 2"]:
    """The ways made in the next steps by who goes on with the same speed and turn rate. `age_s`: how long ago the velocity was so."""
    turned_s = age_s[:, None] + STEP_S * (torch.arange(steps, device=age_s.device) + 0.5)
    angle_rad = turn_rate_radps[:, None] * turned_s
    x_mps, y_mps = velocity_mps[:, :1], velocity_mps[:, 1:]
    cos, sin = angle_rad.cos(), angle_rad.sin()
    return STEP_S * torch.stack([x_mps * cos - y_mps * sin, x_mps * sin + y_mps * cos], dim=-1)
