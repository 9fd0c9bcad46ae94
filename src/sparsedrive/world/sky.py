"""The sky all around as one picture: a gradient, clouds, and a far skyline of hills and woods at the horizon."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sparsedrive.world.looks import Look

WIDTH, LOW_RAD, HIGH_RAD = 4096, np.radians(-3.0), np.radians(45.0)
PER_RAD = WIDTH / (2 * np.pi)
HEIGHT = int((HIGH_RAD - LOW_RAD) * PER_RAD)


@lru_cache(maxsize=8)
def sky_panorama(look: Look, seed: int) -> UInt8[np.ndarray, "Y X 3"]:
    """Columns are azimuth counter-clockwise from east, rows go down from `HIGH_RAD` to `LOW_RAD` above the horizon."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    elevation_rad = HIGH_RAD - np.arange(HEIGHT)[:, None] / PER_RAD
    up = np.clip(elevation_rad / HIGH_RAD, 0, 1)[..., None] ** 0.55
    horizon, zenith = np.array(look.horizon_rgb), np.array(look.zenith_rgb)
    sky = np.repeat((1 - up) * horizon + up * zenith, WIDTH, axis=1).astype(np.float32)
    if look.clouds:
        noise = sum(_noise(rng, cells, stretch=3) * part for cells, part in ((6, 0.5), (14, 0.28), (36, 0.16), (90, 0.08)))
        cover = np.clip((noise + 0.35 * look.clouds - 0.08) / 0.4, 0, 1) * look.clouds
        cover = (cover * np.clip(elevation_rad / np.radians(9), 0, 1))[..., None]
        cloud = 0.35 * horizon + 0.65 * np.maximum(horizon, np.array(look.zenith_rgb) * 0.4 + 140 * np.mean(look.ambient_rgb))
        shade = 1 - 0.22 * np.clip(noise, 0, 1)[..., None]
        sky = sky * (1 - cover) + cover * np.clip(cloud * shade, 0, 255)
    skyline = ((3.2, 14, 0.72, (84, 104, 116)), (1.7, 60, 0.45, (64, 88, 56)))
    for high_deg, cells, mist, rgb in skyline:
        ridge = _ridge(rng, cells) * np.radians(high_deg)
        thing = np.array(rgb) * np.asarray(look.ambient_rgb) * 1.3
        mist = 1 - (1 - mist) * np.exp(-60.0 / look.visibility_m)
        inside = np.clip((ridge[None] - elevation_rad) * PER_RAD + 0.5, 0, 1)[..., None]
        sky = sky * (1 - inside) + inside * (mist * horizon + (1 - mist) * thing)
    return np.clip(sky, 0, 255).astype(np.uint8)


def panorama_place(azimuth_rad: np.ndarray, elevation_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of the panorama, as float32 for `cv2.remap`; columns go round."""
    column = azimuth_rad * PER_RAD
    row = np.clip((HIGH_RAD - elevation_rad) * PER_RAD, 0, HEIGHT - 1.001)
    return column.astype(np.float32), row.astype(np.float32)


def _noise(rng: np.random.Generator, cells: int, stretch: int) -> Float[np.ndarray, "Y X"]:
    """Smooth noise that closes at the back."""
    grid = rng.normal(size=(max(2, cells * stretch * HEIGHT // WIDTH), cells)).astype(np.float32)
    grid = np.concatenate([grid[:, -2:], grid, grid[:, :2]], axis=1)
    large = cv2.resize(grid, (WIDTH * (cells + 4) // cells, HEIGHT), interpolation=cv2.INTER_CUBIC)
    first = 2 * WIDTH // cells
    return large[:, first : first + WIDTH]


def _ridge(rng: np.random.Generator, cells: int) -> Float[np.ndarray, "X"]:
    """Height of a ridge from 0 to about 1 all around."""
    total = np.zeros(WIDTH)
    for times, part in ((1, 0.5), (3, 0.3), (9, 0.2)):
        value = rng.uniform(size=cells * times)
        total += part * np.interp(np.arange(WIDTH) / WIDTH * cells * times, np.arange(cells * times + 1), np.append(value, value[0]))
    return total
