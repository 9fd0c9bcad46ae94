"""What stays the same in all pictures of one camera: where its pixels look, which of them see the ground, and how far away that is."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sparsedrive.world.ground import LEVEL_SIZE, LEVEL_TEXEL_M, SNAP, Ground
from sparsedrive.world.looks import Look
from sparsedrive.world.painter import Projection
from sparsedrive.world.rig import CameraMount
from sparsedrive.world.sky import PER_RAD, panorama_place

MOST_SAMPLES = 4
WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """Rows of a picture that take the ground from one level, with so many samples a row: far rows look along metres of ground."""

    first: int
    end: int
    level: int
    samples: int
    ground_T_sample: Float[np.ndarray, "3 3"]


class View:
    """One camera in one look. Ground plane: z = 0 of the car frame."""

    def __init__(self, mount: CameraMount, look: Look) -> None:
        self.wh_px, self.look = mount.wh_px, look
        self.projection = Projection(mount.intrinsic, mount.wh_px)
        self.camera_T_car = np.linalg.inv(mount.car_T_camera)
        width, height = mount.wh_px
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        self._car_T_pixel = mount.car_T_camera[:3, :3] @ np.linalg.inv(mount.intrinsic)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ self._car_T_pixel.T
        self.half_view = float(np.abs((np.array([[0, width - 1]]) - mount.intrinsic[0, 2]) / mount.intrinsic[0, 0]).max()) + 0.05
        length = np.linalg.norm(rays, axis=-1)
        below = rays[..., 2] < 0
        range_m = np.where(below, -mount.car_T_camera[2, 3] / np.where(below, rays[..., 2], 1), 1e6)
        self.first_ground = int(np.argmax(below.any(1))) if below.any() else height
        self.end_sky = height - int(np.argmax(~below[::-1].all(1))) if not below.all() else 0
        self._above = ~below[self.first_ground : self.end_sky]
        self.bands = self._bands(mount, range_m, np.hypot(rays[..., 0], rays[..., 1]))
        mist = look.haze(range_m * length)[self.first_ground :]
        grazing = (-rays[..., 2] / length)[self.first_ground :]
        mirror = look.wet * np.clip(1 - np.maximum(grazing, 0), 0, 1) ** 6
        self.mist = (1 - (1 - mist) * (1 - mirror)).astype(np.float32)
        self.clear = 1 - self.mist
        self.mist_rgb = np.empty((*self.mist.shape, 3), np.uint8)
        self.mist_rgb[:] = look.horizon_rgb
        sky = rays[: self.end_sky]
        elevation_rad = np.arcsin(sky[..., 2] / length[: self.end_sky])
        self._sky_column, self._sky_row = panorama_place(np.arctan2(sky[..., 1], sky[..., 0]), elevation_rad)

    def _bands(self, mount: CameraMount, range_m: np.ndarray, reach: np.ndarray) -> list[Band]:
        """Rows with equal level and samples together. The finest level is taken that holds a row's farthest ground."""
        eye_m, bands, rows = mount.car_T_camera[:3, 3], [], []
        safe_m = np.array(LEVEL_TEXEL_M) * LEVEL_SIZE * (0.5 - 0.5 / SNAP) - np.hypot(*eye_m[:2])
        for row in range(self.first_ground, self.wh_px[1]):
            farthest_m, nearest_m = (range_m[row] * reach[row]).max(), range_m[row].min()
            level = int(np.argmax(np.append(safe_m, np.inf) >= farthest_m))
            level = min(level, len(LEVEL_TEXEL_M) - 1)
            row_m = nearest_m**2 / (mount.intrinsic[1, 1] * eye_m[2])
            samples = int(2 ** np.ceil(np.log2(np.clip(row_m / (3 * LEVEL_TEXEL_M[level]), 1, MOST_SAMPLES))))
            rows.append((level, samples))
        # From ground metres (x, y, 1) of the car frame to pixels, and back.
        ground_T_pixel = np.linalg.inv((mount.intrinsic @ self.camera_T_car[:3])[:, [0, 1, 3]])
        first = 0
        for i in range(1, len(rows) + 1):
            if i == len(rows) or rows[i] != rows[first]:
                level, samples = rows[first]
                start = self.first_ground + first
                pixel_T_sample = np.array([[1, 0, 0], [0, 1 / samples, start + 0.5 / samples - 0.5], [0, 0, 1]])
                ground_T_sample = ground_T_pixel @ pixel_T_sample
                bands.append(Band(first=start, end=self.first_ground + i, level=level, samples=samples, ground_T_sample=ground_T_sample))
                first = i
        return bands

    def sky(self, image: UInt8[np.ndarray, "H W 3"], panorama: UInt8[np.ndarray, "Y X 3"], yaw_rad: float) -> None:
        """Paint the rows that reach above the horizon."""
        if self.end_sky:
            column = self._sky_column + np.float32(np.mod(yaw_rad, 2 * np.pi) * PER_RAD)
            image[: self.end_sky] = cv2.remap(panorama, column, self._sky_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def ground(
        self, image: UInt8[np.ndarray, "H W 3"], ground: Ground, global_T_car: Float[np.ndarray, "3 3"], light: np.ndarray | None
    ) -> None:
        """Paint the ground, darkened by `light` (0 to 255, [rows, W]) and faded by haze. `global_T_car` moves points of the plane."""
        if self.first_ground == self.wh_px[1]:
            return
        sky = image[self.first_ground : self.end_sky].copy()
        lower = image[self.first_ground :]
        for band in self.bands:
            picture, window_T_global = ground.window_at(band.level, global_T_car[:2, 2])
            window_T_sample = window_T_global @ global_T_car @ band.ground_T_sample
            size = (self.wh_px[0], (band.end - band.first) * band.samples)
            seen = cv2.warpPerspective(picture, window_T_sample, size, flags=WARP, borderValue=ground.mean_rgb.tolist())
            rows = slice(band.first - self.first_ground, band.end - self.first_ground)
            lower[rows] = seen if band.samples == 1 else cv2.resize(seen, (size[0], band.end - band.first), interpolation=cv2.INTER_AREA)
        if light is not None:
            column, row, width, height = cv2.boundingRect(cv2.bitwise_not(light))
            shaded = np.s_[row : row + height, column : column + width]
            if width:
                lower[shaded] = cv2.multiply(lower[shaded], cv2.merge([light[shaded]] * 3), scale=1 / 255)
        lower[:] = cv2.blendLinear(lower, self.mist_rgb, self.clear, self.mist)
        if sky.size:
            lower[: len(sky)][self._above] = sky[self._above]


@lru_cache(maxsize=32)
def view_of(mount: CameraMount, look: Look) -> View:
    """The view of a mount, made once."""
    return View(mount, look)
