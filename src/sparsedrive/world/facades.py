"""How buildings look: walls cut into bays, with rows of windows, shops on the ground floor and a ledge under the roof."""

import numpy as np

from sparsedrive.world.mesh import Builder, Lamp, Mesh
from sparsedrive.world.town import Building

FLOOR_M, SHOP_M, WINDOW_M = 3.1, 3.6, 2.9
PANE_RGB = np.array([(62, 76, 92), (78, 94, 108), (50, 60, 72)])
SIGN_RGB = np.array([(170, 44, 40), (38, 92, 150), (44, 120, 76), (206, 160, 50), (90, 60, 110), (58, 62, 66)])


def building_mesh(building: Building, rng: np.random.Generator, bay_m: float) -> Mesh:
    """A building around the mean of its corners, axes as in the global frame.

    Walls are cut into bays of about `bay_m`, so that haze can grow along them.
    """
    b, outline = Builder(), np.asarray(building.outline_m - building.outline_m.mean(0), dtype=np.float64)
    rgb, height = np.asarray(building.colour_rgb, dtype=np.float64), building.height_m
    corner = np.column_stack([outline, np.zeros(len(outline))])
    shop = height > 7 and rng.random() < 0.6
    style = rng.random(), PANE_RGB[rng.integers(len(PANE_RGB))], SIGN_RGB[rng.integers(len(SIGN_RGB))]
    walls = list(zip(corner, np.roll(corner, -1, axis=0), strict=True))
    b.part(np.array((0.0, 0.0, height / 2)))
    for start, end in walls:
        length = float(np.linalg.norm(end - start))
        bays = max(1, round(length / bay_m))
        for bay in range(bays):
            low, high = bay / bays, (bay + 1) / bays
            _bay(b, start + low * (end - start), start + high * (end - start), height, rgb, shop, style, rng)
    return b.build()


def _bay(
    b: Builder, start: np.ndarray, end: np.ndarray, height_m: float, rgb: np.ndarray, shop: bool,
    style: tuple[float, np.ndarray, np.ndarray], rng: np.random.Generator,
) -> None:  # fmt: skip
    along, up = end - start, np.array([0.0, 0.0, 1.0])
    width_m = float(np.linalg.norm(along))
    kind, pane, sign = style

    def panel(left: float, right: float, low_m: float, high_m: float, colour: np.ndarray, lamp: Lamp = Lamp.NONE) -> None:
        a, c = start + left * along, start + right * along
        b.face([a + low_m * up, c + low_m * up, c + high_m * up, a + high_m * up], colour, lamp)

    panel(0, 1, 0, height_m, rgb)
    first_m = SHOP_M if shop else 0.55
    if shop:
        lamp = Lamp.WINDOW if rng.random() < 0.5 else Lamp.NONE
        panel(0.03, 0.97, 0.5, 2.6, pane, lamp)
        panel(0.03, 0.97, 1.7, 2.6, 1.25 * pane, lamp)
        panel(0.48, 0.52, 0.5, 2.6, 0.6 * rgb)
        panel(0, 1, 2.75, 3.3, sign)
    else:
        panel(0, 1, 0, 0.45, 0.72 * rgb)
    floors = max(1, int((height_m - first_m - 0.5) / FLOOR_M))
    sill, lintel = (0.75, 2.35) if kind < 0.7 else (0.45, 2.6)
    for floor in range(floors):
        base_m = first_m + floor * FLOOR_M
        if base_m + lintel < height_m - 0.4:
            shade = rng.uniform(0.8, 1.15)
            panel(0, 1, base_m + sill, base_m + lintel, shade * pane, Lamp.WINDOW if rng.random() < 0.22 else Lamp.NONE)
    columns = max(1, round(width_m / WINDOW_M))
    half = (0.30 if kind < 0.45 else 0.16) / columns
    for column in range(columns + 1):
        edge = column / columns
        panel(max(0.0, edge - half), min(1.0, edge + half), first_m, height_m - 0.35, 0.97 * rgb)
    panel(0, 1, height_m - 0.4, height_m, np.minimum(255, 1.12 * rgb))
