"""SPVNAS: one supernet whose weights are shared by many SPVCNNs of different widths and depths.

    supernet = SPVNAS(SpvnasSpace(num_classes=19))
    logits = supernet(points, supernet.space.sample(seed=step))     # train: another network each step, on the same weights
    network = supernet.extract(choice)                              # deploy: an ordinary SPVCNN

Which network runs is an argument, not a state of the supernet.
Source: Tang et al., Searching Efficient 3D Architectures with Sparse Point-Voxel Convolution (arXiv:2007.16100), section 4.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from sparsedrive.sparse.minkunet import LEVELS, UNetConfig
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.spvcnn import SPVCNN
from sparsedrive.sparse.tensor import Range

STEP = 16


@dataclass(frozen=True, kw_only=True)
class SpvnasChoice:
    """One network of a space: nine widths (stem, four stages down, four up) and eight depths."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SpvnasSpace:
    """The networks a supernet holds: widths between two bounds, in steps of 16, and depths between two numbers.

    The bounds are the published ones.
    """

    in_channels: int = 4
    num_classes: int = 19
    least_widths: tuple[int, ...] = (32, 16, 32, 64, 128, 128, 64, 48, 48)
    most_widths: tuple[int, ...] = (32, 48, 96, 192, 384, 384, 192, 128, 128)
    least_depth: int = 1
    most_depth: int = 2

    def __post_init__(self) -> None:
        pairs = list(zip(self.least_widths, self.most_widths, strict=True))
        if len(pairs) != 2 * LEVELS + 1 or any(not 0 < low <= high or (high - low) % STEP for low, high in pairs):
            raise ValueError(f"SpvnasSpace: expected nine bounds {STEP} n apart, got {self.least_widths} and {self.most_widths}")
        if not 1 <= self.least_depth <= self.most_depth:
            raise ValueError(f"SpvnasSpace: expected 1 <= least_depth <= most_depth, got {self.least_depth} and {self.most_depth}")

    def largest(self) -> SpvnasChoice:
        """The whole supernet."""
        return SpvnasChoice(widths=self.most_widths, depths=(self.most_depth,) * (2 * LEVELS))

    def smallest(self) -> SpvnasChoice:
        """The least of everything."""
        return SpvnasChoice(widths=self.least_widths, depths=(self.least_depth,) * (2 * LEVELS))

    def sample(self, seed: int) -> SpvnasChoice:
        """A network drawn evenly; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)

        def draw(low: int, high: int, step: int) -> int:
            return low + step * int(torch.randint((high - low) // step + 1, (), generator=generator))

        widths = tuple(draw(low, high, STEP) for low, high in zip(self.least_widths, self.most_widths, strict=True))
        return SpvnasChoice(widths=widths, depths=tuple(draw(self.least_depth, self.most_depth, 1) for _ in range(2 * LEVELS)))

    def network(self, choice: SpvnasChoice) -> UNetConfig:
        """The SPVCNN of a choice. ValueError where it is not in the space."""
        bounds = list(zip(self.least_widths, self.most_widths, strict=True))
        fits = len(choice.widths) == len(bounds) and len(choice.depths) == 2 * LEVELS
        fits = fits and all(low <= width <= high for width, (low, high) in zip(choice.widths, bounds, strict=True))
        if not fits or not all(self.least_depth <= depth <= self.most_depth for depth in choice.depths):
            raise ValueError(
                f"SpvnasSpace: expected nine widths from {self.least_widths} to {self.most_widths} and eight depths from "
                f"{self.least_depth} to {self.most_depth}, got {choice}; sample() gives one that fits"
            )
        return UNetConfig(
            in_channels=self.in_channels, widths=choice.widths, depths=choice.depths, always_project=True, num_classes=self.num_classes
        )


class SPVNAS(nn.Module):
    """Supernet: the largest network's weights, and every smaller network as slices of them.

    A smaller network has the first channels of each layer; behind a concatenation the first of each part. Its batch norms keep running
    statistics in the slices they use.
    """

    def __init__(self, space: SpvnasSpace) -> None:
        super().__init__()
        self.space = space
        self.net = SPVCNN(space.network(space.largest()))

    def forward(self, points: PointTensor, choice: SpvnasChoice, spatial_range: Range | None = None) -> Float[Tensor, "N classes"]:
        """Class logits of every point by the chosen network. Gradients reach the slices it uses."""
        skeleton = _skeleton(self.space.network(choice)).train(self.training)
        return functional_call(skeleton, self.weights_of(choice), (points, spatial_range), strict=True)

    def extract(self, choice: SpvnasChoice) -> SPVCNN:
        """The chosen network by itself, with its own copy of the weights."""
        config = self.space.network(choice)
        with torch.device("meta"):
            network = SPVCNN(config)
        copied = {name: value.detach().clone() for name, value in self.weights_of(choice).items()}
        network.load_state_dict(copied, assign=True)
        return network.requires_grad_(True).train(self.training)

    def weights_of(self, choice: SpvnasChoice) -> dict[str, Tensor]:
        """Parameters and buffers of the chosen network: slices of the supernet's, not copies where a view will do."""
        own = self.net.state_dict(keep_vars=True)
        shapes = {name: value.shape for name, value in _skeleton(self.space.network(choice)).state_dict().items()}
        return {name: self._slice(name, own[name], shape, choice) for name, shape in shapes.items()}

    def _slice(self, name: str, value: Tensor, shape: torch.Size, choice: SpvnasChoice) -> Tensor:
        after_concat = name.startswith("up") and name.endswith((".1.0.net.0.kernel", ".1.0.downsample.0.kernel"))
        if after_concat:
            level = int(name[2]) - 1
            risen, skipped = choice.widths[LEVELS + 1 + level], choice.widths[LEVELS - 1 - level]
            start = self.space.most_widths[LEVELS + 1 + level]
            value = torch.cat([value[..., :risen, :], value[..., start : start + skipped, :]], dim=-2)
        return value[tuple(slice(size) for size in shape)]


@lru_cache(maxsize=8)
def _skeleton(config: UNetConfig) -> SPVCNN:
    """The network without weights; a call gets them as arguments."""
    with torch.device("meta"):
        return SPVCNN(config)
