"""How vehicles look: meshes that fill their box (length along x, width along y, height along z, standing on z = 0)."""

import numpy as np

from sparsedrive.world.mesh import Builder, Lamp, Mesh, Sides, inset

GLASS, SKY_GLASS, TYRE, HUB, TRIM, CHASSIS = (36, 44, 54), (66, 82, 98), (24, 24, 26), (150, 152, 156), (34, 35, 38), (44, 44, 46)
HEAD_RGB, TAIL_RGB, PLATE_RGB = (226, 230, 234), (120, 24, 22), (214, 214, 206)
WARNING_YELLOW = np.array((236, 170, 32))


def car(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """A saloon, or with a high roof a wagon: body with lamps, cabin of glass, mirrors, four wheels."""
    front, side, z, b = length_m / 2, width_m / 2, height_m, Builder()
    radius = min(0.215 * z, 0.085 * length_m)
    axles = (0.31 * length_m, -0.30 * length_m)
    b.box((-0.90 * front, 0.90 * front), (-0.86 * side, 0.86 * side), (0.5 * radius, 1.4 * radius), TRIM)
    _axles(b, axles, side, radius)
    b.layer = 1
    low = b.wedge((-0.975 * front, 0.965 * front), (-0.97 * side, 0.97 * side), (-front, front), (-side, side), (0.14 * z, 0.38 * z), rgb)
    for panel, up in ((low.front, 0.42), (low.back, 0.40)):
        b.face(inset(panel, (0, 1), (0, up)), TRIM)
    b.face(inset(low.front, (0.36, 0.64), (0.46, 0.72)), PLATE_RGB)
    for panel in (low.left, low.right):
        b.face(inset(panel, (0.02, 0.98), (0.0, 0.15)), TRIM)
        for seam in (0.34, 0.50, 0.65):
            b.face(inset(panel, (seam, seam + 0.003), (0.15, 1.0)), 0.45 * rgb)
    _arches(b, axles, side, radius)
    b.layer = 2
    belt, nose = 0.63 * z, 0.535 * z
    high = _rump(b, (-front, front), side, (-0.985 * front, 0.955 * front), 0.94 * side, (0.38 * z, belt, nose), rgb)
    b.face(inset(high.front, (0.27, 0.73), (0.15, 0.80)), (34, 35, 38))
    b.face(inset(high.back, (0.36, 0.64), (0.10, 0.45)), PLATE_RGB)
    for lamp in ((0.02, 0.24), (0.76, 0.98)):
        b.face(inset(high.front, lamp, (0.30, 0.86)), HEAD_RGB, Lamp.HEAD)
        b.face(inset(high.back, lamp, (0.30, 0.88)), TAIL_RGB, Lamp.TAIL)
    for panel, door in ((high.left, 0.54), (high.right, 0.46)):
        b.face(inset(panel, (door - 0.002, door + 0.002), (0.0, 1.0)), 0.45 * rgb)
    b.layer = 3
    wagon = z > 0.345 * length_m
    base, roof = (-0.965 if wagon else -0.84) * front, (-0.80 if wagon else -0.50) * front
    cabin = b.wedge((base, 0.46 * front), (-0.92 * side, 0.92 * side), (roof, 0.10 * front), (-0.70 * side, 0.70 * side),
                    (0.60 * z, z), rgb)  # fmt: skip
    for panel, across in ((cabin.front, (0.05, 0.95)), (cabin.back, (0.08, 0.92))):
        _pane(b, panel, across, (0.12, 0.90))
    for panel, spans in ((cabin.left, ((0.10, 0.47), (0.50, 0.91))), (cabin.right, ((0.09, 0.50), (0.53, 0.90)))):
        for across in spans:
            _pane(b, panel, across, (0.10, 0.86))
    for mirror in ((-side, -0.86 * side), (0.86 * side, side)):
        b.box((0.30 * front, 0.36 * front), mirror, (0.62 * z, 0.70 * z), 0.8 * rgb)
    return b.build()


def bus(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """One long box with a band of windows, doors on the right, a lit sign in front."""
    front, side, b = length_m / 2, width_m / 2, Builder()
    radius = min(0.165 * height_m, 0.06 * length_m)
    pale = 0.25 * rgb + 0.75 * np.array((236, 236, 230))
    b.box((-0.47 * length_m, 0.47 * length_m), (-0.88 * side, 0.88 * side), (0.4 * radius, 1.5 * radius), TRIM)
    _axles(b, (0.31 * length_m, -0.29 * length_m), side, radius)
    b.layer = 1
    body = b.box((-front, front), (-side, side), (0.10 * height_m, 0.955 * height_m), rgb)
    for panel in (body.left, body.right, body.front, body.back):
        b.face(inset(panel, (0, 1), (0.0, 0.07)), TRIM)
        b.face(inset(panel, (0, 1), (0.86, 1.0)), pale)
    bays = max(3, round(length_m / 1.6))
    for panel, forward in ((body.left, False), (body.right, True)):
        b.face(inset(panel, (0, 1), (0.30, 0.36)), pale)
        _pane(b, panel, (0.015, 0.985), (0.44, 0.83))
        for bay in range(1, bays):
            b.face(inset(panel, (bay / bays - 0.004, bay / bays + 0.004), (0.44, 0.83)), 0.7 * rgb)
        if forward:
            for door in (0.40, 0.93):
                b.face(inset(panel, (door - 0.05, door + 0.05), (0.05, 0.84)), (54, 66, 76))
    _arches(b, (0.31 * length_m, -0.29 * length_m), side, radius)
    _pane(b, body.front, (0.04, 0.96), (0.28, 0.84))
    b.face(inset(body.front, (0.16, 0.84), (0.87, 0.97)), (255, 176, 48), Lamp.WINDOW)
    b.face(inset(body.front, (0.36, 0.64), (0.10, 0.16)), PLATE_RGB)
    b.face(inset(body.back, (0.14, 0.86), (0.50, 0.82)), GLASS)
    _lamps(b, body, (0.03, 0.17), (0.10, 0.20), (0.10, 0.30))
    b.layer = 2
    b.wedge((-front, front), (-side, side), (-0.99 * front, 0.985 * front), (-0.93 * side, 0.93 * side),
            (0.955 * height_m, height_m), pale)  # fmt: skip
    return b.build()


def truck(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """A coloured cab in front of a pale cargo box, on a dark chassis with three axles."""
    front, side, b = length_m / 2, width_m / 2, Builder()
    radius = min(0.17 * height_m, 0.09 * length_m)
    cab_m = min(0.30 * length_m, 2.3)
    axles = (front - 0.55 * cab_m, -0.22 * length_m, -0.22 * length_m - 2.15 * radius)
    b.box((-0.98 * front, 0.96 * front), (-0.80 * side, 0.80 * side), (0.7 * radius, 0.24 * height_m), CHASSIS)
    _axles(b, axles, side, radius)
    b.layer = 1
    cargo = b.box((-front, front - cab_m - 0.04 * length_m), (-side, side), (0.24 * height_m, height_m), 0.12 * rgb + (200, 200, 196))
    for panel in (cargo.left, cargo.right):
        b.face(inset(panel, (0.0, 1.0), (0.0, 0.07)), (120, 122, 124))
        b.face(inset(panel, (0.10, 0.90), (0.34, 0.62)), rgb)
    b.face(inset(cargo.back, (0.495, 0.505), (0.0, 1.0)), (80, 80, 82))
    b.face(inset(cargo.back, (0.02, 0.98), (0.0, 0.10)), (180, 40, 34))
    for lamp in ((0.02, 0.16), (0.84, 0.98)):
        b.face(inset(cargo.back, lamp, (0.01, 0.09)), TAIL_RGB, Lamp.TAIL)
    cab_z = 0.86 * height_m
    cab = b.wedge((front - cab_m, front), (-0.96 * side, 0.96 * side), (front - cab_m, front - 0.12 * cab_m), (-0.9 * side, 0.9 * side),
                  (0.12 * height_m, cab_z), rgb)  # fmt: skip
    _pane(b, cab.front, (0.06, 0.94), (0.52, 0.90))
    b.face(inset(cab.front, (0.16, 0.84), (0.16, 0.44)), (52, 54, 58))
    b.face(inset(cab.front, (0.0, 1.0), (0.0, 0.11)), TRIM)
    for panel, across in ((cab.left, (0.14, 0.62)), (cab.right, (0.38, 0.86))):
        _pane(b, panel, across, (0.52, 0.88))
    for lamp in ((0.02, 0.15), (0.85, 0.98)):
        b.face(inset(cab.front, lamp, (0.14, 0.26)), HEAD_RGB, Lamp.HEAD)
    _arches(b, axles[:1], 0.96 * side, radius)
    return b.build()


def trailer(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """A long ribbed box on three axles at its back, legs in front, red and white marks along its lower edge."""
    front, side, b = length_m / 2, width_m / 2, Builder()
    radius = min(0.14 * height_m, 0.05 * length_m)
    grey = 0.2 * rgb + (150, 152, 154)
    axles = tuple(-0.20 * length_m - 2.2 * radius * i for i in range(3))
    b.box((-0.98 * front, 0.98 * front), (-0.6 * side, 0.6 * side), (0.22 * height_m, 0.29 * height_m), CHASSIS)
    _axles(b, axles, side, radius)
    for y in ((-0.75 * side, -0.6 * side), (0.6 * side, 0.75 * side)):
        b.box((0.52 * front, 0.57 * front), y, (0.0, 0.29 * height_m), (70, 72, 74))
    b.layer = 1
    body = b.box((-front, front), (-side, side), (0.28 * height_m, height_m), grey)
    ribs = max(4, round(length_m / 1.1))
    for panel in (body.left, body.right):
        for rib in range(1, ribs):
            b.face(inset(panel, (rib / ribs - 0.006, rib / ribs + 0.006), (0.04, 0.97)), 0.78 * grey)
        b.face(inset(panel, (0, 1), (0.0, 0.05)), (206, 206, 202))
        for mark in range(0, ribs, 2):
            b.face(inset(panel, (mark / ribs, (mark + 1) / ribs), (0.0, 0.05)), (190, 36, 32))
        b.face(inset(panel, (0, 1), (0.96, 1.0)), 0.6 * grey)
    for u in (0.02, 0.5, 0.98):
        b.face(inset(body.back, (u - 0.01, u + 0.01), (0.0, 1.0)), 0.5 * grey)
    b.face(inset(body.back, (0, 1), (0.0, 0.07)), (236, 196, 40))
    for lamp in ((0.02, 0.18), (0.82, 0.98)):
        b.face(inset(body.back, lamp, (0.005, 0.065)), TAIL_RGB, Lamp.TAIL)
    return b.build()


def construction(length_m: float, width_m: float, height_m: float, rgb: np.ndarray) -> Mesh:
    """A yellow excavator on two tracks: engine house, cab, boom, stick and bucket in front."""
    del rgb  # working machines are yellow
    front, side, b = length_m / 2, width_m / 2, Builder()
    z = height_m

    def arm(x: tuple[float, float], low: tuple[float, float], thick: float, shade: float) -> None:
        profile = [(x[0], low[0]), (x[1], low[1]), (x[1], low[1] + thick), (x[0], low[0] + thick)]
        b.sideways(np.array(profile) * (front, z), (-0.12 * side, 0.12 * side), shade * WARNING_YELLOW)

    track = np.array([(-0.86, 0), (0.16, 0), (0.3, 0.10), (0.3, 0.18), (0.16, 0.27), (-0.86, 0.27), (-1.0, 0.18), (-1.0, 0.10)])
    for y in ((-side, -0.58 * side), (0.58 * side, side)):
        b.sideways(track * (front, z), y, (46, 44, 42))
        for x in (-0.72, -0.35, 0.02):
            b.disc(x * front, y[0] if y[0] < 0 else y[1], 0.135 * z, 0.10 * z, (92, 86, 70))
    b.box((-0.8 * front, 0.1 * front), (-0.58 * side, 0.58 * side), (0.12 * z, 0.30 * z), (60, 58, 54))
    b.layer = 1
    engine = b.box((-0.98 * front, -0.22 * front), (-0.90 * side, 0.90 * side), (0.30 * z, 0.66 * z), WARNING_YELLOW)
    b.face(inset(engine.back, (0.12, 0.88), (0.25, 0.75)), (58, 56, 52))
    for panel in (engine.left, engine.right):
        b.face(inset(panel, (0.1, 0.9), (0.05, 0.22)), (52, 50, 48))
    for lamp in ((0.01, 0.10), (0.90, 0.99)):
        b.face(inset(engine.back, lamp, (0.05, 0.2)), TAIL_RGB, Lamp.TAIL)
    cab = b.wedge((-0.22 * front, 0.26 * front), (0.14 * side, 0.90 * side), (-0.2 * front, 0.16 * front), (0.18 * side, 0.86 * side),
                  (0.30 * z, 0.99 * z), WARNING_YELLOW, (226, 226, 220))  # fmt: skip
    for panel in (cab.front, cab.left, cab.right, cab.back):
        _pane(b, panel, (0.10, 0.90), (0.34, 0.92))
    b.box((-0.22 * front, 0.26 * front), (-0.90 * side, -0.12 * side), (0.30 * z, 0.48 * z), 0.9 * WARNING_YELLOW)
    b.layer = 2
    arm((0.02, 0.48), (0.46, 0.84), 0.16, 1.0)
    arm((0.44, 0.90), (0.83, 0.20), 0.13, 0.94)
    bucket = np.array([(0.66, 0.0), (0.96, 0.0), (1.0, 0.24), (0.80, 0.27)]) * (front, z)
    b.sideways(bucket, (-0.42 * side, 0.42 * side), (70, 68, 66))
    return b.build()


def _rump(
    b: Builder, x: tuple[float, float], side_m: float, top_x: tuple[float, float], top_side_m: float, z: tuple[float, float, float],
    rgb: np.ndarray,
) -> Sides:  # fmt: skip
    """Upper half of a car's body, whose top falls from the back (`z[1]`) to the nose (`z[2]`)."""

    def ring(x: tuple[float, float], y: float, back_z: float, front_z: float) -> np.ndarray:
        return np.array([(x[1], y, front_z), (x[0], y, back_z), (x[0], -y, back_z), (x[1], -y, front_z)])

    left, back, right, front, top = b.solid(ring(x, side_m, z[0], z[0]), ring(top_x, top_side_m, z[1], z[2]), rgb)
    return Sides(front=front, left=left, back=back, right=right, top=top)


def _pane(b: Builder, panel: np.ndarray, across: tuple[float, float], up: tuple[float, float]) -> None:
    """A window that shows the sky in its upper part."""
    b.face(inset(panel, across, up), GLASS)
    b.face(inset(panel, across, (0.5 * (up[0] + up[1]), up[1])), SKY_GLASS)


def _axles(b: Builder, axles_m: tuple[float, ...], side_m: float, radius_m: float) -> None:
    for axle in axles_m:
        for sign in (-1, 1):
            b.wheel(axle, sorted((sign * 0.62 * side_m, sign * 0.985 * side_m)), radius_m)
            b.disc(axle, sign * 0.985 * side_m, radius_m, 0.55 * radius_m, HUB)


def _arches(b: Builder, axles_m: tuple[float, ...], side_m: float, radius_m: float) -> None:
    """Wheels in front of the sides of the part added last."""
    for y in (-side_m, side_m):
        for axle in axles_m:
            b.disc(axle, y, 1.15 * radius_m, 1.15 * radius_m, (14, 14, 16))
            b.disc(axle, y, radius_m, radius_m, TYRE)
            b.disc(axle, y, radius_m, 0.62 * radius_m, HUB)
            b.disc(axle, y, radius_m, 0.2 * radius_m, TRIM)


def _lamps(b: Builder, body: Sides, across: tuple[float, float], head_up: tuple[float, float], tail_up: tuple[float, float]) -> None:
    for u in (across, (1 - across[1], 1 - across[0])):
        b.face(inset(body.front, u, head_up), HEAD_RGB, Lamp.HEAD)
        b.face(inset(body.back, u, tail_up), TAIL_RGB, Lamp.TAIL)
