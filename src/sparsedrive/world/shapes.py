"""How actors look: `actor_mesh` by category, with people, two-wheelers and things on the road; vehicles are in `vehicles`."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from sparsedrive.world import vehicles
from sparsedrive.world.mesh import Builder, Lamp, Mesh, circle, inset

SKIN_RGB = np.array([(232, 190, 158), (198, 146, 108), (140, 96, 66), (92, 62, 46)])
HAIR_RGB = np.array([(36, 28, 24), (74, 50, 32), (150, 112, 66), (120, 118, 116)])
TROUSERS_RGB = np.array([(44, 52, 78), (38, 38, 42), (112, 104, 88), (72, 62, 56)])
ROUND = 8
CONE_RGB, WHITE_RGB, RED_RGB = (244, 100, 24), (238, 238, 234), (204, 38, 32)


def pedestrian(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """Two legs that swing, torso, two arms, head with hair. Clothes in the given colour."""
    side, z, b = width_m / 2, height_m, Builder(hip_m=0.52 * height_m)
    thick = min(0.26 * length_m, 0.12 * z)
    trousers, shirt = _choose(TROUSERS_RGB, rgb, 1), rgb
    stride = length_m / 2 - thick
    for sign in (-1, 1):
        leg, b.swing = sorted((sign * 0.04 * side, sign * 0.44 * side)), sign * stride
        b.wedge((-0.4 * thick, 0.4 * thick), leg, (-0.6 * thick, 0.6 * thick), leg, (0.04 * z, 0.52 * z), trousers)
        b.box((-0.7 * thick, thick), leg, (0.0, 0.045 * z), (30, 28, 28))
    b.layer, b.swing = 1, 0.0
    b.wedge((-0.68 * thick, 0.68 * thick), (-0.46 * side, 0.46 * side), (-0.75 * thick, 0.75 * thick), (-0.60 * side, 0.60 * side),
            (0.47 * z, 0.77 * z), shirt)  # fmt: skip
    for sign in (-1, 1):
        upper, lower = sorted((sign * 0.58 * side, sign * 0.80 * side)), sorted((sign * 0.74 * side, sign * 0.97 * side))
        b.wedge((-0.4 * thick, 0.45 * thick), lower, (-0.5 * thick, 0.5 * thick), upper, (0.46 * z, 0.79 * z), 0.86 * shirt)
        b.box((-0.35 * thick, 0.40 * thick), lower, (0.415 * z, 0.46 * z), _choose(SKIN_RGB, rgb, 2))
    b.layer = 2
    b.wedge((-0.75 * thick, 0.75 * thick), (-0.60 * side, 0.60 * side), (-0.4 * thick, 0.4 * thick), (-0.22 * side, 0.22 * side),
            (0.77 * z, 0.845 * z), shirt)  # fmt: skip
    b.layer = 3
    _head(b, 0.0, (0.84 * z, z), min(0.062 * z, 0.45 * side), rgb)
    return b.build()


def bicycle(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """A thin frame on two large wheels, and its rider upright."""
    return _two_wheeler(length_m, width_m, height_m, rgb, radius_m=min(0.20 * length_m, 0.26 * height_m), motor=False)


def motorcycle(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """Thick wheels, tank and engine, lamps, and a rider with a helmet."""
    return _two_wheeler(length_m, width_m, height_m, rgb, radius_m=min(0.155 * length_m, 0.24 * height_m), motor=True)


def traffic_cone(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """An orange cone with two white bands on a square foot."""
    del rgb  # every cone is orange
    x, y, b = length_m / 2, width_m / 2, Builder()
    b.box((-x, x), (-y, y), (0.0, 0.05 * height_m), (52, 40, 36))
    rings = ((0.05, CONE_RGB), (0.32, WHITE_RGB), (0.50, CONE_RGB), (0.66, WHITE_RGB), (0.80, CONE_RGB), (1.0, CONE_RGB))
    for (low, colour), (high, _) in pairwise(rings):
        b.layer += 1
        below, above = (_ring(np.array((0.0, 0.0)), np.array((x, y)) * (0.74 - 0.64 * h), h * height_m) for h in (low, high))
        b.solid(below, above, colour)
    return b.build()


def barrier(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """A road barrier: foot, and panels striped red and white along its longer side."""
    del rgb  # every barrier is red and white
    x, y, b = length_m / 2, width_m / 2, Builder()
    b.wedge((-x, x), (-y, y), (-0.8 * x, 0.8 * x), (-0.8 * y, 0.8 * y), (0.0, 0.22 * height_m), (176, 174, 168))
    b.layer = 1
    body = b.box((-0.72 * x, 0.72 * x), (-0.72 * y, 0.72 * y), (0.22 * height_m, height_m), WHITE_RGB)
    if length_m >= width_m:
        body = b.box((-x, x), (-0.45 * y, 0.45 * y), (0.22 * height_m, height_m), WHITE_RGB)
        panels = (body.left, body.right)
    else:
        body = b.box((-0.45 * x, 0.45 * x), (-y, y), (0.22 * height_m, height_m), WHITE_RGB)
        panels = (body.front, body.back)
    stripes = max(2, round(max(length_m, width_m) / 0.5))
    for panel in panels:
        for low, high in ((0.08, 0.46), (0.56, 0.96)):
            for stripe in range(stripes):
                start, end = stripe / stripes, (stripe + 0.5) / stripes
                face = inset(panel, (start, end), (low, high))
                lean = (panel[1] - panel[0]) * 0.35 / stripes
                b.face(face + np.array([np.zeros(3), np.zeros(3), lean, lean]), RED_RGB)
        b.face(inset(panel, (0, 1), (0.47, 0.55)), (120, 118, 114))
    return b.build()


def _two_wheeler(length_m: float, width_m: float, height_m: float, rgb: np.ndarray, radius_m: float, motor: bool) -> Mesh:
    x, side, z, b = length_m / 2, width_m / 2, height_m, Builder()
    thick = 0.16 * side if motor else 0.07 * side
    r, axles = radius_m, (x - radius_m, -x + radius_m)
    for axle in axles:
        b.wheel(axle, (-thick, thick), r)
        for y in (-thick, thick):
            b.disc(axle, y, r, 0.78 * r, (112, 114, 116) if motor else (142, 146, 148))
    b.layer = 1
    seat, dark = 0.50 * z, (40, 40, 44)
    paint = rgb if motor else 0.8 * rgb
    body = 0.30 * side if motor else 0.10 * side
    b.box((-0.45 * x, 0.42 * x), (-body, body), (0.9 * r, 1.7 * r if motor else 1.25 * r), dark if motor else paint)
    for sign in (-1, 1):
        leg = sorted((sign * 1.1 * body, sign * 0.62 * side))
        foot, hip = [(0.10 * x, 0.6 * r), (0.28 * x, 0.6 * r)], [(-0.22 * x, seat + 0.06 * z), (-0.20 * x, seat - 0.03 * z)]
        b.sideways([*foot, (0.24 * x, seat + 0.06 * z), *hip], leg, _choose(TROUSERS_RGB, rgb, 1))
    b.layer = 2
    tail = -0.85 * x if motor else -0.5 * x
    top = b.wedge((tail, 0.5 * x), (-1.2 * body, 1.2 * body), (0.9 * tail, 0.42 * x), (-body, body), (1.45 * r, seat), paint)
    if motor:
        b.face(inset(top.front, (0.1, 0.9), (0.35, 0.95)), vehicles.HEAD_RGB, Lamp.HEAD)
        b.face(inset(top.back, (0.1, 0.9), (0.3, 0.9)), vehicles.TAIL_RGB, Lamp.TAIL)
    b.sideways([(0.42 * x, seat + 0.02 * z), (0.52 * x, seat + 0.02 * z), (0.46 * x, seat + 0.12 * z), (0.40 * x, seat + 0.12 * z)],
               (-side, side), dark)  # fmt: skip
    b.layer = 3
    lean = 0.16 * x
    torso = [(-0.32 * x, seat), (0.0, seat), (lean + 0.06 * x, 0.84 * z), (lean - 0.24 * x, 0.84 * z)]
    b.sideways(torso, (-0.52 * side, 0.52 * side), rgb if not motor else 0.55 * rgb)
    for sign in (-1, 1):
        arm = [(lean - 0.12 * x, 0.82 * z), (lean - 0.02 * x, 0.76 * z), (0.46 * x, seat + 0.09 * z), (0.42 * x, seat + 0.15 * z)]
        b.sideways(arm, sorted((sign * 0.54 * side, sign * 0.80 * side)), 0.8 * rgb if not motor else 0.45 * rgb)
    b.layer = 4
    _head(b, lean - 0.06 * x, (0.83 * z, z), 0.078 * z, rgb, helmet=rgb if motor else None)
    return b.build()


def _head(b: Builder, x_m: float, z: tuple[float, float], radius_m: float, rgb: np.ndarray, helmet: np.ndarray | None = None) -> None:
    """A round head with hair at the back and on top, or a helmet with a dark visor."""
    skin = _choose(SKIN_RGB, rgb, 2)
    hair = _choose(HAIR_RGB, rgb, 3) if helmet is None else helmet
    heights = z[0] + (z[1] - z[0]) * np.array([0.0, 0.22, 0.66, 0.92, 1.0])
    rings = [_ring(np.array((x_m, 0.0)), r * radius_m, h) for r, h in zip((0.62, 0.92, 1.0, 0.80, 0.45), heights, strict=True)]
    for number, (low, high) in enumerate(pairwise(rings)):
        colour = skin if number < 2 and helmet is None else hair
        sides = b.solid(low, high, colour, hair)[:ROUND]
        if number == 1 and helmet is not None:
            for i in (0, 7):
                b.face(inset(sides[i], (0, 1), (0.2, 0.95)), (28, 30, 34))
        elif number == 1:
            for i in (2, 3, 4, 5):
                b.face(sides[i], hair)
        b.layer += 1


def _ring(middle_m: np.ndarray, radius_m: np.ndarray | float, z_m: float) -> np.ndarray:
    return np.column_stack([middle_m + circle(0, 0, 1, ROUND) * radius_m, np.full(ROUND, z_m)])


def _choose(palette: np.ndarray, rgb: np.ndarray, salt: int) -> np.ndarray:
    """One of the colours, always the same for an actor of this colour."""
    return palette[int(rgb @ (7, 11, 13)) * salt % len(palette)]


SHAPES: dict[str, Callable[[float, float, float, np.ndarray], Mesh]] = {
    "vehicle.car": vehicles.car,
    "vehicle.emergency": vehicles.car,
    "vehicle.truck": vehicles.truck,
    "vehicle.bus": vehicles.bus,
    "vehicle.trailer": vehicles.trailer,
    "vehicle.construction": vehicles.construction,
    "vehicle.motorcycle": motorcycle,
    "vehicle.bicycle": bicycle,
    "human.pedestrian": pedestrian,
    "movable_object.trafficcone": traffic_cone,
    "movable_object.barrier": barrier,
}
"""Builder of each kind of actor; a category is the kind itself or begins with it and a dot."""


def actor_mesh(category: str, size_lwh_m: Float[np.ndarray, "3"], rgb: Float[np.ndarray, "3"]) -> Mesh:
    """The mesh of an actor, inside its box. Raises ValueError for a category without a shape."""
    for kind, build in SHAPES.items():
        if category == kind or category.startswith(kind + "."):
            length_m, width_m, height_m = map(float, size_lwh_m)
            return build(length_m, width_m, height_m, np.asarray(rgb, dtype=np.float64))
    raise ValueError(f"Cast.categories: expected one of {', '.join(SHAPES)} (or a name below one of them), got {category!r}")
