"""Denoising: noised ground truth as extra queries while training. Source: Sparse4D v3 (arXiv:2311.11722), section 3.1.

Queries come in G groups of equal size, group after group; no group sees another, nor do the decoder's own instances see any. In each
group every object has a positive (little noise) and a negative (more noise): all positives first, then all negatives.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.structures._structure import structure

NOISED_COLUMNS = 10
"""Columns of a box state that get noise: all but the vertical velocity."""


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """`num_groups` groups for up to `max_objects` objects a frame; `num_temporal_groups` of them live on in the next frame.

    A positive's noise is uniform within `noise_scale` (one number a state column: metres, log metres, sine and cosine, metres per
    second), a negative's magnitude within one to two times that. Defaults as published.
    """

    num_groups: int = 5
    num_temporal_groups: int = 3
    max_objects: int = 32
    noise_scale: tuple[float, ...] = (2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for name in ("num_groups", "max_objects"):
            if getattr(self, name) < 1:
                raise ValueError(f"DenoisingConfig.{name}: expected at least 1, got {getattr(self, name)}; denoising=None switches it off")
        if not 0 <= self.num_temporal_groups <= self.num_groups:
            raise ValueError(
                f"DenoisingConfig.num_temporal_groups: expected 0..num_groups={self.num_groups}, got {self.num_temporal_groups}"
            )
        if len(self.noise_scale) != NOISED_COLUMNS or min(self.noise_scale) < 0:
            raise ValueError(
                f"DenoisingConfig.noise_scale: expected {NOISED_COLUMNS} numbers >= 0, one a state column, got {self.noise_scale}"
            )

    @property
    def max_group_size(self) -> int:
        """Queries of a group at most: a positive and a negative an object."""
        return 2 * self.max_objects


@structure
class DenoisingTargets:
    """What each query should answer: the metric box, class and instance of its object (box as in `BoxTargets`).

    `label` is -1 where there is none (a negative, or an object that has gone): the box is arbitrary there. `instance` is the object the
    query was made for, -1 for a negative. Rows that only pad the batch are not `valid`.
    """

    box: Float[Tensor, "B Q 10"]
    label: Int[Tensor, "B Q"]
    instance: Int[Tensor, "B Q"]
    valid: Bool[Tensor, "B Q"]


@structure
class DenoisingQueries:
    """Noised boxes of one frame, what they should answer, and which T of the G groups live on in the next frame."""

    state: Float[Tensor, "B Q 11"]
    targets: DenoisingTargets
    propagated: Int[Tensor, "B T"]


@structure
class DenoisingMemory:
    """T groups of the last frame, in its ego frame, padded to R = `DenoisingConfig.max_group_size` rows."""

    feature: Float[Tensor, "B T R D"]
    state: Float[Tensor, "B T R 11"]
    instance: Int[Tensor, "B T R"]
    valid: Bool[Tensor, "B T R"]
