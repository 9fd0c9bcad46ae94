"""What training does to a frame so that no two look alike, and the calibration that goes with it.

Pixel coordinates are those of the published models: (0, 0) is the corner of the picture, pixel i covers [i, i + 1]. Scaling, mirroring
and turning pictures in these coordinates needs no half-pixel shifts.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from sparsedrive.data.keyed_random import Purpose, keyed_rng

LUMA_RGB = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class ColourConfig:
    """Photometric distortion of one picture: each change is made with probability one half, by an amount from its range.

    `brightness` in grey levels, `hue_deg` in degrees. Source of the ranges: SparseDrive's training pipeline. It changes saturation and
    hue in HSV; here both are matrices that keep grey grey (saturation about the luma, hue as a turn about the grey axis), so that all
    changes and the normalisation are one 3 x 4 matrix a pixel.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue_deg: float = 18.0
    swap_channels: bool = True

    def __post_init__(self) -> None:
        _check_range("ColourConfig.contrast", self.contrast, least=0.0)
        _check_range("ColourConfig.saturation", self.saturation, least=0.0)
        if self.brightness < 0 or self.hue_deg < 0:
            raise ValueError(f"ColourConfig: expected brightness and hue_deg >= 0, got {self.brightness} and {self.hue_deg}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Ranges to draw from; the defaults are those SparseDrive was trained with.

    Attributes:
        zoom: factor on the size that just covers the network's picture. Published as 0.40 .. 0.47 of 1600 x 900, where 0.44 covers;
            below 1 a strip at the side stays black.
        bottom_cut: part of the resized height that is cut off at the bottom, the rest of what is too much at the top.
        flip_probability: of mirroring. Geometry is kept (the calibration is mirrored too), writing and traffic side are not.
        rotate_deg: of the pictures about their middle.
        turn_deg: of the ego frame about z, with boxes, velocities, futures, map and ego status, not the pictures (Sparse4D: 22.5 degrees).
        colour: photometric distortion, drawn for every picture of every frame; None for none.
        per_sequence: one draw for all frames of a sequence (what a memory of past frames needs to see), else one for every frame.
    """

    zoom: tuple[float, float] = (0.40 / 0.44, 0.47 / 0.44)
    bottom_cut: tuple[float, float] = (0.0, 0.0)
    flip_probability: float = 0.5
    rotate_deg: tuple[float, float] = (-5.4, 5.4)
    turn_deg: tuple[float, float] = (0.0, 0.0)
    colour: ColourConfig | None = field(default_factory=ColourConfig)
    per_sequence: bool = True

    def __post_init__(self) -> None:
        _check_range("AugmentConfig.zoom", self.zoom, least=0.1)
        _check_range("AugmentConfig.bottom_cut", self.bottom_cut, least=0.0, most=0.9)
        _check_range("AugmentConfig.rotate_deg", self.rotate_deg, least=-180.0)
        _check_range("AugmentConfig.turn_deg", self.turn_deg, least=-180.0)
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"AugmentConfig.flip_probability: expected 0..1, got {self.flip_probability}")


def _check_range(name: str, values: tuple[float, float], *, least: float, most: float = np.inf) -> None:
    low, high = values
    if not least <= low <= high <= most:
        raise ValueError(f"{name}: expected (low, high) with {least} <= low <= high <= {most}, got {values}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """One draw, for all cameras of a frame. `shift` is the part of the spare width cut off at the left; the rest as `AugmentConfig`."""

    zoom: float = 1.0
    shift: float = 0.5
    bottom_cut: float = 0.0
    flip: bool = False
    rotate_rad: float = 0.0
    turn_rad: float = 0.0

    def scale(self, image_wh_px: tuple[int, int], final_wh_px: tuple[int, int]) -> float:
        """Size in the network's picture over size in the original one."""
        return self.zoom * max(final / size for final, size in zip(final_wh_px, image_wh_px, strict=True))

    def network_T_image(self, image_wh_px: tuple[int, int], final_wh_px: tuple[int, int]) -> Float[np.ndarray, "4 4"]:  # noqa: N802
        """Left factor that turns `image_T_ego` of an original picture into that of the network's picture, float64.

        Resize, crop, mirror, turn about the middle, in this order. Source: SparseDrive's training pipeline, which rounds the resized
        picture and the crop to whole pixels; here neither is rounded.
        """
        (width, height), scale = final_wh_px, self.scale(image_wh_px, final_wh_px)
        crop_x = self.shift * max(0.0, scale * image_wh_px[0] - width)
        crop_y = (1 - self.bottom_cut) * scale * image_wh_px[1] - height
        resize_crop = np.array([[scale, 0, -crop_x], [0, scale, -crop_y], [0, 0, 1]])
        mirror = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]]) if self.flip else np.eye(3)
        cos, sin = np.cos(self.rotate_rad), np.sin(self.rotate_rad)
        turn = np.array([[cos, sin], [-sin, cos]])
        middle = np.array([width, height]) / 2
        rotate = np.eye(3)
        rotate[:2, :2], rotate[:2, 2] = turn, middle - turn @ middle
        matrix = np.eye(4)
        matrix[:3, :3] = rotate @ mirror @ resize_crop
        return matrix

    def turned_T_ego(self) -> Float[np.ndarray, "4 4"]:  # noqa: N802
        """From the ego frame to the turned ego frame: a rotation about z."""
        cos, sin = np.cos(self.turn_rad), np.sin(self.turn_rad)
        matrix = np.eye(4)
        matrix[:2, :2] = [[cos, -sin], [sin, cos]]
        return matrix


def draw_augmentation(config: AugmentConfig, seed: int, sequence_id: int, frame: int) -> Augmentation:
    """The augmentation of a frame: a function of its arguments alone."""
    rng = keyed_rng(seed, Purpose.GEOMETRY, sequence_id, 0 if config.per_sequence else frame)
    return Augmentation(
        zoom=rng.uniform(*config.zoom),
        shift=rng.uniform(),
        bottom_cut=rng.uniform(*config.bottom_cut),
        flip=bool(rng.uniform() < config.flip_probability),
        rotate_rad=float(np.radians(rng.uniform(*config.rotate_deg))),
        turn_rad=float(np.radians(rng.uniform(*config.turn_deg))),
    )


def draw_colour(config: ColourConfig, seed: int, sequence_id: int, frame: int, camera: int) -> Float[np.ndarray, "3 4"]:
    """Matrix that takes (R, G, B, 1) in grey levels to distorted R, G, B: a function of the arguments alone."""
    rng = keyed_rng(seed, Purpose.COLOUR, sequence_id, frame, camera)
    brightness, contrast, saturation, hue, swap = rng.uniform(size=5) < 0.5
    offset = rng.uniform(-config.brightness, config.brightness) * brightness
    matrix = np.eye(3)
    if saturation:
        amount = rng.uniform(*config.saturation)
        matrix = amount * matrix + (1 - amount) * LUMA_RGB
    if hue:
        matrix = _turn_about_grey(np.radians(rng.uniform(-config.hue_deg, config.hue_deg))) @ matrix
    if contrast:
        matrix = rng.uniform(*config.contrast) * matrix
    if swap and config.swap_channels:
        matrix = matrix[rng.permutation(3)]
    return np.concatenate([matrix, matrix @ np.full((3, 1), offset)], axis=1)


def _turn_about_grey(angle_rad: float) -> Float[np.ndarray, "3 3"]:
    """Rotation about (1, 1, 1) by Rodrigues' formula."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle_rad) * cross + (1 - np.cos(angle_rad)) * cross @ cross
