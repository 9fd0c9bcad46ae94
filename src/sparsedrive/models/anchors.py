"""Clustered anchors into a model that is going to be trained. (Trained weights bring their own.)"""

from dataclasses import fields

import torch
from torch import Tensor

from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.motion_planner import PlannerConfig
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.structures.anchors import Anchors, AnchorSizes


def anchor_sizes(config: SparseDriveConfig) -> AnchorSizes:
    """How many anchors a model takes. What it does not have is given the published sizes, so that both stages share one file."""
    planner = config.planner or PlannerConfig()
    lines = config.map.kind if config.map is not None else PolylineKind()
    assert isinstance(lines, PolylineKind)
    return AnchorSizes(
        detection=config.detection.num_anchors,
        map_lines=config.map.num_anchors if config.map is not None else AnchorSizes.map_lines,
        map_vertices=lines.num_points,
        motion_modes=planner.motion_modes,
        motion_steps=planner.motion_steps,
        plan_modes=planner.plan_modes,
        plan_steps=planner.plan_steps,
    )


def set_anchors(model: SparseDrive, anchors: Anchors) -> None:
    """Overwrite the model's anchors in place; those of map lines, forecasts and plans only where it has such a part.

    ValueError lists every size that differs from the model's; nothing is changed then.
    """
    planner, wanted = model.planner, anchor_sizes(model.config)
    absent = ("map",) * (model.map is None) + ("motion", "plan") * (planner is None)
    names = [field.name for field in fields(AnchorSizes) if not field.name.startswith(absent)]
    wrong = [name for name in names if getattr(anchors.sizes, name) != getattr(wanted, name)]
    if wrong:
        listed = ", ".join(f"{name} {getattr(anchors.sizes, name)} instead of {getattr(wanted, name)}" for name in wrong)
        raise ValueError(
            f"anchors do not fit model {model.config.name!r}: {listed}; make them with `sparsedrive anchors --preset {model.config.name}`"
        )
    pairs: list[tuple[Tensor, Tensor]] = [(model.detection.anchors, torch.from_numpy(anchors.detection))]
    if model.map is not None:
        pairs.append((model.map.anchors, torch.from_numpy(anchors.map_lines_m).flatten(1)))
    if planner is not None:
        if len(anchors.motion_m) != len(planner.motion_anchors_m):
            raise ValueError(
                f"anchors do not fit model {model.config.name!r}: forecasts of {len(anchors.motion_m)} classes instead of "
                f"{len(planner.motion_anchors_m)}; the detection classes are fixed, set PlannerConfig.num_classes to match"
            )
        pairs.append((planner.motion_anchors_m, torch.from_numpy(anchors.motion_m)))
        pairs.append((planner.plan_anchors_m, torch.from_numpy(anchors.plan_m)))
    with torch.no_grad():
        for target, value in pairs:
            target.copy_(value)
