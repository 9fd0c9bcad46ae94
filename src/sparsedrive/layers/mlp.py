"""The small perceptron every branch of the family is made of."""

from torch import nn


def linear_relu_norm(dim: int, *, linears_per_block: int, blocks: int, input_dim: int | None = None) -> list[nn.Module]:
    """`blocks` times (`linears_per_block` x (Linear, ReLU), LayerNorm), as a list to build an `nn.Sequential` from."""
    layers: list[nn.Module] = []
    width = dim if input_dim is None else input_dim
    for _ in range(blocks):
        for _ in range(linears_per_block):
            layers += [nn.Linear(width, dim), nn.ReLU(inplace=True)]
            width = dim
        layers.append(nn.LayerNorm(dim))
    return layers


def linear_relu(dim: int, output_dim: int) -> nn.Sequential:
    """Two hidden layers of `dim`, then a linear output."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, output_dim))
