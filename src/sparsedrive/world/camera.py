"""Pictures of the world as the cameras of the ego vehicle see it, and who can be seen in them."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from sparsedrive.world.effects import add_grain, add_rain, paint_glow
from sparsedrive.world.foliage import crown_sprites, paint_crown
from sparsedrive.world.ground import Ground, hull
from sparsedrive.world.looks import Look, day
from sparsedrive.world.mesh import Lamp, circle
from sparsedrive.world.painter import SHIFT, fill, fixed_point
from sparsedrive.world.rig import CameraMount, Rig
from sparsedrive.world.sky import sky_panorama
from sparsedrive.world.stage import Crown, Picture, build_stage, compose, global_T_car, turns
from sparsedrive.world.state import Cast, WorldState
from sparsedrive.world.town import Town
from sparsedrive.world.view import View, view_of

CONTACT_M = 0.18
"""How far the dark spot under a thing reaches out beside it."""


class Renderer:
    """Paints one town and cast in one look. The same arguments and states give the same pictures, in any order and process."""

    def __init__(self, town: Town, cast: Cast, look: Look | None = None, seed: int = 0) -> None:
        self.look = day() if look is None else look
        self.cast = cast
        self._seed = seed
        self._stage = build_stage(town, cast, self.look, seed)
        self._ground = Ground(town, self.look, seed)
        self._panorama = sky_panorama(self.look, seed)
        self._sprites = crown_sprites()

    def render(self, state: WorldState, mount: CameraMount) -> UInt8[np.ndarray, "H W 3"]:
        """The RGB picture a camera takes at this instant. The ego vehicle itself is not in it."""
        view = view_of(mount, self.look)
        picture = compose(self._stage, state, view, self.look)
        image = np.empty((mount.wh_px[1], mount.wh_px[0], 3), np.uint8)
        view.sky(image, self._panorama, state.ego.yaw_rad)
        flat = global_T_car(state.ego)[np.ix_([0, 1, 3], [0, 1, 3])]
        view.ground(image, self._ground, flat, self._light(view, state, picture))
        polygons, colours = picture.polygons(), np.clip(picture.rgb, 0, 255).tolist()
        for thing, part in picture.by_thing():
            fill(image, polygons[part], colours[part])
            crown = self._stage.crowns[thing]
            if crown is not None:
                self._paint_crown(image, view, picture, thing, crown)
            elif self.look.lamps_on and thing < len(self.cast):
                self._paint_glows(image, picture, part)
        moment = round(state.time_s * 1e6) % 2**63
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, moment, *mount.name.encode()]))
        if self.look.rain:
            add_rain(image, rng)
        return add_grain(image, self.look.grain, rng)

    def render_rig(self, state: WorldState, rig: Rig) -> list[UInt8[np.ndarray, "H W 3"]]:
        """Pictures of all cameras at one instant."""
        return [self.render(state, mount) for mount in rig.cameras]

    def identify(self, state: WorldState, mount: CameraMount, scale: float = 1.0) -> Int[np.ndarray, "h w"]:
        """The number of the actor in every pixel of a picture `scale` times as large; -1 where there is none."""
        return self._identify(state, mount, scale)[0]

    def visible_pixels(
        self, state: WorldState, mount: CameraMount, scale: float = 0.25
    ) -> tuple[Int[np.ndarray, "A"], Int[np.ndarray, "A"]]:
        """Pixels of every actor in a picture `scale` times as large: those seen, and those it would have with nothing in front."""
        ids, whole = self._identify(state, mount, scale)
        return np.bincount(ids[ids >= 0], minlength=len(self.cast)), whole

    def visible_fraction(self, state: WorldState, rig: Rig, scale: float = 0.25) -> Float[np.ndarray, "A"]:
        """Part of every actor's pixels that is not hidden, over all cameras; 0 for those in no picture."""
        seen, whole = np.sum([self.visible_pixels(state, mount, scale) for mount in rig.cameras], axis=0)
        return seen / np.maximum(whole, 1)

    def _identify(self, state: WorldState, mount: CameraMount, scale: float) -> tuple[np.ndarray, np.ndarray]:
        small = _scaled(mount, scale)
        view = view_of(small, self.look)
        picture = compose(self._stage, state, view, self.look)
        ids = np.full((small.wh_px[1], small.wh_px[0]), -1, np.int32)
        whole = np.zeros(len(self.cast), np.int64)
        polygons = picture.polygons()
        for thing, part in picture.by_thing():
            number = thing if thing < len(self.cast) else -1
            fill(ids, polygons[part], [number] * (part.stop - part.start), smooth=False)
            crown = self._stage.crowns[thing]
            if crown is not None:
                centre_px, radius_px, _ = self._crown_px(view, picture, thing, crown)
                if radius_px > 0:
                    fill(ids, [fixed_point(circle(centre_px[0], centre_px[1], 0.9 * radius_px))], [-1], smooth=False)
            elif number >= 0 and part.stop > part.start:
                corners = np.concatenate(polygons[part]) >> SHIFT
                low, high = np.maximum(corners.min(0) - 1, 0), np.maximum(corners.max(0) + 2, 0)
                whole[thing] = np.count_nonzero(ids[low[1] : high[1], low[0] : high[0]] == thing)
        return ids, whole

    def _light(self, view: View, state: WorldState, picture: Picture) -> UInt8[np.ndarray, "rows W"] | None:
        """Light on the ground between shadows: those of the sun, and the dark spot under everything that stands on it."""
        actors = picture.order[picture.order < len(self.cast)]
        rows = view.wh_px[1] - view.first_ground
        if not len(actors) or not rows:
            return None
        light = np.full((rows, view.wh_px[0]), 255, np.uint8)
        shift = -self.look.sun[:2] / self.look.sun[2] if self.look.shadow > 0.3 else np.zeros(2)
        size_m, pose, turn = self.cast.size_lwh_m[actors], state.pose[actors], turns(state.pose[actors, 2])
        around = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) / 2
        base = (around * (size_m[:, None, :2] * 0.92)) @ np.swapaxes(turn, 1, 2) + pose[:, None, :2]
        contact = (around * (size_m[:, None, :2] + CONTACT_M)) @ np.swapaxes(turn, 1, 2) + pose[:, None, :2]
        above = base + 0.95 * size_m[:, 2, None, None] * shift
        outlines = [*(hull(np.concatenate(both)) for both in zip(base, above, strict=True)), *contact]
        dark = np.repeat([1 - self.look.shadow, 0.86 - 0.55 * self.look.shadow], len(actors)) * 255
        points = np.array([np.concatenate([o, np.repeat(o[-1:], 8 - len(o), axis=0)]) for o in outlines])
        points = points @ picture.camera_T_global[:3, :2].T + picture.camera_T_global[:3, 3]
        seen, pixels, count = view.projection.project(points, np.full(len(points), points.shape[1]))
        corners = fixed_point(pixels - (0, view.first_ground))
        polygons = [polygon[:n] for polygon, n in zip(corners, count.tolist(), strict=True)]
        fill(light, polygons, dark[seen].tolist(), smooth=False)
        return cv2.blur(light, (5, 5))

    def _crown_px(self, view: View, picture: Picture, thing: int, crown: Crown) -> tuple[np.ndarray, float, float]:
        """Middle, radius (0 where it is not ahead) and distance of a crown."""
        place = self._stage.still_pose[thing - len(self.cast)]
        centre_m = picture.camera_T_global @ (place[0], place[1], crown.height_m, 1)
        if centre_m[2] < 0.6 * crown.radius_m:
            return np.zeros(2), 0.0, 0.0
        pixel = view.projection.intrinsic @ centre_m[:3] / centre_m[2]
        distance_m = float(np.linalg.norm(centre_m[:3]))
        return pixel[:2], float(view.projection.intrinsic[0, 0] * crown.radius_m / centre_m[2]), distance_m

    def _paint_crown(self, image: np.ndarray, view: View, picture: Picture, thing: int, crown: Crown) -> None:
        centre_px, radius_px, distance_m = self._crown_px(view, picture, thing, crown)
        if radius_px > 0:
            look = self.look
            light = np.asarray(look.ambient_rgb) + 0.75 * np.asarray(look.sun_rgb)
            mist = float(look.haze(np.array(distance_m)))
            paint_crown(image, self._sprites[crown.kind], (centre_px[0], centre_px[1]), radius_px, light, np.array(look.horizon_rgb), mist)

    def _paint_glows(self, image: np.ndarray, picture: Picture, part: slice) -> None:
        """Light around the lamps of one actor."""
        for number in part.start + np.flatnonzero(np.isin(picture.lamp[part], (Lamp.HEAD, Lamp.TAIL))):
            corners = picture.pixels[number, : picture.count[number]] / (1 << SHIFT)
            radius_px = 2.2 * float(np.ptp(corners, axis=0).max()) + 3.0
            middle = corners.mean(0)
            paint_glow(image, (middle[0], middle[1]), min(radius_px, 80.0), tuple(picture.rgb[number]), 0.45)


@lru_cache(maxsize=32)
def _scaled(mount: CameraMount, scale: float) -> CameraMount:
    """The same camera with fewer pixels."""
    width, height = (max(1, round(size * scale)) for size in mount.wh_px)
    intrinsic = mount.intrinsic.copy()
    intrinsic[:2, :2] *= scale
    intrinsic[:2, 2] = (intrinsic[:2, 2] + 0.5) * scale - 0.5
    return replace(mount, intrinsic=intrinsic, wh_px=(width, height))
