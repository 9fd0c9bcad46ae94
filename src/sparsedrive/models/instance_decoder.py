"""The decoder shared by detection, online map and Sparse4D: anchors in, refined instances out."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from sparsedrive.geometry import box_state
from sparsedrive.layers.attention import FeatureEmbedFusion
from sparsedrive.layers.depth_reweight import DepthReweight
from sparsedrive.layers.past_aggregation import View, Views, depth_of_boxes
from sparsedrive.models import coasting, image_history, memory_ops
from sparsedrive.models import denoising as denoising_ops
from sparsedrive.models.coasting import CoastingConfig
from sparsedrive.models.decoder_layer import DecoderLayer, LayerConfig
from sparsedrive.models.image_encoder import may_have_failed
from sparsedrive.models.memory_ops import Prior, Tick
from sparsedrive.models.track_ids import hand_over_ids
from sparsedrive.structures import (
    BoxTargets,
    CameraRig,
    DecoderStep,
    DenoisingConfig,
    DenoisingMemory,
    DenoisingPredictions,
    DenoisingQueries,
    ImageFeatures,
    ImageHistory,
    InstanceMemory,
    InstancePredictions,
    ParityOptions,
)


class InstanceKind(Protocol):
    """What a decoder must know about its instances: boxes (`box_head.BoxKind`) or polylines (`map_head.PolylineKind`)."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def state_dim(self) -> int:
        """Columns of a state."""

    def encoder(self, dim: int) -> nn.Module:
        """Module state [B,N,S] -> embedding [B,N,dim]."""

    def key_points(self, dim: int) -> tuple[nn.Module, int]:
        """Module (state, feature) -> points [B,N,P,3], and P."""

    def refine(self, dim: int) -> nn.Module:
        """Module (feature, state, embed, step_s) -> DecoderStep."""

    def transform(self, state: Tensor, dst_T_src: Tensor, elapsed_s: Tensor) -> Tensor:
        """States moved to another frame and time."""

    def default_anchors(self, num_anchors: int) -> Tensor:
        """Anchors [N, S] to start from where no trained or clustered ones are given."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """An instance decoder.

    `num_memory` instances survive to the next frame (0: none). `first_layer_attention`: whether single-frame layers let instances
    attend to each other. `learned_features`: whether initial features are trained or stay zero. `denoising` (boxes only): what the
    denoising queries it may be given while training are like; it adds no weights. `fixed_step_s`: velocities are displacements over this
    time, whatever really passed since the last frame (None: that time). `hands_over_ids` (boxes only): where a new instance stands for an
    object better than the remembered one does, it gets its track id (`track_ids.hand_over_ids`); as published, the object changes its id.
    `coasting` (boxes only, at test): a remembered instance that only failed cameras could see goes on unseen (`coasting.coast`); None
    decodes it from what there is, as published.
    """

    kind: InstanceKind
    num_anchors: int
    num_memory: int
    num_layers: int = 6
    num_single_frame_layers: int = 1
    first_layer_attention: bool
    learned_features: bool
    confidence_decay: float = 0.6
    layer: LayerConfig = field(default_factory=LayerConfig)
    denoising: DenoisingConfig | None = None
    fixed_step_s: float | None = None
    hands_over_ids: bool = False
    coasting: CoastingConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.num_memory < self.num_anchors:
            raise ValueError(
                f"DecoderConfig.num_memory: expected 0 <= num_memory < num_anchors={self.num_anchors}, got {self.num_memory}; "
                "keep room for new instances"
            )
        if not 1 <= self.num_single_frame_layers <= self.num_layers:
            raise ValueError(
                f"DecoderConfig.num_single_frame_layers: expected 1..num_layers={self.num_layers}, got {self.num_single_frame_layers}"
            )

        if self.num_memory and self.num_single_frame_layers == self.num_layers:
            raise ValueError(
                f"DecoderConfig.num_memory: expected 0 without temporal layers, got {self.num_memory}; "
                "raise num_layers, or the remembered instances would never be refined"
            )

        if self.layer.history is not None and (self.denoising is not None or self.kind.state_dim != box_state.STATE_DIM):
            raise ValueError("LayerConfig.history: expected None with denoising or polylines; only boxes without denoising look back")

        if self.denoising is not None and self.kind.state_dim != box_state.STATE_DIM:
            raise ValueError(f"DecoderConfig.denoising: expected None for {type(self.kind).__name__}, only boxes are denoised")
        if self.coasting is not None and self.kind.state_dim != box_state.STATE_DIM:
            raise ValueError(f"DecoderConfig.coasting: expected None for {type(self.kind).__name__}, only boxes move")
        if self.hands_over_ids and self.kind.state_dim != box_state.STATE_DIM:
            raise ValueError(f"DecoderConfig.hands_over_ids: expected False for {type(self.kind).__name__}, only boxes are tracked")

    def build(self) -> "InstanceDecoder":
        """The module."""
        return InstanceDecoder(self)


class InstanceDecoder(nn.Module):
    """Single-frame layers, the merge with the memory, temporal layers. Holds weights only; memory goes in and out as a value."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config, kind, dim = config, config.kind, config.layer.dim
        self.anchors = nn.Parameter(kind.default_anchors(config.num_anchors))
        self.initial_feature = nn.Parameter(torch.zeros(config.num_anchors, dim), requires_grad=config.learned_features)
        if config.learned_features:
            nn.init.xavier_uniform_(self.initial_feature)
        self.encoder = kind.encoder(dim)
        self.fusion = FeatureEmbedFusion(dim, config.layer.decoupled_attention, config.layer.dropout)
        self.depth_reweight = DepthReweight(dim) if config.layer.history else None

        def layer(temporal: bool) -> DecoderLayer:
            return DecoderLayer(
                config.layer,
                *kind.key_points(dim),
                kind.refine(dim),
                attends_memory=temporal,
                attends_instances=temporal or config.first_layer_attention,
            )

        num_single = config.num_single_frame_layers
        self.single_frame_layers = nn.ModuleList(layer(temporal=False) for _ in range(num_single))
        self.temporal_layers = nn.ModuleList(layer(temporal=True) for _ in range(config.num_layers - num_single))

    def forward(
        self,
        images: ImageFeatures,
        rig: CameraRig,
        memory: InstanceMemory,
        now: Tick,
        parity: ParityOptions,
        denoising: DenoisingQueries | None = None,
        true_boxes: BoxTargets | None = None,
        proposals: Tensor | None = None,
    ) -> tuple[InstancePredictions, InstanceMemory]:
        """One frame of B streams: predictions of every layer, and the memory for the next frame.

        `proposals` [B,K,S]: states to start from instead of the last K anchors.

        `denoising` queries are answered too, by the same layers; the instances do not know of them. `true_boxes`: what a decoder that
        looks back learns the depth of its features from.
        """
        config = self.config
        if config.fixed_step_s is not None:
            now = replace(now, step_s=torch.full_like(now.step_s, config.fixed_step_s))
        prior = memory_ops.align(memory, now, config.kind.transform, parity)
        views, history = self._look_back(images, rig, memory.history, now)
        steps, feature, embed = self._decode(images, rig, prior, now, views, proposals)
        if config.coasting is not None and config.num_memory and not self.training and may_have_failed(rig.available):
            state = config.kind.transform(memory.state, now.now_T_then, now.elapsed_s * config.coasting.speed)
            steps, feature, embed = self._coast(steps, feature, replace(prior, state=state), rig, now, config.coasting.keeps)
        track_id, next_id = memory_ops.assign_track_ids(prior, feature.shape[1], parity)
        if config.hands_over_ids:
            track_id = hand_over_ids(track_id, steps[-1].state.detach(), steps[-1].confidence.detach(), prior.confidence)
        true_fit = None if views is None or true_boxes is None else self._true_fit(views, true_boxes)
        predictions = InstancePredictions(steps=steps, feature=feature, embed=embed, track_id=track_id, true_fit=true_fit)
        remembered = memory_ops.remember(predictions, prior, next_id, num_memory=config.num_memory, decay=config.confidence_decay)
        remembered = replace(remembered, history=history)
        if denoising is None:
            return predictions, remembered
        denoised, denoising_memory = self._denoise(images, rig, prior, steps, denoising, memory.denoising, now, parity)
        return replace(predictions, denoising=denoised), replace(remembered, denoising=denoising_memory)

    def _look_back(
        self, images: ImageFeatures, rig: CameraRig, history: ImageHistory | None, now: Tick
    ) -> tuple[Views | None, ImageHistory | None]:
        """This frame and the remembered ones as views, and the history for the next frame."""
        if self.depth_reweight is None:
            return None, None
        view = image_history.present(images, rig, now)
        before: tuple[View, ...] = ()
        if history is not None:
            history = image_history.advance(history, now)
            before = image_history.past(history, images.level_hw)
            history = image_history.remember(history, images, view)
        return Views(now=view, past=before, encoder=self.encoder, depth=self.depth_reweight), history

    def _true_fit(self, views: Views, boxes: BoxTargets) -> Tensor:
        """Of every box; arbitrary where it only pads."""
        state = torch.where(boxes.valid[..., None], box_state.encode(boxes.box), 1.0).nan_to_num().to(self.anchors.dtype)
        layer = self.single_frame_layers[0]
        assert isinstance(layer, DecoderLayer)
        return depth_of_boxes(layer.aggregation.key_points, state, views.now, views.depth, self.config.layer.num_groups)

    def _decode(
        self, images: ImageFeatures, rig: CameraRig, prior: Prior, now: Tick, views: Views | None, proposals: Tensor | None
    ) -> tuple[list, Tensor, Tensor]:
        batch, num_memory = now.warm.shape[0], self.config.num_memory
        feature = self.initial_feature.expand(batch, -1, -1)
        state = self.anchors.expand(batch, -1, -1)
        if proposals is not None:
            state = torch.cat([state[:, : state.shape[1] - proposals.shape[1]], proposals.to(state.dtype)], 1)
        steps = []
        for layer in self.single_frame_layers:
            embed = self.encoder(state)
            feature, step = layer(feature, state, embed, None, self.fusion, images, rig, now.step_s, None, views)
            steps.append(step)
            state = step.state
        if num_memory:
            feature, state = memory_ops.merge(feature, state, steps[-1].class_logits, prior, now)
        embed = self.encoder(state)
        # Memory features stay as they were; their positions follow the refined boxes from the second temporal layer on.
        memory_embed = self.encoder(prior.state)
        for layer in self.temporal_layers:
            memory = (prior.feature, memory_embed, now.attends)
            feature, step = layer(feature, state, embed, memory, self.fusion, images, rig, now.step_s, None, views)
            steps.append(step)
            state = step.state
            embed = self.encoder(state)
            memory_embed = embed[:, :num_memory]
        return steps, feature, embed

    def _coast(self, steps: list, feature: Tensor, prior: Prior, rig: CameraRig, now: Tick, keeps: float) -> tuple[list, Tensor, Tensor]:
        layer = self.temporal_layers[-1]
        assert isinstance(layer, DecoderLayer)
        known = layer.refine(prior.feature, prior.state, self.encoder(prior.state), now.step_s)
        last, feature = coasting.coast(steps[-1], feature, replace(known, state=prior.state), prior, rig, keeps)
        return [*steps[:-1], last], feature, self.encoder(last.state)

    def _denoise(
        self,
        images: ImageFeatures,
        rig: CameraRig,
        prior: Prior,
        instance_steps: list[DecoderStep],
        queries: DenoisingQueries,
        memory: DenoisingMemory | None,
        now: Tick,
        parity: ParityOptions,
    ) -> tuple[DenoisingPredictions, DenoisingMemory]:
        """As `_decode`, for queries that see the instances' memory and their own group."""
        config = denoising_ops.check(queries, self.config.denoising)
        state, targets = queries.state, queries.targets
        feature = state.new_zeros(*state.shape[:2], self.config.layer.dim)
        visible = denoising_ops.visible(targets.valid, config.num_groups, parity)
        steps, wanted = [], []
        memory_state, num_single = prior.state, len(self.single_frame_layers)
        for index, layer in enumerate([*self.single_frame_layers, *self.temporal_layers]):
            temporal = index >= num_single
            if index == num_single and memory is not None:
                transform = self.config.kind.transform
                feature, state, targets = denoising_ops.merge(feature, state, targets, memory, now, transform, config.num_groups)
                visible = denoising_ops.visible(targets.valid, config.num_groups, parity)
            seen = (prior.feature, self.encoder(memory_state), now.attends) if temporal else None
            feature, step = layer(feature, state, self.encoder(state), seen, self.fusion, images, rig, now.step_s, visible)
            steps.append(step)
            wanted.append(targets)
            state = step.state
            memory_state = instance_steps[index].state[:, : self.config.num_memory] if temporal else memory_state
        kept = denoising_ops.remember(feature, state, targets, queries.propagated, config)
        return DenoisingPredictions(steps=steps, targets=wanted), kept

    def initial_memory(
        self, batch_size: int, device: torch.device | str = "cpu", *, denoising: bool = False, num_pixels: int = 0
    ) -> InstanceMemory:
        """Memory of streams that have seen nothing; with `denoising`, for decoding with denoising queries.

        `num_pixels`: of all levels of a camera's image features, where the decoder looks at past ones.
        """
        num_memory, dim = self.config.num_memory, self.config.layer.dim
        dtype, state_dim = self.anchors.dtype, self.config.kind.state_dim
        kept = None
        if denoising and self.config.denoising is not None:
            kept = denoising_ops.initial(batch_size, self.config.denoising, dim, state_dim, dtype, device)
        history, looks_back = None, self.config.layer.history
        if looks_back is not None and looks_back.num_past:
            history = image_history.initial(batch_size, looks_back, num_pixels, dim, dtype, device)
        return InstanceMemory(
            feature=torch.zeros(batch_size, num_memory, dim, dtype=dtype, device=device),
            state=torch.zeros(batch_size, num_memory, state_dim, dtype=dtype, device=device),
            confidence=torch.zeros(batch_size, num_memory, dtype=dtype, device=device),
            track_id=torch.full((batch_size, num_memory), -1, dtype=torch.int64, device=device),
            next_id=torch.zeros(batch_size, dtype=torch.int64, device=device),
            denoising=kept,
            history=history,
        )
