"""Everything in the world that stands up, as meshes, and how one camera sees it: polygons in the order of painting."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.world.facades import building_mesh
from sparsedrive.world.foliage import KINDS, crown_centre_m, trunk_mesh, trunk_radius_m
from sparsedrive.world.looks import Look
from sparsedrive.world.mesh import MOST_CORNERS, Lamp, Mesh, circle
from sparsedrive.world.painter import area_px, far_to_near, fixed_point, hidden
from sparsedrive.world.shapes import actor_mesh
from sparsedrive.world.state import Cast, EgoState, WorldState
from sparsedrive.world.town import Town
from sparsedrive.world.view import View

BRAKE_MPS2 = -1.0
SMALLEST_PX2 = 0.4
STEPS_PER_M, FULL_STEP_MPS = 0.65, 1.3
HAZE_HIDES = 0.985


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crown:
    """The crown of a tree: height of its middle, radius, and which of the pictures it shows."""

    height_m: float
    radius_m: float
    kind: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """All O things that can be painted: first the `actors` of the cast, then the S = O - actors buildings and trees.

    `still_pose` (x_m, y_m, yaw_rad) is theirs; footprints (convex; the last corner may repeat) and middles are in the frame of the thing.
    `reach_m`: how far it stands out beside its footprint; `walls`: those that hide all behind them.
    """

    actors: int
    meshes: tuple[Mesh, ...]
    still_pose: Float[np.ndarray, "S 3"]
    footprint_m: Float[np.ndarray, "O 12 2"]
    middle_m: Float[np.ndarray, "O 3"]
    radius_m: Float[np.ndarray, "O"]
    reach_m: Float[np.ndarray, "O"]
    walls: Bool[np.ndarray, "O"]
    crowns: tuple[Crown | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """N things far to near (`order`), and V polygons in fixed point; `rank` (ascending) is the place in `order` of the thing they show."""

    order: Int[np.ndarray, "N"]
    camera_T_global: Float[np.ndarray, "4 4"]
    pixels: Int[np.ndarray, "V L 2"]
    count: Int[np.ndarray, "V"]
    rgb: Float[np.ndarray, "V 3"]
    lamp: Int[np.ndarray, "V"]
    rank: Int[np.ndarray, "V"]

    def by_thing(self) -> list[tuple[int, slice]]:
        """Every thing with its range of polygons, in the order of painting."""
        starts = np.searchsorted(self.rank, np.arange(len(self.order) + 1)).tolist()
        return [(thing, slice(starts[rank], starts[rank + 1])) for rank, thing in enumerate(self.order.tolist())]

    def polygons(self) -> list[np.ndarray]:
        """Every polygon with its own number of corners."""
        return [pixels[:count] for pixels, count in zip(self.pixels, self.count.tolist(), strict=True)]


def build_stage(town: Town, cast: Cast, look: Look, seed: int) -> Stage:
    """Meshes of all actors, buildings and trees."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    bay_m = float(np.clip(look.visibility_m / 12, 3.0, 9.0))
    meshes = [actor_mesh(*actor) for actor in zip(cast.categories, cast.size_lwh_m, cast.colour_rgb, strict=True)]
    half = cast.size_lwh_m[:, None, :2] / 2
    footprints = list(half * [(1, 1), (-1, 1), (-1, -1), (1, -1)]) if len(cast) else []
    middles = list(cast.size_lwh_m * [0, 0, 0.5])
    radii = list(np.linalg.norm(cast.size_lwh_m, axis=1) / 2)
    poses: list[tuple[float, float, float]] = []
    crowns: list[Crown | None] = [None] * len(cast)
    for number, building in enumerate(town.buildings):
        place_m = building.outline_m.mean(0)
        outline = building.outline_m - place_m
        meshes.append(building_mesh(building, np.random.default_rng(np.random.SeedSequence([seed, 5, number])), bay_m))
        footprints.append(outline)
        middles.append(np.array([0, 0, building.height_m / 2]))
        radii.append(np.hypot(np.linalg.norm(outline, axis=1).max(), building.height_m / 2))
        poses.append((*place_m, 0.0))
        crowns.append(None)
    for tree in town.trees:
        meshes.append(trunk_mesh(tree))
        footprints.append(circle(0, 0, trunk_radius_m(tree), 4))
        middles.append(np.array([0, 0, tree.height_m / 2]))
        radii.append(np.hypot(tree.crown_radius_m, tree.height_m / 2))
        poses.append((*tree.position_m, 0.0))
        crowns.append(Crown(height_m=crown_centre_m(tree), radius_m=tree.crown_radius_m, kind=int(rng.integers(KINDS))))
    return Stage(
        actors=len(cast),
        meshes=tuple(meshes),
        still_pose=np.array(poses, dtype=np.float64).reshape(-1, 3),
        footprint_m=np.array([_padded(outline) for outline in footprints], dtype=np.float64).reshape(-1, MOST_CORNERS, 2),
        middle_m=np.array(middles, dtype=np.float64).reshape(-1, 3),
        radius_m=np.array(radii, dtype=np.float64),
        reach_m=np.array([0.0 if crown is None else crown.radius_m for crown in crowns]),
        walls=np.repeat([False, True, False], [len(cast), len(town.buildings), len(town.trees)]),
        crowns=tuple(crowns),
    )


def _padded(outline_m: np.ndarray) -> np.ndarray:
    """With 12 corners; of a longer outline 12 corners that lie apart."""
    if len(outline_m) > MOST_CORNERS:
        return outline_m[np.linspace(0, len(outline_m), MOST_CORNERS, endpoint=False).astype(int)]
    return np.concatenate([outline_m, np.repeat(outline_m[-1:], MOST_CORNERS - len(outline_m), axis=0)])


def compose(stage: Stage, state: WorldState, view: View, look: Look) -> Picture:
    """What a camera has to paint. Nothing of the ego vehicle."""
    pose = np.concatenate([state.pose, stage.still_pose])
    turn = turns(pose[:, 2])
    camera_T_global = view.camera_T_car @ np.linalg.inv(global_T_car(state.ego))
    things = _things_in_view(stage, pose, turn, camera_T_global, view, look)
    eye_m = -camera_T_global[:3, :3].T @ camera_T_global[:3, 3]
    points, normals, faces = [np.zeros((0, MOST_CORNERS, 3), np.float32)], [np.zeros((0, 3), np.float32)], []
    for thing in things.tolist():
        mesh = stage.meshes[thing]
        seen = mesh.facing(np.append((eye_m[:2] - pose[thing, :2]) @ turn[thing], eye_m[2]))
        points_m = mesh.points_m[seen]
        if thing < stage.actors and mesh.walks:
            points_m[..., 0] += mesh.swing[seen] * _step(thing, state)
        points_m = points_m.reshape(-1, 3)
        place_m = camera_T_global[:3, :2] @ pose[thing, :2] + camera_T_global[:3, 3]
        rotation = np.column_stack([camera_T_global[:3, :2] @ turn[thing], camera_T_global[:3, 2]]).astype(np.float32)
        points.append((points_m @ rotation.T + place_m.astype(np.float32)).reshape(-1, MOST_CORNERS, 3))
        upright = mesh.normals[seen]
        normals.append(np.column_stack([upright[:, :2] @ turn[thing].T.astype(np.float32), upright[:, 2]]))
        faces.append(seen)
    return _picture(stage, state, view, look, things, camera_T_global, np.concatenate(points), np.concatenate(normals), faces)


def _things_in_view(
    stage: Stage, pose: np.ndarray, turn: np.ndarray, camera_T_global: np.ndarray, view: View, look: Look
) -> Int[np.ndarray, "N"]:
    """Which things reach into the picture and are not lost in the haze, far to near."""
    middle_m = stage.middle_m.copy()
    middle_m[:, :2] = (turn @ middle_m[:, :2, None])[..., 0] + pose[:, :2]
    middle_m = middle_m @ camera_T_global[:3, :3].T + camera_T_global[:3, 3]
    far_m = -look.visibility_m * np.log(1 - HAZE_HIDES)
    things = np.flatnonzero(view.projection.sees(middle_m, stage.radius_m) & (np.linalg.norm(middle_m, axis=1) - stage.radius_m < far_m))
    footprint_m = stage.footprint_m[things] @ np.swapaxes(turn[things], 1, 2) + pose[things, None, :2]
    # Right and ahead on the ground; a camera that looks a little up or down looks ahead all the same.
    ahead = camera_T_global[2, :2] / max(float(np.linalg.norm(camera_T_global[2, :2])), 1e-9)
    eye_m = -camera_T_global[:3, :3].T @ camera_T_global[:3, 3]
    axes = np.array([(ahead[1], -ahead[0]), ahead])
    seen_m = (footprint_m - eye_m[:2]) @ axes.T
    top_m = 2 * stage.middle_m[things, 2] - eye_m[2]
    kept = ~hidden(seen_m, stage.reach_m[things], top_m, stage.walls[things], view.half_view)
    things, seen_m = things[kept], seen_m[kept]
    return things[far_to_near(seen_m, view.half_view)]


def _picture(
    stage: Stage, state: WorldState, view: View, look: Look, things: np.ndarray, camera_T_global: np.ndarray,
    points_m: np.ndarray, normals: np.ndarray, faces: list[np.ndarray],
) -> Picture:  # fmt: skip
    """Project, drop what is outside the picture or too small, and give every polygon its light, lamps and haze."""

    def gather(name: str) -> np.ndarray:
        return np.concatenate([getattr(stage.meshes[thing], name)[seen] for thing, seen in zip(things, faces, strict=True)])

    if not len(things):
        empty = np.zeros(0, np.int64)
        none = np.zeros((0, MOST_CORNERS, 2), np.int32)
        return Picture(
            order=things, camera_T_global=camera_T_global, pixels=none, count=empty, rgb=np.zeros((0, 3)), lamp=empty, rank=empty
        )
    rank = np.repeat(np.arange(len(things)), [len(seen) for seen in faces])
    seen, pixels, count = view.projection.project(points_m, gather("count"))
    large = area_px(pixels) > SMALLEST_PX2
    seen, pixels, count = seen[large], pixels[large], count[large]
    lamp, rank = gather("lamp")[seen], rank[seen]
    rgb = gather("rgb")[seen] * look.light(normals[seen], look.sun)
    braking = np.append(state.acceleration_mps2 < BRAKE_MPS2, np.zeros(len(stage.still_pose), bool))[things][rank]
    for kind in (Lamp.HEAD, Lamp.TAIL, Lamp.WINDOW):
        for brakes in (False, True):
            shine = look.lamp_rgb(kind, brakes)
            if shine is not None:
                rgb[(lamp == kind) & (braking == brakes)] = shine
    mist = look.haze(np.linalg.norm(points_m[seen].mean(1), axis=1))[:, None]
    return Picture(
        order=things,
        camera_T_global=camera_T_global,
        pixels=fixed_point(pixels),
        count=count,
        rgb=rgb * (1 - mist) + mist * look.horizon_rgb,
        lamp=lamp,
        rank=rank,
    )


def _step(thing: int, state: WorldState) -> float:
    """Where the feet of a walker are, -1 to 1. Standing feet are together."""
    speed_mps = abs(float(state.speed_mps[thing]))
    phase = 2 * np.pi * STEPS_PER_M * (float(state.pose[thing, 0]) + float(state.pose[thing, 1]) + 1.3 * thing)
    return min(speed_mps / FULL_STEP_MPS, 1.0) * float(np.sin(phase))


def turns(yaw_rad: Float[np.ndarray, "O"]) -> Float[np.ndarray, "O 2 2"]:
    """Rotations of the plane."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)


def global_T_car(ego: EgoState) -> Float[np.ndarray, "4 4"]:  # noqa: N802
    """Pose of the ego vehicle: origin on the ground under the rear axle, x forward, y left."""
    pose = np.eye(4)
    pose[:2, :2] = turns(np.array(ego.yaw_rad))
    pose[:2, 3] = ego.position_m
    return pose
