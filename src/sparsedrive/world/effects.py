"""What the air and the camera add to a picture: glow around lamps, rain, drops on the lens, grain."""

import cv2
import numpy as np
from jaxtyping import UInt8

GLOW_PX = 64
GRAIN_PX = 1024
_offset = np.hypot(*np.mgrid[-1 : 1 : GLOW_PX * 1j, -1 : 1 : GLOW_PX * 1j])
_GLOW = (np.clip(1 - _offset, 0, 1) ** 2.2).astype(np.float32)
_GRAIN = np.clip(np.random.default_rng(5).normal(128, 42, (GRAIN_PX, GRAIN_PX, 3)), 0, 255).astype(np.uint8)


def paint_glow(
    image: UInt8[np.ndarray, "H W 3"], centre_px: tuple[float, float], radius_px: float, rgb: tuple[float, ...], part: float
) -> None:
    """Add a round glow, in its middle this part of `rgb`."""
    height, width = image.shape[:2]
    left, top = int(centre_px[0] - radius_px), int(centre_px[1] - radius_px)
    size = int(2 * radius_px) + 1
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x0 >= x1 or y0 >= y1 or size < 3:
        return
    glow = cv2.resize(_GLOW, (size, size))[y0 - top : y1 - top, x0 - left : x1 - left, None] * (part * np.array(rgb, np.float32))
    image[y0:y1, x0:x1] = cv2.add(image[y0:y1, x0:x1], glow.astype(np.uint8))


def add_grain(image: UInt8[np.ndarray, "H W 3"], strength: float, rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """Sensor noise; `strength` 1 is a standard deviation of 42."""
    height, width = image.shape[:2]
    repeats = (height // GRAIN_PX + 1, width // GRAIN_PX + 1, 1)
    noise = _GRAIN if max(repeats) == 1 else np.tile(_GRAIN, repeats)
    row, column = rng.integers(noise.shape[0] - height + 1), rng.integers(noise.shape[1] - width + 1)
    return cv2.addWeighted(image, 1.0, noise[row : row + height, column : column + width], strength, -128 * strength)


def add_rain(image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> None:
    """Falling streaks, and drops on the lens that blur what is behind them."""
    height, width = image.shape[:2]
    streaks = np.zeros((height, width), np.uint8)
    count = width * height // 1500
    x, y = rng.uniform(0, width, count), rng.uniform(-20, height, count)
    length = rng.uniform(0.02, 0.09, count) * height
    slant = rng.normal(0.10, 0.03)
    ends = np.stack([x, y, x + slant * length, y + length], axis=1).astype(int)
    for (x0, y0, x1, y1), bright in zip(ends.tolist(), rng.integers(14, 60, count).tolist(), strict=True):
        cv2.line(streaks, (x0, y0), (x1, y1), bright, 1, cv2.LINE_AA)
    cv2.add(image, cv2.merge([streaks] * 3), dst=image)
    soft = cv2.blur(cv2.flip(image, 0), (15, 15))
    for _ in range(rng.integers(3, 9)):
        radius = max(2, int(rng.uniform(0.008, 0.022) * width))
        column, row = int(rng.integers(2 * radius, max(width - 2 * radius, 2 * radius + 1))), int(rng.integers(height))
        around = np.s_[max(row - 2 * radius, 0) : row + 2 * radius, max(column - 2 * radius, 0) : column + 2 * radius]
        drop = np.zeros(image[around].shape[:2], np.uint8)
        middle = (min(column, 2 * radius), min(row, 2 * radius))
        cv2.ellipse(drop, middle, (radius, int(1.2 * radius)), 0, 0, 360, 150, -1, cv2.LINE_AA)
        part = cv2.blur(drop, (3, 3))[..., None].astype(np.float32) / 255
        image[around] = image[around] * (1 - part) + soft[around] * part
