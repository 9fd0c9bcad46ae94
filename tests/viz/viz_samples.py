"""A small scene with known geometry, and cameras looking at it."""

import numpy as np
import torch

from sparsedrive.structures import Detections, Forecasts, MapElements, Plan, Scene

FOCAL_PX, WIDTH_PX, HEIGHT_PX = 400.0, 640, 360
NAMES = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
YAW_DEG = (0.0, -55.0, 55.0, 180.0, 110.0, -110.0)


def look_along(yaw_deg: float = 0.0) -> torch.Tensor:
    """`image_T_ego` of a camera at the ego origin, looking along +y turned by `yaw_deg` to the left."""
    yaw = np.radians(yaw_deg)
    right = np.array([np.cos(yaw), np.sin(yaw), 0])
    forward = np.array([-np.sin(yaw), np.cos(yaw), 0])
    camera_R_ego = np.stack([right, [0, 0, -1], forward])
    intrinsic = np.array([[FOCAL_PX, 0, WIDTH_PX / 2], [0, FOCAL_PX, HEIGHT_PX / 2], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = intrinsic @ camera_R_ego
    return torch.from_numpy(matrix)


def rig() -> torch.Tensor:
    """`image_T_ego` [6, 4, 4] of the nuScenes camera names."""
    return torch.stack([look_along(yaw) for yaw in YAW_DEG])


def detections(rows: list[tuple[list[float], int, float, int]]) -> Detections:
    """Rows of (box of 10 numbers, label, score, track id)."""
    score = torch.tensor([[row[2] for row in rows]], dtype=torch.float32)
    return Detections(
        box=torch.tensor([[row[0] for row in rows]], dtype=torch.float32).reshape(1, -1, 10),
        score=score,
        class_score=score,
        label=torch.tensor([[row[1] for row in rows]], dtype=torch.long),
        track_id=torch.tensor([[row[3] for row in rows]], dtype=torch.long),
        query_index=torch.arange(len(rows))[None],
        valid=torch.ones(1, len(rows), dtype=torch.bool),
    )


def box(x: float, y: float, *, yaw: float = np.pi / 2, z: float = -1.0, size=(4.5, 1.9, 1.6), velocity=(0.0, 0.0)) -> list[float]:
    """A car-sized box, by default heading along +y (ego forward)."""
    return [x, y, z, *size, yaw, *velocity, 0.0]


def lines(rows: list[tuple[list[list[float]], int, float]]) -> MapElements:
    """Rows of (points, label, score)."""
    return MapElements(
        points_m=torch.tensor([[row[0] for row in rows]]).reshape(1, len(rows), len(rows[0][0]) if rows else 2, 2),
        score=torch.tensor([[row[2] for row in rows]], dtype=torch.float32),
        label=torch.tensor([[row[1] for row in rows]], dtype=torch.long),
        valid=torch.ones(1, len(rows), dtype=torch.bool),
    )


def plan(speed_mps: float = 6.0, steps: int = 6) -> Plan:
    """Straight on, for every command and mode; the last mode collides."""
    ahead = speed_mps * 0.5 * torch.arange(1, steps + 1)
    path = torch.stack([torch.zeros(steps), ahead], -1)
    return Plan(
        trajectory_m=path[None],
        all_trajectories_m=path.expand(1, 3, 6, steps, 2) + torch.arange(6)[:, None, None] * torch.tensor([0.3, 0.0]),
        mode_score=torch.zeros(1, 3, 6),
        mode_collides=torch.tensor([[False] * 5 + [True]]),
        command=torch.tensor([2]),
        history_box=torch.zeros(1, 4, 10),
        period=torch.ones(1, dtype=torch.long),
        ego_status=torch.zeros(1, 10),
    )


def forecasts(of: Detections, modes: int = 6, steps: int = 12) -> Forecasts:
    """Every agent goes on with its velocity; mode 2 is the likeliest."""
    seconds = 0.5 * torch.arange(1, steps + 1)
    path = of.box[:, :, None, :2] + of.box[:, :, None, 7:9] * seconds[:, None]
    count = of.box.shape[1]
    mode_score = torch.full((1, count, modes), 0.1)
    mode_score[..., 2] = 0.5
    return Forecasts(
        trajectory_m=path[:, :, None].expand(1, count, modes, steps, 2) + torch.arange(modes)[:, None, None] * 0.5,
        mode_score=mode_score,
        history_box=of.box[:, :, None].expand(1, count, 4, 10),
        period=torch.ones(1, count, dtype=torch.long),
    )


def scene() -> Scene:
    """A car ahead, one to the left, one behind, one below the threshold; a divider, a boundary and a crossing; a plan."""
    found = detections(
        [
            (box(0.0, 15.0, velocity=(0.0, 5.0)), 0, 0.9, 7),
            (box(-12.0, 4.0, yaw=0.3), 1, 0.8, 11),
            (box(2.0, -14.0, size=(0.7, 0.7, 1.8)), 8, 0.6, 3),
            (box(6.0, 20.0), 0, 0.1, 4),
        ]
    )
    elements = lines([([[-2.0, -10.0], [-2.0, 30.0]], 1, 0.9), ([[5.0, -10.0], [5.0, 30.0]], 2, 0.9), ([[-3.0, 9.0], [3.0, 9.0]], 0, 0.2)])
    return Scene(detections=found, map=elements, forecasts=forecasts(found), plan=plan())


def pictures(value: int = 90) -> list[np.ndarray]:
    """Six grey pictures."""
    return [np.full((HEIGHT_PX, WIDTH_PX, 3), value, np.uint8) for _ in NAMES]
