"""Convex parts made of flat polygons, from which everything in the world is built.

A mesh stands in the frame of its object: origin on the ground under its middle, x forward, y left, z up, metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int

MOST_CORNERS = 12

Rgb = Sequence[float] | np.ndarray


class Lamp(IntEnum):
    """What shines by itself."""

    NONE = 0
    HEAD = 1
    TAIL = 2
    WINDOW = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mesh:
    """F flat convex faces with up to 12 corners (`count` of them used, the last one repeats), seen from outside only.

    Faces come in the order of painting: `layer` by layer (every layer stands on the one before), and where one layer has several
    parts (`part`, with middles `part_centre_m`), the farther part first. `swing` moves corners forward with the step of a walker.
    """

    points_m: Float[np.ndarray, "F 12 3"]
    count: Int[np.ndarray, "F"]
    normals: Float[np.ndarray, "F 3"]
    rgb: Float[np.ndarray, "F 3"]
    lamp: Int[np.ndarray, "F"]
    layer: Int[np.ndarray, "F"]
    part: Int[np.ndarray, "F"]
    part_centre_m: Float[np.ndarray, "P 3"]
    swing: Float[np.ndarray, "F 12"]
    side_by_side: bool
    walks: bool

    def facing(self, eye_m: Float[np.ndarray, "3"]) -> Int[np.ndarray, "V"]:
        """Numbers of the faces turned towards an eye in the frame of the mesh, in the order of painting."""
        seen = np.flatnonzero(((eye_m.astype(np.float32) - self.points_m[:, 0]) * self.normals).sum(1) > 0)
        if self.side_by_side and len(seen):
            distance_m = np.linalg.norm(self.part_centre_m - eye_m, axis=1)
            seen = seen[np.lexsort((-distance_m[self.part[seen]], self.layer[seen]))]
        return seen


@dataclass(slots=True)
class _Part:
    centre_m: np.ndarray
    layer: int
    swing: float


@dataclass(slots=True, kw_only=True)
class Builder:
    """Collects parts and paints details on them. Everything is painted in the order it is added, within its layer.

    `layer` and `swing` (forward move of a foot on the ground, 1 = full step) hold for the parts added next.
    """

    layer: int = 0
    swing: float = 0.0
    hip_m: float = 1.0
    _parts: list[_Part] = field(default_factory=list)
    _faces: list[tuple[np.ndarray, Rgb, Lamp, int]] = field(default_factory=list)

    def part(self, centre_m: np.ndarray) -> None:
        """A convex part around a middle, without faces so far."""
        self._parts.append(_Part(np.asarray(centre_m, dtype=np.float64), self.layer, self.swing))

    def face(self, points_m: np.ndarray | Sequence[Sequence[float]], rgb: Rgb, lamp: Lamp = Lamp.NONE) -> np.ndarray:
        """A polygon [3..12, 3] on the part added last: a side of it or something painted on a side. Returns its corners."""
        points = np.asarray(points_m, dtype=np.float64)
        assert 3 <= len(points) <= MOST_CORNERS
        self._faces.append((points, rgb, lamp, len(self._parts) - 1))
        return points

    def solid(self, bottom_m: np.ndarray, top_m: np.ndarray, rgb: Rgb, top_rgb: Rgb | None = None) -> list[np.ndarray]:
        """A convex part between two polygons [n, 3], below and above. Returns its sides, then its top.

        Above the first layer it has no underside: that rests on the layer before, which would be painted over.
        """
        sides = self._between(bottom_m, top_m, rgb)
        if self.layer == 0:
            self.face(bottom_m, rgb)
        return [*sides, self.face(top_m, rgb if top_rgb is None else top_rgb)]

    def _between(self, bottom_m: np.ndarray, top_m: np.ndarray, rgb: Rgb) -> list[np.ndarray]:
        """A part without ends."""
        count = len(bottom_m)
        self.part(np.concatenate([bottom_m, top_m]).mean(0))
        after = np.roll(np.arange(count), -1)
        return [self.face([bottom_m[i], bottom_m[j], top_m[j], top_m[i]], rgb) for i, j in enumerate(after)]

    def box(self, x: Sequence[float], y: Sequence[float], z: Sequence[float], rgb: Rgb, top_rgb: Rgb | None = None) -> "Sides":
        """A box between two numbers in each direction."""
        return self.wedge(x, y, x, y, z, rgb, top_rgb)

    def wedge(
        self, x: Sequence[float], y: Sequence[float], top_x: Sequence[float], top_y: Sequence[float], z: Sequence[float],
        rgb: Rgb, top_rgb: Rgb | None = None,
    ) -> "Sides":  # fmt: skip
        """A box with another size above than below. Corners of the sides begin at bottom left as seen from outside."""

        def ring(x, y, z):
            return np.array([(x[1], y[1], z), (x[0], y[1], z), (x[0], y[0], z), (x[1], y[0], z)], dtype=np.float64)

        left, back, right, front, top = self.solid(ring(x, y, z[0]), ring(top_x, top_y, z[1]), rgb, top_rgb)
        return Sides(front=front, left=left, back=back, right=right, top=top)

    def sideways(self, profile_xz: Sequence[Sequence[float]] | np.ndarray, y: Sequence[float], rgb: Rgb) -> list[np.ndarray]:
        """A convex outline [n, 2] of x, z drawn out from one y to another. Returns its n long sides, then right and left end."""
        profile = np.asarray(profile_xz, dtype=np.float64)
        right, left = (np.insert(profile, 1, value, axis=1) for value in y)
        return [*self._between(right, left, rgb), self.face(right, rgb), self.face(left, rgb)]

    def wheel(self, x_m: float, y: Sequence[float], radius_m: float, rgb: Rgb = (26, 26, 28)) -> None:
        """A wheel that stands on the ground, with its axle along y."""
        self.sideways(circle(x_m, radius_m, radius_m), y, rgb)

    def disc(self, x_m: float, y_m: float, z_m: float, radius_m: float, rgb: Rgb) -> None:
        """A round spot facing left or right, on the part added last."""
        self.face(np.insert(circle(x_m, z_m, radius_m), 1, y_m, axis=1), rgb)

    def build(self) -> Mesh:
        """The mesh of everything added so far."""
        points = np.stack([np.concatenate([face, np.repeat(face[-1:], MOST_CORNERS - len(face), 0)]) for face, *_ in self._faces])
        part = np.array([part for *_, part in self._faces])
        centre = np.stack([part.centre_m for part in self._parts])
        layer = np.array([part.layer for part in self._parts])
        swing = np.array([part.swing for part in self._parts])[part, None] * np.clip(1 - points[..., 2] / self.hip_m, 0, 1)
        count = np.array([len(face) for face, *_ in self._faces])
        normals = _normals(points, count, centre[part])
        order = np.argsort(layer[part], kind="stable")
        return Mesh(
            points_m=points[order].astype(np.float32),
            count=count[order],
            normals=normals[order].astype(np.float32),
            rgb=np.array([rgb for _, rgb, _, _ in self._faces], dtype=np.float64)[order],
            lamp=np.array([lamp for *_, lamp, _ in self._faces])[order],
            layer=layer[part][order],
            part=part[order],
            part_centre_m=centre,
            swing=swing[order].astype(np.float32),
            side_by_side=len(np.unique(layer)) < len(layer),
            walks=bool(swing.any()),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sides:
    """Sides [4, 3] of a box, each from bottom left counter-clockwise as seen from outside; `top` from its front left corner."""

    front: np.ndarray
    left: np.ndarray
    back: np.ndarray
    right: np.ndarray
    top: np.ndarray


def inset(side_m: np.ndarray, across: tuple[float, float], up: tuple[float, float]) -> np.ndarray:
    """A part [4, 3] of a four-cornered side, from 0 to 1 across and up it."""
    a, b, d, c = side_m[0], side_m[1], side_m[2], side_m[3]
    corners = [(across[0], up[0]), (across[1], up[0]), (across[1], up[1]), (across[0], up[1])]
    return np.stack([(a * (1 - u) + b * u) * (1 - v) + (c * (1 - u) + d * u) * v for u, v in corners])


def circle(x_m: float, y_m: float, radius_m: float, count: int = MOST_CORNERS) -> Float[np.ndarray, "n 2"]:
    """Corners of a regular polygon that touches the circle's box on all four sides."""
    angle_rad = 2 * np.pi * np.arange(count) / count
    return np.stack([x_m + radius_m * np.cos(angle_rad), y_m + radius_m * np.sin(angle_rad)], axis=1)


def _normals(points_m: np.ndarray, count: np.ndarray, centre_m: np.ndarray) -> np.ndarray:
    """Unit normals that point away from the middle of the part (Newell's method: the sum of cross products of neighbours)."""
    normals = np.cross(points_m, np.roll(points_m, -1, axis=1)).sum(1)
    used = np.arange(MOST_CORNERS) < count[:, None]
    middle_m = (points_m * used[..., None]).sum(1) / count[:, None]
    outwards = ((middle_m - centre_m) * normals).sum(1) >= 0
    normals *= np.where(outwards, 1.0, -1.0)[:, None]
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    assert (length > 0).all(), "a face without area"
    return normals / length
