"""A picture file -> network input in training: decoded no larger than needed, one warp, one colour matrix. NumPy and OpenCV only."""

from os import SEEK_END
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
TAIL_BYTES = 1024
"""Where the end marker is looked for first: few files have more behind it."""
_CUT_SHORT = "JPEG cut short after {} bytes (no end marker)"
REDUCED_FLAGS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
FILTER_BELOW, FILTER_STRENGTH = 0.75, 0.1
"""Bilinear sampling alone is closest to Pillow's antialiased filter down to about 0.75 of the size; below, blurring first is closer."""


def reduction(scale: float) -> int:
    """The largest of 8, 4, 2 and 1 by which a picture may shrink at once when it is to end at `scale` of its size."""
    return next((factor for factor in (8, 4, 2) if factor * scale <= 1), 1)


def read_picture(path: Path, wh_px: tuple[int, int], factor: int = 1, *, reduced: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """Blue, green, red pixels of a picture file, shrunk by a whole factor: pixel i covers [factor * i, factor * (i + 1)] of the original.

    Args:
        wh_px: size of the original picture, for which the calibration holds.
        factor: 1, 2, 4 or 8.
        reduced: let the JPEG decoder do the shrinking, which saves most of its inverse transforms; else decode all and average.

    Raises:
        ValueError: not there, not a picture, cut short, or of another size.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); unpack it again, or prepare again and load with missing_images='black' or 'skip'. "
            "If the log or its prepared folder was moved: PreparedData.open(folder, root=...)"
        ) from error
    is_jpeg = content.startswith(JPEG_START)
    if is_jpeg and _cut_short(content):
        raise ValueError(f"{path}: {_CUT_SHORT.format(len(content))}; unpack or copy the file again")
    in_codec = reduced and is_jpeg and factor > 1
    flag = REDUCED_FLAGS[factor] if in_codec else cv2.IMREAD_COLOR
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), flag) if content else None
    if bgr is None:
        raise ValueError(f"{path}: not a picture OpenCV can decode ({len(content)} bytes); the file is damaged, unpack it again")
    found = (bgr.shape[1], bgr.shape[0])
    if found != (_shrunk(wh_px, factor) if in_codec else wh_px):
        at = f" at 1/{factor} of the size" if in_codec else ""
        raise ValueError(
            f"{path}: expected a picture of {wh_px[0]} x {wh_px[1]} pixels as prepared, got {found[0]} x {found[1]}{at}; the calibration "
            "holds for the original size only, restore the original picture or prepare again"
        )
    return bgr if in_codec else _average(bgr, factor)


def picture_damage(path: Path) -> str | None:
    """What is visibly wrong with a picture file: empty, or a JPEG cut short. Reads mostly its ends only. `OSError` as `open`."""
    with path.open("rb") as file:
        if not (start := file.read(len(JPEG_START))):
            return "empty file"
        if start != JPEG_START:
            return None
        size = file.seek(0, SEEK_END)
        file.seek(max(size - TAIL_BYTES, 0))
        if JPEG_END in file.read():
            return None
        file.seek(0)
        return _CUT_SHORT.format(size) if _cut_short(file.read()) else None


def _cut_short(jpeg: bytes) -> bool:
    # Some decoders fill the missing part of a file that was cut short with grey. Inside a scan the end marker cannot occur by chance.
    return jpeg.rfind(JPEG_END) <= jpeg.rfind(JPEG_SCAN)


def _shrunk(wh_px: tuple[int, int], factor: int) -> tuple[int, int]:
    return -(-wh_px[0] // factor), -(-wh_px[1] // factor)


def _average(bgr: np.ndarray, factor: int) -> np.ndarray:
    """Mean of every block of factor x factor pixels; the border is repeated where it does not divide, as JPEG decoders do."""
    if factor == 1:
        return bgr
    right, bottom = -bgr.shape[1] % factor, -bgr.shape[0] % factor
    if right or bottom:
        bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(bgr, (bgr.shape[1] // factor, bgr.shape[0] // factor), interpolation=cv2.INTER_AREA)


def warp(
    pixels: UInt8[np.ndarray, "H W 3"], factor: int, network_T_image: Float[np.ndarray, "4 4"], wh_px: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The network's picture from one that `read_picture` shrunk by `factor`; outside the original it is black.

    `network_T_image` is for original pixels, with (0, 0) at the corner of the picture; OpenCV has it in the middle of a pixel.
    """
    left = factor * np.sqrt(abs(np.linalg.det(network_T_image[:2, :2])))
    if left < FILTER_BELOW:
        side = (left**-2 - 1) * FILTER_STRENGTH / 2
        kernel = np.array([side, 1 - 2 * side, side])
        pixels = cv2.sepFilter2D(pixels, -1, kernel, kernel)
    reduced_T_network = np.linalg.inv(network_T_image[:3, :3] @ np.diag([factor, factor, 1]))
    inverse = _shift_px(-0.5) @ reduced_T_network @ _shift_px(0.5)
    return cv2.warpAffine(pixels, inverse[:2], wh_px, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _shift_px(by_px: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, 0, by_px], [0, 1, by_px], [0, 0, 1]])


def colour_and_normalise(
    bgr: UInt8[np.ndarray, "h w 3"],
    colour: Float[np.ndarray, "3 4"] | None,
    mean_rgb: tuple[float, float, float],
    std_rgb: tuple[float, float, float],
    out: Float[np.ndarray, "3 h w"],
) -> None:
    """Fill `out` with network input: channels first, RGB, float32, (colour @ (R, G, B, 1) - mean) / std."""
    matrix = np.eye(3, 4) if colour is None else colour.copy()
    matrix[:, 3] -= mean_rgb
    matrix /= np.array(std_rgb)[:, None]
    matrix[:, :3] = matrix[:, 2::-1]
    np.copyto(out, cv2.transform(bgr.astype(np.float32), matrix).transpose(2, 0, 1))


def black(mean_rgb: tuple[float, float, float], std_rgb: tuple[float, float, float]) -> Float[np.ndarray, "3 1 1"]:
    """Network input of a pixel of a picture that is not there."""
    return (-np.array(mean_rgb, np.float32) / np.array(std_rgb, np.float32))[:, None, None]
