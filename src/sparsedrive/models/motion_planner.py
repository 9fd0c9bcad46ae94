"""Agent forecasts and ego plan together: the ego vehicle is one more instance among the detected ones.

Source: parallel motion planner of SparseDrive (arXiv:2405.19620, section 3.3).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.geometry import box_state
from sparsedrive.layers.attention import Attention, FeatureEmbedFusion
from sparsedrive.layers.embed import sine_embedding
from sparsedrive.layers.ffn import AsymmetricFFN
from sparsedrive.layers.mlp import linear_relu, linear_relu_norm
from sparsedrive.layers.refine import prior_bias
from sparsedrive.models import motion_anchors, motion_memory
from sparsedrive.models.memory_ops import Tick
from sparsedrive.models.motion_memory import History
from sparsedrive.structures import (
    EGO_FORWARD_SPEED,
    EGO_STATUS_DIM,
    Command,
    ImageFeatures,
    InstancePredictions,
    MotionMemory,
    MotionPredictions,
    PlanPredictions,
    take_rows,
)

EGO_YAW_RATE = 5  # column of the ego status
EGO_SIZE_LWH_M = (4.08, 1.73, 1.56)
EGO_CENTRE_M = (0.0, 0.5, -1.84 + 1.56 / 2)


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    """Motion planner. `num_agents`/`num_elements`: the most confident detections and map elements everyone attends to.

    `ego_velocity`: what the planner is told of the vehicle's motion: the speed it "predicted" itself in the last frame, as published,
    the mean velocity of the poses since then, "odometry", or all that is measured now, "status" (`Frame.ego_status`: velocity, turn rates,
    accelerations, steering angle). A model that is told may not be compared with one that only sees.
    `plan_paths`: what the last layer says of the plan is the "whole" of every step, as published, or what it "departs" from going on
    with the velocity and turn rate told, which a model need not learn then.
    """

    dim: int = 256
    num_heads: int = 8
    ffn_dim: int = 512
    num_layers: int = 3
    decoupled_attention: bool = True
    dropout: float = 0.1
    num_classes: int = 10
    history_length: int = 4
    min_history_confidence: float = 0.2
    num_agents: int = 50
    num_elements: int = 10
    motion_modes: int = 6
    motion_steps: int = 12
    plan_modes: int = 6
    plan_steps: int = 6
    ego_velocity: Literal["predicted", "odometry", "status"] = "predicted"
    plan_paths: Literal["whole", "departs"] = "whole"

    def __post_init__(self) -> None:
        if self.ego_velocity not in ("predicted", "odometry", "status"):
            raise ValueError(f"PlannerConfig.ego_velocity: expected 'predicted', 'odometry' or 'status', got {self.ego_velocity!r}")
        if self.plan_paths not in ("whole", "departs"):
            raise ValueError(f"PlannerConfig.plan_paths: expected 'whole' or 'departs', got {self.plan_paths!r}")
        if self.plan_paths == "departs" and self.ego_velocity == "predicted":
            raise ValueError(
                "PlannerConfig.plan_paths: expected 'whole' with ego_velocity='predicted'; 'departs' needs a motion that is told"
            )

    def build(self) -> "MotionPlanner":
        """The module."""
        return MotionPlanner(self)


class PlannerLayer(nn.Module):
    """Own history, other agents, map, feed-forward."""

    def __init__(self, config: PlannerConfig):
        super().__init__()
        dim, wide = config.dim, 2 * config.dim if config.decoupled_attention else config.dim
        self.history_attention = Attention(wide, config.num_heads, config.dropout)
        self.agent_attention = Attention(wide, config.num_heads, config.dropout)
        self.agent_norm = nn.LayerNorm(dim)
        self.map_attention = Attention(dim, config.num_heads, config.dropout)
        self.map_norm = nn.LayerNorm(dim)
        self.ffn = AsymmetricFFN(dim, config.ffn_dim, dim, config.dropout)
        self.ffn_norm = nn.LayerNorm(dim)
        self.map_fusion = FeatureEmbedFusion(dim, decoupled=False, dropout=config.dropout)

    def forward(
        self, feature: Tensor, embed: Tensor, history: tuple[Tensor, Tensor, Tensor], agents: tuple[Tensor, Tensor],
        elements: tuple[Tensor, Tensor], fusion: FeatureEmbedFusion,
    ) -> Tensor:  # fmt: skip
        """feature, embed [B,N1,D]; history (feature, embed [B*N1,H,D], allowed [B*N1,H]); agents and elements (feature, embed)."""
        shape = feature.shape
        own = fusion.attend(self.history_attention, feature.reshape(-1, 1, shape[2]), embed.reshape(-1, 1, shape[2]), *history)
        feature = own.reshape(shape)
        feature = self.agent_norm(fusion.attend(self.agent_attention, feature, embed, *agents))
        feature = self.map_norm(self.map_fusion.attend(self.map_attention, feature, embed, *elements))
        return self.ffn_norm(self.ffn(feature))


class EgoFeature(nn.Module):
    """The ego vehicle's feature: the front camera's coarsest feature map, convolved and averaged."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(dim)

    def forward(self, front: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D"]:
        """Pooled feature. There is no activation between the two convolutions, as published."""
        hidden = self.norm1(self.conv1(front))
        return self.norm2(self.conv2(hidden)).relu().mean((-2, -1))


class StatusEncoder(nn.Module):
    """What the measured ego status adds to the ego vehicle's feature: nothing before training."""

    def __init__(self, dim: int):
        super().__init__()
        self.hidden = nn.Linear(EGO_STATUS_DIM, dim)
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, status: Float[Tensor, "B 10"]) -> Float[Tensor, "B D"]:
        """Of `Frame.ego_status`, 0 where not known."""
        return self.output(self.hidden(status).relu())


class MotionPlanner(nn.Module):
    """Forecasts for all detection instances and a plan for the ego vehicle."""

    motion_anchors_m: Tensor
    plan_anchors_m: Tensor
    ego_state: Tensor

    def __init__(self, config: PlannerConfig):
        super().__init__()
        self.config, dim = config, config.dim
        self.register_buffer(
            "motion_anchors_m", motion_anchors.default_motion(config.num_classes, config.motion_modes, config.motion_steps)
        )
        self.register_buffer("plan_anchors_m", motion_anchors.default_plan(len(Command), config.plan_modes, config.plan_steps))
        ego = [*EGO_CENTRE_M, *(math.log(size) for size in EGO_SIZE_LWH_M), 1.0, 0.0, 0.0, 0.0, 0.0]
        self.register_buffer("ego_state", torch.tensor([ego]))
        self.ego_feature = EgoFeature(dim)
        self.status_encoder = StatusEncoder(dim) if config.ego_velocity == "status" else None
        self.motion_anchor_encoder = nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=1), nn.Linear(dim, dim))
        self.plan_anchor_encoder = nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=1), nn.Linear(dim, dim))
        self.fusion = FeatureEmbedFusion(dim, config.decoupled_attention, config.dropout)
        self.layers = nn.ModuleList(PlannerLayer(config) for _ in range(config.num_layers))
        self.motion_class = _mode_classifier(dim)
        self.motion_offsets = linear_relu(dim, 2 * config.motion_steps)
        self.plan_class = _mode_classifier(dim)
        self.plan_offsets = linear_relu(dim, 2 * config.plan_steps)
        self.ego_status = linear_relu(dim, EGO_STATUS_DIM)

    def forward(
        self, detection: InstancePredictions, elements: InstancePredictions, images: ImageFeatures, box_encoder: nn.Module,
        memory: MotionMemory, now: Tick, measured: Float[Tensor, "B 10"],
    ) -> tuple[MotionPredictions, PlanPredictions, MotionMemory]:  # fmt: skip
        """One frame of B streams. `box_encoder` is the detection decoder's: agents, history and ego share its embedding. `measured`: the
        ego status, read only where `PlannerConfig.ego_velocity` is "status"."""
        ego_feature = self.ego_feature(images.level(-1)[:, 0])
        if self.status_encoder is not None:
            ego_feature = ego_feature + self.status_encoder(measured.to(ego_feature.dtype))
        ego_state = self._ego_state(memory, now, measured)
        history = motion_memory.recall(memory, detection, ego_feature, ego_state, now, min_confidence=self.config.min_history_confidence)
        feature = torch.cat([detection.feature, ego_feature[:, None]], dim=1)
        ego_embed = box_encoder(ego_state)
        embed = torch.cat([detection.embed, ego_embed[:, None]], dim=1)
        feature = self._interact(feature, embed, history, box_encoder, detection, elements)
        motion, plan = self._predict(feature, embed, detection, history)
        if self.config.plan_paths == "departs":
            plan = replace(plan, step_offsets_m=plan.step_offsets_m + self._going_on_m(ego_state, now, measured)[:, None, None])
        return motion, plan, motion_memory.remember(history, detection, feature[:, -1], plan.ego_status)

    def _going_on_m(self, ego_state: Tensor, now: Tick, measured: Tensor) -> Float[Tensor, "B T 2"]:
        velocity_mps, steps = ego_state[:, box_state.VX : box_state.VZ], self.config.plan_steps
        if self.config.ego_velocity == "status":
            rate = measured[:, EGO_YAW_RATE].to(velocity_mps.dtype)
            return motion_anchors.going_on(velocity_mps, rate, torch.zeros_like(rate), steps)
        # The velocity is the chord of the last step, half a step old.
        return motion_anchors.going_on(velocity_mps, turn_rate_radps(now), now.step_s / 2, steps)

    def _ego_state(self, memory: MotionMemory, now: Tick, measured: Tensor) -> Float[Tensor, "B 11"]:
        """The ego vehicle as a box, with its velocity (`PlannerConfig.ego_velocity`); unless measured, at rest where there is no last
        frame."""
        if self.config.ego_velocity == "status":
            # ego frame: x right, y forward
            velocity = torch.stack([-measured[:, EGO_FORWARD_SPEED + 1], measured[:, EGO_FORWARD_SPEED]], dim=1).to(self.ego_state.dtype)
        else:
            if self.config.ego_velocity == "odometry":
                velocity = -now.now_T_then[:, :2, 3] / now.step_s[:, None]  # where the last frame's origin lies now is where it came from
            else:
                forward = memory.ego_status[:, EGO_FORWARD_SPEED]
                velocity = torch.stack([torch.zeros_like(forward), forward], dim=1)
            velocity = torch.where(now.warm[:, None], velocity, 0.0)
        state = self.ego_state.expand(velocity.shape[0], -1)
        return torch.cat([state[:, : box_state.VX], velocity, state[:, box_state.VZ :]], dim=1)

    def _interact(
        self, feature: Tensor, embed: Tensor, history: History, box_encoder: nn.Module, detection: InstancePredictions,
        elements: InstancePredictions,
    ) -> Tensor:  # fmt: skip
        past = (history.feature.flatten(0, 1), box_encoder(history.state).flatten(0, 1), history.allowed().flatten(0, 1))
        agent_rows = _most_confident(detection, self.config.num_agents)
        agent_embed = torch.cat([take_rows(detection.embed, agent_rows), embed[:, -1:]], dim=1)
        # The attended agents keep their features from before the first layer, the ego vehicle too (as published).
        agents = (torch.cat([take_rows(detection.feature, agent_rows), feature[:, -1:]], dim=1), agent_embed)
        element_rows = _most_confident(elements, self.config.num_elements)
        lines = (take_rows(elements.feature, element_rows), take_rows(elements.embed, element_rows))
        for layer in self.layers:
            feature = layer(feature, embed, past, agents, lines, self.fusion)
        return feature

    def _predict(
        self, feature: Tensor, embed: Tensor, detection: InstancePredictions, history: History
    ) -> tuple[MotionPredictions, PlanPredictions]:
        positioned = feature + embed
        motion_query = positioned[:, :-1, None] + self.motion_anchor_encoder(self._motion_endpoints(detection))
        plan_endpoints = sine_embedding(self.plan_anchors_m[:, :, -1], feature.shape[-1])
        plan_query = positioned[:, -1, None, None] + self.plan_anchor_encoder(plan_endpoints)
        motion = MotionPredictions(
            mode_logits=self.motion_class(motion_query)[..., 0],
            step_offsets_m=self.motion_offsets(motion_query).unflatten(-1, (-1, 2)),
            history_state=history.state[:, :-1],
            period=history.period[:, :-1],
        )
        plan = PlanPredictions(
            mode_logits=self.plan_class(plan_query)[..., 0],
            step_offsets_m=self.plan_offsets(plan_query).unflatten(-1, (-1, 2)),
            ego_status=self.ego_status(positioned[:, -1]),
            history_state=history.state[:, -1],
            period=history.period[:, -1],
        )
        return motion, plan

    def _motion_endpoints(self, detection: InstancePredictions) -> Float[Tensor, "B N M D"]:
        """Sine embedding of where each class's anchor trajectories end, turned to the instance's heading (not moved to it)."""
        endpoints_m = self.motion_anchors_m[detection.last.class_logits.argmax(-1), :, -1]
        yaw_rad = box_state.yaw_rad(detection.last.state.detach())
        cos, sin = yaw_rad.cos()[..., None], yaw_rad.sin()[..., None]
        x_m, y_m = endpoints_m.unbind(-1)
        turned = torch.stack([x_m * cos - y_m * sin, x_m * sin + y_m * cos], dim=-1)
        return sine_embedding(turned, self.config.dim)


def turn_rate_radps(now: Tick) -> Float[Tensor, "B"]:
    """Yaw rate of the ego vehicle since the last frame, counter-clockwise; 0 for a cold stream."""
    turned_rad = torch.atan2(now.now_T_then[:, 0, 1], now.now_T_then[:, 0, 0])  # the last frame's axes, seen from now, are turned back
    return torch.where(now.warm, turned_rad / now.step_s, 0.0)


def _mode_classifier(dim: int) -> nn.Sequential:
    output = nn.Linear(dim, 1)
    nn.init.constant_(output.bias, prior_bias())
    return nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=2), output)


def _most_confident(instances: InstancePredictions, count: int) -> Tensor:
    confidence = instances.last.class_logits.sigmoid().amax(-1)
    return confidence.topk(min(count, confidence.shape[1]), dim=1).indices
