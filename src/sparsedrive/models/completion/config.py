"""What the completion cascade is made of. Every level is a field of its own and can be None."""

import warnings
from dataclasses import dataclass, field
from typing import Literal

NUSCENES_RING = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT", "CAM_FRONT_RIGHT")
EXTRINSICS = "extrinsics"


@dataclass(frozen=True, kw_only=True)
class PublishedQuirks:
    """What the published cascade (Wu-didi/SparseDrive, branch v2.0-dev) does otherwise, one switch each; `docs/completion.md` explains.

    Attributes:
        pseudo_geometry: a pixel is taken for a point straight ahead of the car, whichever camera it is of (x forward, sideways and down by
            fixed factors), and moved from then to now; only its camera's own past is looked up.
        no_positions: the attention of level 1 knows neither where its queries nor where its keys are, so what it adds is one vector.
        mean_coordinates: the places of all depth hypotheses are averaged, weighted with depth^-1/2, and one sample is taken there.
        aligned_corners: the outermost pixel centres lie on the border of the picture.
        failed_history: blank pictures of failed cameras enter the history as if they had been seen.
        data_order_neighbours: neighbours by a table for another order of the six nuScenes cameras than they come in: right for two.
        replaced_by_reconstruction: level 2 replaces what it got, without a gate, and sends no gradient to level 1.
        sampled_latent: level 2 draws its latent at test time too.
    """

    pseudo_geometry: bool = False
    no_positions: bool = False
    mean_coordinates: bool = False
    aligned_corners: bool = False
    failed_history: bool = False
    data_order_neighbours: bool = False
    replaced_by_reconstruction: bool = False
    sampled_latent: bool = False

    @classmethod
    def all(cls) -> "PublishedQuirks":
        """Everything as published."""
        return cls(**dict.fromkeys(cls.__dataclass_fields__, True))


@dataclass(frozen=True, kw_only=True)
class TemporalConfig:
    """Level 1: pictures of before and of other cameras, looked up where the failed camera would have seen the same things.

    Attributes:
        attention: which cameras a failed one looks at: all ("global", the published V1), or itself in the past and its two neighbours
            ("neighbours", V2).
        ring: who is whose neighbour: camera names once around the car, or "extrinsics" to see it from the calibration (any rig).
        queue_length: pictures remembered of each camera.
        max_age_s: an older picture is not looked at.
        depths_m: hypotheses of how far away is what a pixel shows; 10 m and 30 m as documented.
        levels: pyramid levels that are completed, 0 the finest; the others stay empty. (3,) as published.
        num_heads: of the attention, which works on the coarsest of these levels.
        kv_downsample: pixels a side that are averaged to one key of the attention.
        num_groups: channel groups with weights of their own over places to look at.
        max_offset: a learned shift of the places, at most this share of the picture.
    """

    attention: Literal["global", "neighbours"] = "global"
    ring: tuple[str, ...] | Literal["extrinsics"] = NUSCENES_RING
    queue_length: int = 2
    max_age_s: float = 4.0
    depths_m: tuple[float, ...] = (10.0, 30.0)
    levels: tuple[int, ...] = (0, 1, 2, 3)
    num_heads: int = 8
    kv_downsample: int = 4
    num_groups: int = 4
    max_offset: float = 0.05

    def __post_init__(self) -> None:
        if self.attention not in ("global", "neighbours"):
            raise ValueError(f"TemporalConfig.attention: expected 'global' or 'neighbours', got {self.attention!r}")
        for name in ("queue_length", "num_heads", "kv_downsample", "num_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"TemporalConfig.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.depths_m or min(self.depths_m) <= 0 or self.max_age_s <= 0:
            raise ValueError(f"TemporalConfig: expected depths_m and max_age_s above 0, got {self.depths_m} and {self.max_age_s}")
        if not self.levels or tuple(sorted(set(self.levels))) != self.levels or self.levels[0] < 0:
            raise ValueError(f"TemporalConfig.levels: expected different levels from 0, finest first, got {self.levels}")
        if isinstance(self.ring, str) and self.ring != EXTRINSICS:
            raise ValueError(f"TemporalConfig.ring: expected camera names once around the car, or 'extrinsics', got {self.ring!r}")


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Level 2: a small variational auto-encoder a pyramid level, taught what the camera would have given.

    `use_at_test=False` skips it outside training, as one published document says; the heads were then trained with other features.
    """

    hidden_dim: int = 64
    use_at_test: bool = True

    def __post_init__(self) -> None:
        if self.hidden_dim < 1:
            raise ValueError(f"ReconstructionConfig.hidden_dim: expected at least 1, got {self.hidden_dim}; 64 is usual")
        if not self.use_at_test:
            warnings.warn(
                "ReconstructionConfig.use_at_test=False: the heads are trained on features that level 2 made and tested on others",
                stacklevel=2,
            )


@dataclass(frozen=True, kw_only=True)
class GuidedConfig:
    """Level 3: refines most carefully what lies along the way the car is going to take.

    Attributes:
        trajectory: whose way: the "previous" frame's predicted plan; "none" treats all pixels alike; "gt", as published, the true
            future while training: it leaks into the features, and at test time there is none.
        num_heads: of the attention to the cameras that work.
        corridor_m: standard deviation of the importance around the way.
        ground_z_m: height of the road in the ego frame (nuScenes: lidar 1.84 m above it).
        heights_m: above the road, where the way is projected into the pictures.
    """

    trajectory: Literal["previous", "none", "gt"] = "previous"
    num_heads: int = 8
    corridor_m: float = 1.5
    ground_z_m: float = -1.84
    heights_m: tuple[float, ...] = (0.0, 0.5, 1.5)

    def __post_init__(self) -> None:
        if self.trajectory not in ("previous", "none", "gt"):
            raise ValueError(f"GuidedConfig.trajectory: expected 'previous', 'none' or 'gt', got {self.trajectory!r}")
        if self.corridor_m <= 0 or not self.heights_m:
            raise ValueError(f"GuidedConfig: expected corridor_m above 0 and heights, got {self.corridor_m} and {self.heights_m}")
        if self.trajectory == "gt":
            warnings.warn(
                "GuidedConfig.trajectory='gt': the features tell the planner the answer while training, and nothing at test time; for "
                "comparisons only, 'previous' is the same in both",
                stacklevel=2,
            )


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """The cascade, in the order temporal, reconstruction, guided, the same in training and test. None leaves a level out; levels 2 and 3
    are left out unless asked for, as they have not been seen to help (docs/completion.md).

    `world_model`: train with `world_model.WorldModel` beside it, as published at first; no evidence that it helps.
    """

    temporal: TemporalConfig | None = field(default_factory=TemporalConfig)
    reconstruction: ReconstructionConfig | None = None
    guided: GuidedConfig | None = None
    world_model: bool = False
    published: PublishedQuirks = field(default_factory=PublishedQuirks)

    def __post_init__(self) -> None:
        if self.temporal is None and self.reconstruction is None and self.guided is None:
            raise ValueError(
                "CompletionConfig: expected at least one level; to go without completion set SparseDriveConfig.completion=None"
            )
        if self.temporal is None and self.guided is None and self.reconstruction is not None and not self.reconstruction.use_at_test:
            raise ValueError("ReconstructionConfig.use_at_test: expected True where level 2 is the only one, got False")

    def check(self, dim: int, num_levels: int, camera_names: tuple[str, ...], *, has_planner: bool) -> None:
        """That it fits the model it is built into. Raises ValueError."""
        for name, config in (("TemporalConfig", self.temporal), ("GuidedConfig", self.guided)):
            if config is not None and dim % config.num_heads:
                raise ValueError(f"{name}.num_heads: expected a divisor of the feature width {dim}, got {config.num_heads}")
        temporal, guided = self.temporal, self.guided
        if temporal is not None and dim % temporal.num_groups:
            raise ValueError(f"TemporalConfig.num_groups: expected a divisor of the feature width {dim}, got {temporal.num_groups}")
        if temporal is not None and temporal.levels[-1] >= num_levels:
            raise ValueError(f"TemporalConfig.levels: expected levels below {num_levels} as the encoder has, got {temporal.levels}")
        if guided is not None and guided.trajectory == "previous" and not has_planner:
            raise ValueError("GuidedConfig.trajectory: expected 'none' for a model without a planner, which has no plan, got 'previous'")
        if temporal is None or temporal.attention == "global":
            return
        if self.published.data_order_neighbours and len(camera_names) != len(NUSCENES_RING):
            raise ValueError(
                f"PublishedQuirks.data_order_neighbours: expected the six cameras that its table is for, got {camera_names}; leave it off"
            )
        if temporal.ring != EXTRINSICS:
            unknown = [name for name in camera_names if name not in temporal.ring]
            if unknown:
                raise ValueError(
                    f"TemporalConfig.ring: expected the names of all cameras, got {temporal.ring} without {unknown}; name them once around "
                    "the car, or set ring='extrinsics'"
                )
