"""SparseDrive: images of one instant in, everything it knows about the scene out.

Source: SparseDrive (arXiv:2405.19620), public code swc-17/SparseDrive.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.models import memory_ops, motion_memory
from sparsedrive.models.completion.cascade import CompletionCascade
from sparsedrive.models.completion.config import CompletionConfig
from sparsedrive.models.completion.memory import remember_plan
from sparsedrive.models.depth_head import DepthHeadConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig, with_confidence
from sparsedrive.models.instance_decoder import DecoderConfig
from sparsedrive.models.motion_planner import PlannerConfig
from sparsedrive.models.object_head import ObjectHeadConfig
from sparsedrive.models.proposals import propose
from sparsedrive.structures import (
    NUSCENES_CAMERAS,
    BoxTargets,
    CameraRig,
    CompletionMemory,
    DenoisingQueries,
    Frame,
    ImageFeatures,
    ObjectMap,
    ParityOptions,
    Predictions,
    StreamClock,
    StreamState,
    check_shapes,
)


@dataclass(frozen=True, kw_only=True)
class SparseDriveConfig:
    """The whole model. `planner=None` is stage 1 (detection, tracking and map only), `map=None` too is Sparse4D (detection and tracking).

    `depth=None`: no auxiliary depth. `objects`: maps of what every pixel shows, to learn faster from random weights, and to start from.
    `tracks=False`: boxes without track ids, where a query may stand for several classes.
    `mask_aware`: the sampling weights of failed cameras go to the others (no weights of its own; always so with a completion).
    `completion`: features for cameras that fail; None leaves them blank.
    `no_duplicates`: of two decoded boxes in one place the better one stays; the published models leave both.
    `max_gap_s`: a memory older than this is forgotten. `default_step_s`: the time step assumed where none is known.
    The first of `camera_names` must look forward: the ego feature comes from it.
    """

    name: str
    describe: str
    public_weights: bool
    image_wh_px: tuple[int, int]
    camera_names: tuple[str, ...] = NUSCENES_CAMERAS
    encoder: ImageEncoderConfig
    depth: DepthHeadConfig | None = field(default_factory=DepthHeadConfig)
    objects: ObjectHeadConfig | None = None
    detection: DecoderConfig
    map: DecoderConfig | None
    planner: PlannerConfig | None
    tracks: bool = True
    mask_aware: bool = False
    completion: CompletionConfig | None = None
    no_duplicates: bool = False
    max_gap_s: float = 2.0
    default_step_s: float = 0.5
    parity: ParityOptions = field(default_factory=ParityOptions)

    def __post_init__(self) -> None:
        width, height = self.image_wh_px
        if width % 32 or height % 32:
            raise ValueError(f"SparseDriveConfig.image_wh_px: expected multiples of 32, got {self.image_wh_px}; round to the next one")
        if self.planner is not None and self.map is None:
            raise ValueError("SparseDriveConfig.planner: expected None without a map, which agents and plan look at; give it a map")
        if self.planner is not None and not self.tracks:
            raise ValueError("SparseDriveConfig.tracks: expected True with a planner, whose history is that of tracks")
        heads = [self.detection] if self.map is None else [self.detection, self.map]
        dims = {self.encoder.neck.out_channels, *(head.layer.dim for head in heads)} | ({self.planner.dim} if self.planner else set())
        if len(dims) > 1:
            raise ValueError(f"SparseDriveConfig: expected one feature width for encoder, detection, map and planner, got {sorted(dims)}")
        levels = self.encoder.neck.num_levels
        for head in heads:
            if head.layer.num_levels != levels:
                raise ValueError(
                    f"SparseDriveConfig: expected LayerConfig.num_levels={levels} as the encoder has, got {head.layer.num_levels}; "
                    "change one of them"
                )
        if self.objects is not None and self.objects.num_proposals >= self.detection.num_anchors:
            raise ValueError(
                f"ObjectHeadConfig.num_proposals: expected fewer than num_anchors={self.detection.num_anchors}, whose places they take, "
                f"got {self.objects.num_proposals}"
            )
        history = self.detection.layer.history
        if history is not None and history.num_cameras != len(self.camera_names):
            raise ValueError(
                f"HistoryConfig.num_cameras: expected {len(self.camera_names)} as SparseDriveConfig.camera_names has, "
                f"got {history.num_cameras}; its sampling weights are those of each camera"
            )
        if history is not None and (self.mask_aware or self.completion is not None):
            raise ValueError(
                "SparseDriveConfig: expected mask_aware=False and completion=None with LayerConfig.history, which samples by itself"
            )
        if self.completion is not None:
            self.completion.check(self.encoder.neck.out_channels, levels, self.camera_names, has_planner=self.planner is not None)
        classes = self.detection.kind.num_classes
        if self.planner is not None and self.planner.num_classes != classes:
            raise ValueError(f"PlannerConfig.num_classes: expected {classes} as the detection has, got {self.planner.num_classes}")

    @property
    def depth_strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each depth map that is trained on, finest first; none without a depth head."""
        finest = 4 * 2**self.encoder.neck.start_level
        return tuple(finest * 2**level for level in range(self.depth.num_levels)) if self.depth else ()

    def build(self) -> "SparseDrive":
        """The module, randomly initialised."""
        return SparseDrive(self)


class SparseDrive(nn.Module):
    """`predictions, state = model(frame, state)`. Weights only: the state is a value."""

    def __init__(self, config: SparseDriveConfig):
        super().__init__()
        self.config = config
        self.image_encoder = config.encoder.build()
        self.depth_head = config.depth.build(config.encoder.neck.out_channels) if config.depth else None
        self.object_head = config.objects.build(config.encoder.neck.out_channels) if config.objects else None
        self.detection = config.detection.build()
        self.map = config.map.build() if config.map else None
        self.planner = config.planner.build() if config.planner else None
        neck = config.encoder.neck
        self.completion = (
            CompletionCascade(config.completion, neck.out_channels, neck.num_levels, config.camera_names) if config.completion else None
        )

    def initial_state(self, batch_size: int, device: torch.device | str | None = None, *, denoising: bool = False) -> StreamState:
        """State of streams that have seen nothing, on the model's device unless given; `denoising`: to be trained with such queries."""
        weight = self.detection.anchors
        device = weight.device if device is None else device
        clock = StreamClock(
            global_T_ego=torch.eye(4, dtype=torch.float64, device=device).repeat(batch_size, 1, 1),
            time_s=torch.zeros(batch_size, dtype=torch.float64, device=device),
            sequence_id=torch.zeros(batch_size, dtype=torch.int64, device=device),
            started=torch.zeros(batch_size, dtype=torch.bool, device=device),
        )
        num_pixels = self.config.encoder.num_pixels(self.config.image_wh_px)
        motion = None
        if self.config.planner is not None:
            length, dim = self.config.planner.history_length, self.config.planner.dim
            motion = motion_memory.initial(batch_size, self.config.detection.num_anchors, length, dim, weight.dtype, device)
        return StreamState(
            clock=clock,
            detection=self.detection.initial_memory(batch_size, device, denoising=denoising, num_pixels=num_pixels),
            map=None if self.map is None else self.map.initial_memory(batch_size, device),
            motion=motion,
            completion=self._initial_completion(batch_size, num_pixels, weight.dtype, device),
        )

    def _initial_completion(
        self, batch_size: int, num_pixels: int, dtype: torch.dtype, device: torch.device | str
    ) -> CompletionMemory | None:
        if self.completion is None:
            return None
        config = self.config
        plan_steps = 0 if config.planner is None else config.planner.plan_steps
        dim = config.encoder.neck.out_channels
        return self.completion.initial_memory(batch_size, len(config.camera_names), num_pixels, dim, plan_steps, dtype, device)

    def forward(
        self,
        frame: Frame,
        state: StreamState | None = None,
        *,
        denoising: DenoisingQueries | None = None,
        true_boxes: BoxTargets | None = None,
        true_way_m: Float[Tensor, "B T 2"] | None = None,
    ) -> tuple[Predictions, StreamState]:
        """One frame of B streams. Without a state every stream starts cold; a stream whose memory is too old, or from another
        sequence, starts cold by itself (`memory_ops.tick`). `denoising`: extra detection queries while training
        (`losses.denoising.make_queries`); nothing else changes by them. `true_boxes`: needed to train Sparse4D v1, unused by all others.
        `true_way_m`: where the car really went, read only where `GuidedConfig.trajectory` is "gt".

        Raises ValueError where the frame does not fit the model (`Frame` shapes, cameras, picture size).
        """
        self.check(frame)
        config = self.config
        state = self.initial_state(frame.batch_size) if state is None else state
        now = memory_ops.tick(state.clock, frame, max_gap_s=config.max_gap_s, default_step_s=config.default_step_s, parity=config.parity)
        images = self.image_encoder(frame.images, frame.rig.available)
        completion = completion_memory = None
        if self.completion is not None and state.completion is not None:
            images, completion_memory, completion = self.completion(images, frame.rig, state.completion, now, true_way_m)
        elif config.mask_aware:
            images = with_confidence(images, frame.rig.available)
        objects, proposals = self._objects(images, frame.rig)
        detection, detection_memory = self.detection(
            images, frame.rig, state.detection, now, config.parity, denoising, true_boxes, proposals
        )
        elements = map_memory = motion = plan = motion_state = None
        if self.map is not None:
            elements, map_memory = self.map(images, frame.rig, state.map, now, config.parity)
        if self.planner is not None:
            motion, plan, motion_state = self.planner(
                detection, elements, images, self.detection.encoder, state.motion, now, frame.ego_status
            )
            if completion_memory is not None:
                completion_memory = remember_plan(completion_memory, plan, frame.command)
        # Dense depth supervises the image features; nothing reads it at test time.
        depth_m = self.depth_head(images, frame.rig.focal_px) if self.training and self.depth_head is not None else None
        predictions = Predictions(
            detection=detection, map=elements, motion=motion, plan=plan, depth_m=depth_m, completion=completion, objects=objects
        )
        clock = StreamClock(
            global_T_ego=frame.global_T_ego,
            time_s=frame.time_s,
            sequence_id=frame.sequence_id,
            started=torch.ones_like(now.warm),
        )
        return predictions, StreamState(
            clock=clock, detection=detection_memory, map=map_memory, motion=motion_state, completion=completion_memory
        )

    def _objects(self, images: ImageFeatures, rig: CameraRig) -> tuple[list[ObjectMap] | None, Tensor | None]:
        """The object maps while training, and the boxes seen in them where instances start from such."""
        if self.object_head is None or self.config.objects is None:
            return None, None
        count = self.config.objects.num_proposals
        if not self.training and not count:
            return None, None
        maps = self.object_head(images, rig.available)
        return maps if self.training else None, propose(maps[0], rig, count) if count else None

    def check(self, frame: Frame) -> None:
        """Shapes and cameras of a frame against the model: static facts only, so that it costs nothing and traces."""
        config, (width, height) = self.config, self.config.image_wh_px
        if not isinstance(frame.global_T_ego, Tensor):
            raise ValueError(
                f"Frame.global_T_ego: expected poses [B, 4, 4], got {type(frame.global_T_ego).__name__}; what a stream remembers is moved "
                "with them, so give odometry, or the identity for a car that stands still"
            )
        if frame.rig.names != config.camera_names:
            missing = [name for name in config.camera_names if name not in frame.rig.names]
            raise ValueError(
                f"Frame.rig.names: expected {config.camera_names} in this order, got {frame.rig.names}"
                + (f"; missing {missing}: give a black image and rig.available=False for a camera that failed" if missing else "")
            )
        expected = (frame.batch_size, len(config.camera_names), 3, height, width)
        if tuple(frame.images.shape) != expected:
            raise ValueError(
                f"Frame.images: expected [B, C, 3, H, W] = {list(expected)}, got {list(frame.images.shape)}; resize with ImagePreprocess"
            )
        check_shapes(frame)
