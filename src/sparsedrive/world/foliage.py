"""How trees look: a trunk, and a crown that is a picture of many leaves, always turned to the camera."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sparsedrive.world.mesh import Builder, Mesh, circle
from sparsedrive.world.town import Tree

SPRITE_PX = 256
LUMPS, LEAVES, SPRITE_SEED = 26, 11000, 7
TRUNK_RGB = (92, 74, 58)
LEAF_RGB = np.array([(74, 112, 46), (92, 122, 50), (58, 98, 52), (108, 126, 58)])
KINDS = len(LEAF_RGB)


def trunk_mesh(tree: Tree) -> Mesh:
    """The trunk, up into the crown. Stands at the origin."""
    radius_m, b = trunk_radius_m(tree), Builder()
    ring = circle(0, 0, radius_m, 6)
    top_m = crown_centre_m(tree) - 0.3 * tree.crown_radius_m
    b.solid(np.column_stack([ring, np.zeros(6)]), np.column_stack([0.7 * ring, np.full(6, top_m)]), TRUNK_RGB)
    return b.build()


def trunk_radius_m(tree: Tree) -> float:
    """Radius of the trunk."""
    return min(0.06 * tree.height_m * 0.5, 0.22)


def crown_centre_m(tree: Tree) -> float:
    """Height of the middle of the crown over the ground."""
    return tree.height_m - tree.crown_radius_m


@lru_cache(maxsize=1)
def crown_sprites() -> list[list[Float[np.ndarray, "S S 4"]]]:
    """For every kind of tree its crown in halving sizes: red, green, blue (0 to 1, already multiplied by alpha) and alpha."""
    rng = np.random.default_rng(SPRITE_SEED)
    return [_halved(_crown(rng, rgb / 255.0)) for rgb in LEAF_RGB]


def _crown(rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
    """Leaves from the back of a ball to its front; those on top and in front have more light."""
    size, picture = 2 * SPRITE_PX, np.zeros((2 * SPRITE_PX, 2 * SPRITE_PX, 4), np.float32)
    lumps = rng.normal(size=(LUMPS, 3))
    lumps *= (0.62 * rng.uniform(0.55, 1.0, LUMPS) / np.linalg.norm(lumps, axis=1))[:, None]
    lumps = lumps[np.argsort(-lumps[:, 1])]
    lump = np.repeat(lumps, LEAVES // LUMPS, axis=0)
    leaf = lump + rng.normal(size=lump.shape) * 0.14
    # Light: up in the crown, up on its own lump, and not deep inside.
    light = 0.62 + 0.24 * leaf[:, 2] + 0.9 * (leaf - lump)[:, 2] + 0.10 * np.linalg.norm(leaf, axis=1) - 0.10 * leaf[:, 1]
    light = np.clip(light + rng.normal(size=len(leaf)) * 0.05, 0.32, 1.1)
    radius = size * rng.uniform(0.0045, 0.0105, len(leaf)) * 16
    centre = (0.5 + 0.5 * leaf[:, [0, 2]] * (1, -1)) * size * 16
    for number in np.flatnonzero(np.linalg.norm(leaf, axis=1) < 0.95):
        shade = np.minimum(light[number] * 1.35 * rgb, 1)
        middle = centre[number].astype(int).tolist()
        cv2.circle(picture, middle, int(radius[number]), (*shade.tolist(), 1.0), -1, cv2.LINE_AA, 4)
    return cv2.resize(picture, (SPRITE_PX, SPRITE_PX), interpolation=cv2.INTER_AREA)


def _halved(picture: np.ndarray) -> list[np.ndarray]:
    sizes = [picture]
    while sizes[-1].shape[0] > 8:
        half = sizes[-1].shape[0] // 2
        sizes.append(cv2.resize(sizes[-1], (half, half), interpolation=cv2.INTER_AREA))
    return sizes


def paint_crown(
    image: UInt8[np.ndarray, "H W 3"], sprites: list[np.ndarray], centre_px: tuple[float, float], radius_px: float,
    light: np.ndarray, haze: np.ndarray, mist: float,
) -> None:  # fmt: skip
    """Blend a crown into a uint8 RGB picture, under light [3] and with a part `mist` of haze colour [3] over it."""
    height, width = image.shape[:2]
    left, top = max(int(centre_px[0] - radius_px), 0), max(int(centre_px[1] - radius_px), 0)
    right, bottom = min(int(centre_px[0] + radius_px) + 2, width), min(int(centre_px[1] + radius_px) + 2, height)
    if left >= right or top >= bottom or radius_px < 0.6:
        return
    level = next((s for s in reversed(sprites) if s.shape[0] >= 2 * radius_px), sprites[0])
    scale = level.shape[0] / (2 * radius_px)
    offset = [(left - centre_px[0] + radius_px + 0.5) * scale - 0.5, (top - centre_px[1] + radius_px + 0.5) * scale - 0.5]
    take = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    leaves = cv2.warpAffine(level, take, (right - left, bottom - top), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    alpha = leaves[..., 3:]
    leaves = leaves[..., :3] * (255 * (1 - mist) * light).astype(np.float32) + alpha * (mist * haze).astype(np.float32)
    region = image[top:bottom, left:right]
    np.copyto(region, np.clip(region * (1 - alpha) + leaves, 0, 255), casting="unsafe")
