"""A straight road from west to east and things put on it by hand, for tests of the sensors."""

import numpy as np

from sparsedrive.world.rig import CameraMount, nuscenes_rig
from sparsedrive.world.state import Cast, EgoState, WorldState
from sparsedrive.world.town import Building, Crossing, Divider, Lane, Town, Tree

ORIGIN_M = np.array([400.0, 1100.0])
"""Where the ego vehicle stands, heading east. Coordinates are as large as those of real logs."""
SIZES = {
    "vehicle.car": (4.6, 1.95, 1.7),
    "vehicle.truck": (6.9, 2.5, 2.85),
    "vehicle.bus.rigid": (11.1, 2.9, 3.5),
    "vehicle.trailer": (12.3, 2.9, 3.9),
    "vehicle.construction": (6.4, 2.85, 3.2),
    "vehicle.motorcycle": (2.1, 0.77, 1.5),
    "vehicle.bicycle": (1.7, 0.6, 1.3),
    "human.pedestrian.adult": (0.73, 0.67, 1.77),
    "movable_object.trafficcone": (0.41, 0.41, 1.07),
    "movable_object.barrier": (0.5, 2.5, 1.0),
}
RED_RGB = (230.0, 20.0, 20.0)


def straight_town(buildings: tuple[Building, ...] = (), trees: tuple[Tree, ...] = (), paint: bool = True) -> Town:
    """A road 10 m wide along x through `ORIGIN_M`, a solid yellow divider 2 m to the left, a crossing 14 m to 17 m ahead."""
    x, y = ORIGIN_M

    def band(low: float, high: float) -> np.ndarray:
        return np.array([(x - 150, y + low), (x + 150, y + low), (x + 150, y + high), (x - 150, y + high)])

    along = np.arange(x - 150, x + 151)
    divider = Divider(kind="road", paint="solid", points_m=np.column_stack([along, np.full(len(along), y + 2.0)]))
    outline = np.array([(x + 14, y - 5), (x + 17, y - 5), (x + 17, y + 5), (x + 14, y + 5)])
    crossing = Crossing(outline_m=outline, walk_m=np.array([(x + 15.5, y - 6), (x + 15.5, y + 6)]), lane_ids=(0,))
    lane = Lane(lane_id=0, centre_m=np.column_stack([along, np.full(len(along), y)]), width_m=3.5, speed_limit_mps=10.0, successors=())
    return Town(
        name="straight",
        extent_m=(x - 160.0, y - 60.0, x + 160.0, y + 60.0),
        lanes=(lane,),
        roads=(band(-5, 5),),
        boundaries=(np.concatenate([band(-5, 5), band(-5, 5)[:1]]),),
        pavements=(band(5, 8), band(-8, -5)),
        crossings=(crossing,) if paint else (),
        dividers=(divider,) if paint else (),
        parkings=(),
        buildings=buildings,
        trees=trees,
    )


def block(ahead_m: tuple[float, float], left_m: tuple[float, float], height_m: float) -> Building:
    """A building between two places ahead and to the left of the ego vehicle."""
    (x0, x1), (y0, y1) = ahead_m, left_m
    return Building(outline_m=ORIGIN_M + np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), height_m=height_m, colour_rgb=(180, 170, 160))


def put(
    *actors: tuple[str, float, float, float], rgb: tuple[float, float, float] = RED_RGB, time_s: float = 0.0
) -> tuple[Cast, WorldState]:
    """Actors as (category, metres ahead of the ego vehicle, metres to its left, yaw_rad)."""
    cast = Cast(
        categories=tuple(category for category, *_ in actors),
        size_lwh_m=np.array([SIZES[category] for category, *_ in actors], dtype=np.float64).reshape(-1, 3),
        colour_rgb=np.array([rgb] * len(actors), dtype=np.float64).reshape(-1, 3),
    )
    pose = np.array([pose for _, *pose in actors], dtype=np.float64).reshape(-1, 3)
    pose[:, :2] += ORIGIN_M
    ego = EgoState(position_m=ORIGIN_M, yaw_rad=0.0, speed_mps=0.0, acceleration_mps2=0.0, steering_rad=0.0, yaw_rate_radps=0.0)
    still = np.zeros(len(actors))
    return cast, WorldState(time_s=time_s, ego=ego, pose=pose, speed_mps=still, acceleration_mps2=still, minds=None)


def front_camera(wh_px: tuple[int, int] = (704, 396)) -> CameraMount:
    """CAM_FRONT of the nuScenes rig."""
    return nuscenes_rig(wh_px).cameras[0]


def pixels_of(mount: CameraMount, points_m: np.ndarray) -> np.ndarray:
    """Where points [N, 3], metres ahead, to the left and up from the ego vehicle, are in the picture, and their depth [N, 3]."""
    camera_T_car = np.linalg.inv(mount.car_T_camera)
    image = (np.asarray(points_m) @ camera_T_car[:3, :3].T + camera_T_car[:3, 3]) @ mount.intrinsic.T
    return np.column_stack([image[:, :2] / image[:, 2:], image[:, 2]])


def box_corners(pose: np.ndarray, size_lwh_m: np.ndarray) -> np.ndarray:
    """The 8 corners [8, 3] of an actor's box, metres ahead, to the left and up from the ego vehicle."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    sides = np.array([(i, j, k) for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (0.0, 1.0)]) * size_lwh_m
    flat = sides[:, :2] @ np.array([[cos, sin], [-sin, cos]]) + pose[:2] - ORIGIN_M
    return np.column_stack([flat, sides[:, 2]])
