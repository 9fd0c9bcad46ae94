"""Embeddings of anchors: boxes, polylines, and points by sines."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.geometry import box_state
from sparsedrive.layers.mlp import linear_relu_norm


class BoxEncoder(nn.Module):
    """Embeds a box state from position, size, yaw and velocity, each by its own perceptron.

    With four widths the parts are put side by side (decoupled attention, Sparse4D v3); they must sum to the decoder's width.
    `summed`: four times the decoder's width, added up and through one more perceptron (Sparse4D v1 and v2).
    """

    def __init__(self, part_dims: tuple[int, int, int, int], blocks: int = 4, *, summed: bool = False):
        super().__init__()

        def embedding(input_dim: int, dim: int) -> nn.Sequential:
            return nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=blocks, input_dim=input_dim))

        self.position, self.size = embedding(3, part_dims[0]), embedding(3, part_dims[1])
        self.yaw, self.velocity = embedding(2, part_dims[2]), embedding(3, part_dims[3])
        self.output = embedding(part_dims[0], part_dims[0]) if summed else None

    def forward(self, state: Float[Tensor, "*batch 11"]) -> Float[Tensor, "*batch D"]:
        """State to embedding."""
        parts = [
            self.position(state[..., : box_state.LOG_LENGTH]),
            self.size(state[..., box_state.LOG_LENGTH : box_state.SIN_YAW]),
            self.yaw(state[..., box_state.SIN_YAW : box_state.VX]),
            self.velocity(state[..., box_state.VX :]),
        ]
        if self.output is None:
            return torch.cat(parts, dim=-1)
        position, size, yaw, velocity = parts
        return self.output(position + size + yaw + velocity)


class PolylineEncoder(nn.Module):
    """Embeds a polyline from all its coordinates."""

    def __init__(self, num_points: int, dim: int):
        super().__init__()
        self.position = nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=2, input_dim=2 * num_points))

    def forward(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch D"]:
        """Flattened points to embedding."""
        return self.position(state)


def sine_embedding(points_m: Float[Tensor, "*batch 2"], dim: int) -> Float[Tensor, "*batch dim"]:
    """Sines and cosines of y (first half) and x (second half) at `dim/4` wavelengths 1 m * 10000^(4i/dim).

    Source: DAB-DETR (arXiv:2201.12329, equation 4), without normalising the coordinates to [0, 1]: SparseDrive feeds metres.
    """
    quarter = dim // 4
    wavelength_m = 10000 ** (2 * torch.arange(quarter, dtype=points_m.dtype, device=points_m.device) / (dim // 2))
    phase = points_m.flip(-1)[..., None] * (2 * math.pi) / wavelength_m
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-3)
