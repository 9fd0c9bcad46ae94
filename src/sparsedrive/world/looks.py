"""Weather and time of day: what light falls on the town and how the air takes it away with distance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparsedrive.world.mesh import Lamp

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Light on a face is `ambient_rgb` from the whole sky plus `sun_rgb` where the face turns to `sun_direction`.

    `sun_direction` points to the sun in the global frame. `visibility_m`: distance at which 1 - 1/e of a thing is haze of colour
    `horizon_rgb`. `shadow`: how much light the sun's shadow takes, 0 to 1. `wet`: how much the ground mirrors the sky, 0 to 1.
    """

    name: str
    sun_direction: tuple[float, float, float]
    sun_rgb: Rgb
    ambient_rgb: Rgb
    zenith_rgb: Rgb
    horizon_rgb: Rgb
    clouds: float
    visibility_m: float
    shadow: float
    lamps_on: bool = False
    wet: float = 0.0
    rain: bool = False
    grain: float = 0.06

    def light(self, normals: Float[np.ndarray, "F 3"], sun_direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "F 3"]:
        """Light [F, 3], 1 is white, on faces with these normals; both arguments in one frame with z up."""
        sky = 0.72 + 0.25 * normals[:, 2:] + 0.06 * normals[:, :1] - 0.03 * normals[:, 1:2]
        sun = np.maximum(normals @ sun_direction, 0.0)[:, None]
        return sky * np.asarray(self.ambient_rgb) + sun * np.asarray(self.sun_rgb)

    def ground_light(self) -> Float[np.ndarray, "3"]:
        """Light [3] on flat ground in the sun."""
        return self.light(np.array([[0.0, 0.0, 1.0]]), self.sun)[0]

    @property
    def sun(self) -> Float[np.ndarray, "3"]:
        """Unit vector towards the sun."""
        direction = np.asarray(self.sun_direction, dtype=np.float64)
        return direction / np.linalg.norm(direction)

    def haze(self, depth_m: np.ndarray) -> np.ndarray:
        """Part of the haze colour at a distance, 0 (near) to 1 (far): 1 - exp(-distance / visibility)."""
        return 1.0 - np.exp(-np.maximum(depth_m, 0.0) / self.visibility_m)

    def lamp_rgb(self, lamp: Lamp, braking: bool) -> Rgb | None:
        """Colour of a lamp that shines, or None where it reflects like any other face."""
        if lamp == Lamp.TAIL:
            return (255, 48, 36) if braking else ((196, 26, 22) if self.lamps_on else None)
        lit = {Lamp.HEAD: (255, 246, 214), Lamp.WINDOW: (250, 206, 132)}
        return lit.get(lamp) if self.lamps_on else None


def day() -> Look:
    """A clear afternoon with a few clouds."""
    return Look(
        name="day",
        sun_direction=(-0.45, -0.55, 0.95),
        sun_rgb=(0.52, 0.48, 0.40),
        ambient_rgb=(0.68, 0.71, 0.76),
        zenith_rgb=(78, 132, 200),
        horizon_rgb=(205, 219, 232),
        clouds=0.55,
        visibility_m=650.0,
        shadow=0.42,
    )


def dusk() -> Look:
    """After sunset: dark, warm at the horizon, lamps and windows lit."""
    return Look(
        name="dusk",
        sun_direction=(0.8, 0.35, 0.18),
        sun_rgb=(0.26, 0.15, 0.08),
        ambient_rgb=(0.36, 0.35, 0.42),
        zenith_rgb=(38, 50, 92),
        horizon_rgb=(204, 138, 104),
        clouds=0.5,
        visibility_m=420.0,
        shadow=0.2,
        lamps_on=True,
        grain=0.1,
    )


def fog() -> Look:
    """Thick fog: things fade within a hundred metres."""
    return Look(
        name="fog",
        sun_direction=(0.0, 0.2, 1.0),
        sun_rgb=(0.06, 0.06, 0.06),
        ambient_rgb=(0.72, 0.74, 0.76),
        zenith_rgb=(196, 201, 206),
        horizon_rgb=(206, 210, 213),
        clouds=0.0,
        visibility_m=42.0,
        shadow=0.12,
        lamps_on=True,
    )


def rain() -> Look:
    """Rain: grey and wet."""
    return Look(
        name="rain",
        sun_direction=(0.1, 0.2, 1.0),
        sun_rgb=(0.06, 0.06, 0.07),
        ambient_rgb=(0.50, 0.53, 0.57),
        zenith_rgb=(104, 113, 124),
        horizon_rgb=(158, 166, 174),
        clouds=0.9,
        visibility_m=150.0,
        shadow=0.15,
        lamps_on=True,
        wet=0.75,
        rain=True,
        grain=0.09,
    )


LOOKS = {"day": day, "dusk": dusk, "fog": fog, "rain": rain}
"""Every look by its name."""
