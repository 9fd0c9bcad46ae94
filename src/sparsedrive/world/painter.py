"""The painter's algorithm: which of two things stands in front, and how flat polygons become pixels.

Camera frame: optical (x right, y down, z forward), metres. Pixel (0, 0) is the middle of the top left pixel, as in OpenCV.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

NEAR_M = 0.25
GUARD_PX = 400.0
SHIFT = 4
"""Pixels are given to OpenCV in fixed point with this many binary digits after the point."""


def far_to_near(footprints_m: Float[np.ndarray, "O K 2"], half_view: float) -> list[int]:
    """Order in which upright things must be painted: whatever hides another one comes after it.

    `footprints_m`: convex outlines on the ground that do not overlap, as x to the right and z ahead of the camera (the last corner
    may repeat). `half_view`: |x / z| at the border of the picture. Two things that share a line of sight are ordered by who is
    nearer along it, which is the same for all lines they share; those which share none may come in any order. A circle of three or
    more (A hides B hides C hides A) is cut at its farthest member.
    """
    low, high = _spans(footprints_m, half_view)
    first, second = np.nonzero(np.triu(np.minimum(high[:, None], high) > np.maximum(low[:, None], low), 1))
    along = 0.5 * (np.maximum(low[first], low[second]) + np.minimum(high[first], high[second]))
    first_is_near = _distance_along(footprints_m[first], along) < _distance_along(footprints_m[second], along)
    near, far = np.where(first_is_near, first, second), np.where(first_is_near, second, first)
    hides: list[list[int]] = [[] for _ in range(len(footprints_m))]
    waits_for = [0] * len(footprints_m)
    for a, b in zip(far.tolist(), near.tolist(), strict=True):
        hides[a].append(b)
        waits_for[b] += 1
    todo = np.argsort(-np.linalg.norm(footprints_m.mean(1), axis=1)).tolist()
    order: list[int] = []
    while todo:
        free = next((item for item in todo if waits_for[item] <= 0), todo[0])
        todo.remove(free)
        order.append(free)
        for item in hides[free]:
            waits_for[item] -= 1
    return order


def hidden(
    footprints_m: Float[np.ndarray, "O K 2"], reach_m: Float[np.ndarray, "O"], top_m: Float[np.ndarray, "O"],
    walls: Bool[np.ndarray, "O"], half_view: float,
) -> Bool[np.ndarray, "O"]:  # fmt: skip
    """Which things are certainly behind one of the `walls` (upright prisms on the ground); footprints as for `far_to_near`.

    `top_m`: height over the camera; `reach_m`: how far a thing stands out beside its footprint.
    """
    low, high = _spans(footprints_m, half_view)
    z = np.maximum(footprints_m[..., 1], NEAR_M)
    farthest_m, nearest_m = z.max(1), np.maximum(z.min(1) - reach_m, NEAR_M)
    wide = reach_m / nearest_m
    rise = np.maximum(top_m / nearest_m, top_m / farthest_m)
    low_wall, high_wall, far_wall_m = low[walls], high[walls], farthest_m[walls]
    wall_rise = np.minimum(top_m / nearest_m, top_m / farthest_m)[walls]
    behind = (nearest_m[:, None] > far_wall_m) & (rise[:, None] < wall_rise)
    low, high = np.maximum(low - wide, -half_view), np.minimum(high + wide, half_view)
    return (behind & (low[:, None] >= low_wall) & (high[:, None] <= high_wall)).any(1)


def _spans(footprints_m: np.ndarray, half_view: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x / z [O] of the part of every outline ahead of the camera, within the view; empty ones have low > high."""
    here, after = footprints_m, np.roll(footprints_m, -1, axis=1)
    rise = after[..., 1] - here[..., 1]
    part = (NEAR_M - here[..., 1]) / np.where(rise == 0, 1, rise)
    cut_x = here[..., 0] + part * (after[..., 0] - here[..., 0])
    crosses = (here[..., 1] < NEAR_M) != (after[..., 1] < NEAR_M)
    ahead = here[..., 1] >= NEAR_M
    slope = here[..., 0] / np.where(ahead, here[..., 1], 1)
    low = np.minimum(np.where(ahead, slope, np.inf).min(1), np.where(crosses, cut_x / NEAR_M, np.inf).min(1))
    high = np.maximum(np.where(ahead, slope, -np.inf).max(1), np.where(crosses, cut_x / NEAR_M, -np.inf).max(1))
    return np.maximum(low, -half_view), np.minimum(high, half_view)


def _distance_along(footprints_m: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Smallest z >= 0 at which the line x = along * z meets each outline [N, K, 2]; infinity where it misses."""
    x, z = footprints_m[..., 0], footprints_m[..., 1]
    off = x - along[:, None] * z
    off_after, z_after = np.roll(off, -1, axis=1), np.roll(z, -1, axis=1)
    crosses = (off < 0) != (off_after < 0)
    meets = z + (z_after - z) * off / np.where(crosses, off - off_after, 1)
    return np.where(crosses & (meets > 0), meets, np.inf).min(1)


class Projection:
    """From the camera frame to pixels of one picture, with everything outside the view cut off."""

    def __init__(self, intrinsic: Float[np.ndarray, "3 3"], wh_px: tuple[int, int]) -> None:
        width, height = wh_px
        self.intrinsic, self.wh_px = np.asarray(intrinsic, dtype=np.float64), wh_px
        edges = np.array([[1, 0, GUARD_PX], [-1, 0, width + GUARD_PX], [0, 1, GUARD_PX], [0, -1, height + GUARD_PX]])
        self._planes = np.concatenate([[[0.0, 0.0, 1.0]], edges @ self.intrinsic])
        self._offsets = np.array([-NEAR_M, 0.0, 0.0, 0.0, 0.0])
        tight = np.array([[1, 0, 1], [-1, 0, width], [0, 1, 1], [0, -1, height]]) @ self.intrinsic
        self._sides = tight / np.linalg.norm(tight, axis=1, keepdims=True)

    def sees(self, centre_m: Float[np.ndarray, "O 3"], radius_m: Float[np.ndarray, "O"]) -> np.ndarray:
        """Whether [O] balls reach into the view."""
        return ((centre_m @ self._sides.T) > -radius_m[:, None]).all(1) & (centre_m[:, 2] > NEAR_M - radius_m)

    def project(
        self, points_m: Float[np.ndarray, "F K 3"], count: Int[np.ndarray, "F"]
    ) -> tuple[Int[np.ndarray, "V"], Float[np.ndarray, "V L 2"], Int[np.ndarray, "V"]]:
        """Numbers of the polygons of which something may be seen, their pixels, and how many corners each has now."""
        pixels, low, high = self._pixels(points_m)
        size = np.array(self.wh_px)
        ahead = points_m[..., 2] >= NEAR_M
        whole = np.asarray(ahead.all(1) & (low > -GUARD_PX).all(1) & (high < size + GUARD_PX).all(1))
        cut = np.flatnonzero(~whole & ahead.any(1))
        if len(cut):
            clipped = points_m[cut]
            for plane, offset in zip(self._planes, self._offsets, strict=True):
                clipped = clip(clipped, clipped @ plane.astype(clipped.dtype) + offset)
            left = clipped[:, 0, 2] > 0
            cut, clipped = cut[left], clipped[left]
            pixels = np.concatenate([pixels, np.repeat(pixels[:, -1:], clipped.shape[1] - pixels.shape[1], axis=1)], axis=1)
            pixels[cut], low[cut], high[cut] = self._pixels(clipped)
            count = count.copy()
            count[cut] = clipped.shape[1]
            whole[cut] = True
        seen = np.flatnonzero(whole & (high > -1).all(1) & (low < size).all(1))
        return seen, pixels[seen], count[seen]

    def _pixels(self, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of polygons, and the lowest and highest of each."""
        image = points_m @ self.intrinsic.T.astype(points_m.dtype)
        pixels = image[..., :2] / np.maximum(image[..., 2:], 0.9 * NEAR_M)
        return pixels, pixels.min(1), pixels.max(1)


def clip(points_m: Float[np.ndarray, "F K 3"], inside: Float[np.ndarray, "F K"]) -> Float[np.ndarray, "F L 3"]:
    """The parts of convex polygons where `inside`, a linear function of the point, is not negative; L = K + 1.

    The last corner repeats where fewer are left; a polygon of which nothing is left is one point at (0, 0, -1).
    """
    after_m, after = np.roll(points_m, -1, axis=1), np.roll(inside, -1, axis=1)
    crosses = (inside < 0) != (after < 0)
    part = inside / np.where(crosses, inside - after, 1)
    cut_m = points_m + part[..., None] * (after_m - points_m)
    corners = np.stack([points_m, cut_m], axis=2).reshape(len(points_m), -1, 3)
    kept = np.stack([inside >= 0, crosses], axis=2).reshape(len(points_m), -1)
    order = np.argsort(~kept, axis=1, kind="stable")[:, : points_m.shape[1] + 1]
    left = kept.sum(1)
    order = np.take_along_axis(order, np.minimum(np.arange(order.shape[1]), np.maximum(left - 1, 0)[:, None]), axis=1)
    result = np.take_along_axis(corners, order[..., None], axis=1)
    result[left < 3] = (0.0, 0.0, -1.0)
    return result


def area_px(pixels: Float[np.ndarray, "F K 2"]) -> Float[np.ndarray, "F"]:
    """Area of polygons in square pixels."""
    x, y = pixels[..., 0], pixels[..., 1]
    return 0.5 * np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(1))


def fixed_point(pixels: Float[np.ndarray, "F K 2"]) -> Int[np.ndarray, "F K 2"]:
    """Pixels as OpenCV takes them with `shift=SHIFT`."""
    return np.round(pixels * (1 << SHIFT)).astype(np.int32)


def fill(image: np.ndarray, polygons: list[np.ndarray], colours: list, smooth: bool = True) -> None:
    """Fill convex polygons (fixed point [K, 2] each), one after the other."""
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    for polygon, colour in zip(polygons, colours, strict=True):
        cv2.fillConvexPoly(image, polygon, colour, line, SHIFT)
