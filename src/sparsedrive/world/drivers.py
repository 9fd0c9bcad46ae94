"""How drivers drive: who they are, what is ahead of them on their path, and how hard they accelerate (the intelligent driver model)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.world.network import BEHIND, Network, Path, along

COMFORT_MPS2 = 1.9
"""Sideways acceleration in curves."""
SLOW_DOWN_MPS2 = 1.2
"""Braking towards a curve."""
HARDEST_BRAKE_MPS2 = 7.0
SIGHT_POINTS = 24
SIDE_MARGIN_M = 0.2
STANDSTILL_GAP_M = 2.0
CALM_CLOSING_MPS, CALM_BRAKE_MPS2 = 0.3, 1.8
NUDGE_M, NUDGE_MPS = 0.55, 0.5
NO_PASSING_M = 25.0
SHIFT_S, SHIFT_AT_LEAST_M = 3.6, 20.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drivers:
    """Who drives, fixed for a drive: D drivers, the ego last. Lengths include a trailer in `tail_m`, the way from the middle to the rear.

    Attributes:
        actor: [D] row in the cast; the ego's is one past the end.
        towed: [D] row of the trailer in the cast, or -1.
        choice: [D, L] the lane each takes after each lane.
        speed_factor: [D] of the speed limit, up to `top_speed_mps`.
        right_m: [D] how far right of the lane's middle it rides (cyclists).
        nudges, changes_lanes, cuts_in, polite: [D] passes obstacles at the edge; changes lanes; squeezes in ahead of the ego; stops for
            people who wait at a crossing (for people on it everybody stops).
    """

    actor: Int[np.ndarray, "D"]
    towed: Int[np.ndarray, "D"]
    choice: Int[np.ndarray, "D L"]
    length_m: Float[np.ndarray, "D"]
    width_m: Float[np.ndarray, "D"]
    tail_m: Float[np.ndarray, "D"]
    wheelbase_m: Float[np.ndarray, "D"]
    speed_factor: Float[np.ndarray, "D"]
    top_speed_mps: Float[np.ndarray, "D"]
    headway_s: Float[np.ndarray, "D"]
    accelerates_mps2: Float[np.ndarray, "D"]
    brakes_mps2: Float[np.ndarray, "D"]
    right_m: Float[np.ndarray, "D"]
    nudges: Bool[np.ndarray, "D"]
    changes_lanes: Bool[np.ndarray, "D"]
    cuts_in: Bool[np.ndarray, "D"]
    polite: Bool[np.ndarray, "D"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriverMinds:
    """What D drivers remember.

    Attributes:
        lane, past, s_m: lane, the lanes before it (nearest first, -1 unknown), and how far along it the middle of the vehicle is.
        shift_m, shift_part: [D] where a lane change began, left of the present lane's middle, and how much of it is done (1: all).
        nudge_m: [D] how far it has moved to the left to pass something at the edge.
        waited_s: [D] how long it has stood before a junction. `grant` is the junction lane it may drive, or -1.
    """

    lane: Int[np.ndarray, "D"]
    past: Int[np.ndarray, "D B"]
    s_m: Float[np.ndarray, "D"]
    shift_m: Float[np.ndarray, "D"]
    shift_part: Float[np.ndarray, "D"]
    nudge_m: Float[np.ndarray, "D"]
    waited_s: Float[np.ndarray, "D"]
    grant: Int[np.ndarray, "D"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """What D drivers see ahead.

    Attributes:
        gap_m, leader_mps: [D] free way to the nearest thing on the path and its speed along it (inf, 0 where there is none).
        pressure: [D] the largest (wanted gap / gap)^2 of all things on the path.
        speed_mps: [D] what limits and curves ahead allow.
        wants_nudge: [D] something narrow stands or rides at the right edge.
    """

    gap_m: Float[np.ndarray, "D"]
    leader_mps: Float[np.ndarray, "D"]
    pressure: Float[np.ndarray, "D"]
    speed_mps: Float[np.ndarray, "D"]
    wants_nudge: Bool[np.ndarray, "D"]


def wanted_gap(speed_mps, leader_mps, headway_s, accelerates_mps2, brakes_mps2):
    """The gap s* a driver wants to a leader. Source: Treiber, Hennecke, Helbing 2000 (arXiv:cond-mat/0002177), equation 3."""
    closing = speed_mps * (speed_mps - leader_mps) / (2 * np.sqrt(accelerates_mps2 * brakes_mps2))
    return STANDSTILL_GAP_M + np.maximum(speed_mps * headway_s + closing, 0.0)


def pressure_of(wanted_m, gap_m, closing_mps, accelerates_mps2):
    """(wanted gap / gap)^2, with calm about short gaps to somebody who is not slower: the gap opens without hard braking.

    The model proper brakes as in an emergency when somebody cuts in. Kesting, Treiber, Helbing 2010 (arXiv:0912.3613) mend that, too.
    """
    pressure = (wanted_m / np.maximum(gap_m, 0.2)) ** 2
    calm = (closing_mps < CALM_CLOSING_MPS) & (gap_m > STANDSTILL_GAP_M)
    return np.where(calm, np.minimum(pressure, 1 + CALM_BRAKE_MPS2 / accelerates_mps2), pressure)


def acceleration(speed_mps, wanted_mps, pressure, accelerates_mps2, brakes_mps2):
    """Acceleration from the free road and the `pressure` (s*/s)^2 of what is ahead: equation 2 of arXiv:cond-mat/0002177.

    Above the wanted speed the free term would brake with the fourth power; it is held to comfortable braking, as in the improved
    model of Treiber and Kesting, Traffic Flow Dynamics, chapter 11.3.
    """
    free = accelerates_mps2 * (1 - (speed_mps / np.maximum(wanted_mps, 0.1)) ** 4)
    return np.clip(np.maximum(free, -brakes_mps2) - accelerates_mps2 * pressure, -HARDEST_BRAKE_MPS2, accelerates_mps2)


def sideways_m(drivers: Drivers, minds: DriverMinds, speed_mps: np.ndarray, ahead_m: np.ndarray, nudge_m: np.ndarray) -> np.ndarray:
    """How far left of the lane's middle each driver will be [D, K], `ahead_m` [D, K] metres further on."""
    part = np.clip(minds.shift_part[:, None] + ahead_m * shift_per_m(speed_mps)[:, None], 0.0, 1.0)
    return minds.shift_m[:, None] * still_to_shift(part) + nudge_m - drivers.right_m[:, None]


def still_to_shift(part: np.ndarray) -> np.ndarray:
    """What is left of the way to the side when a part of a lane change is done: 1 to 0, at rest at both ends."""
    return 1 - part**3 * (part * (part * 6 - 15) + 10)


def shift_per_m(speed_mps: np.ndarray) -> np.ndarray:
    """Part of a lane change done per metre: it takes `SHIFT_S`, and `SHIFT_AT_LEAST_M` when slow."""
    return np.minimum(1 / SHIFT_AT_LEAST_M, 1 / (SHIFT_S * np.maximum(speed_mps, 0.1)))


def places(
    network: Network, path: Path, drivers: Drivers, minds: DriverMinds, speed_mps: np.ndarray, ahead_m: np.ndarray, nudge_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [D, K, 2], headings and curvatures [D, K] of the middles of vehicles that drive `ahead_m` [D, K] further."""
    points_m, yaw_rad, curvature_1pm = along(network, path, minds.s_m[:, None] + ahead_m)
    left_m = sideways_m(drivers, minds, speed_mps, ahead_m, nudge_m)
    return points_m + left_m[..., None] * np.stack([-np.sin(yaw_rad), np.cos(yaw_rad)], -1), yaw_rad, curvature_1pm


def poses(network: Network, path: Path, drivers: Drivers, minds: DriverMinds, speed_mps: np.ndarray) -> np.ndarray:
    """Pose [D, 3] of each vehicle: its two axles are on its line, so a long one cuts its corners."""
    half_m = drivers.wheelbase_m / 2
    points_m, _, _ = places(network, path, drivers, minds, speed_mps, np.stack([-half_m, half_m], 1), minds.nudge_m[:, None])
    forward = points_m[:, 1] - points_m[:, 0]
    return np.concatenate([points_m.mean(1), np.arctan2(forward[:, 1], forward[:, 0])[:, None]], 1)


def look_ahead(
    network: Network, path: Path, drivers: Drivers, minds: DriverMinds, speed_mps: np.ndarray, boxes: np.ndarray, velocity_mps: np.ndarray,
    narrow: np.ndarray,
) -> Sight:  # fmt: skip
    """What lies on every driver's path: of all `boxes` [A, 5], with `velocity_mps` [A, 2]; `narrow` [A] things at the edge are passed.

    A path is seen as a strip of the vehicle's width and a margin; equally, as a line, with every box grown by half of that. The gap is
    where the line enters a grown box.
    """
    sight_m = 14.0 + 4.2 * speed_mps
    ahead_m = sight_m[:, None] * np.linspace(0.0, 1.0, SIGHT_POINTS)
    driver, actor, in_front, wants_nudge = _neighbours(drivers, boxes, sight_m, narrow)
    # Whoever turns right soon stays behind a cyclist, lest he cut across.
    soon = (path.lanes[:, BEHIND:] >= 0) & (path.start_m[:, BEHIND:] < minds.s_m[:, None] + NO_PASSING_M)
    wants_nudge &= ~(soon & network.turns_right[path.lanes[:, BEHIND:]]).any(1)
    settled = np.minimum(ahead_m / np.maximum(2.5, NUDGE_M / NUDGE_MPS * speed_mps)[:, None], 1.0)
    target_m = np.where(wants_nudge, NUDGE_M, 0.0)[:, None]
    nudge_m = minds.nudge_m[:, None] + settled * (target_m - minds.nudge_m[:, None])
    points_m, yaw_rad, curvature_1pm = places(network, path, drivers, minds, speed_mps, ahead_m, nudge_m)
    entry_m, entry_yaw_rad = _entries(points_m, yaw_rad, ahead_m, driver, boxes[actor], drivers.width_m[driver] / 2 + SIDE_MARGIN_M)
    hit = np.isfinite(entry_m) & (in_front | (entry_m > 0))  # whoever is level with us and behind our middle has to wait, not we
    driver, actor, entry_m, entry_yaw_rad = driver[hit], actor[hit], entry_m[hit], entry_yaw_rad[hit]
    gap_m = entry_m + SIDE_MARGIN_M + drivers.width_m[driver] / 2 - drivers.length_m[driver] / 2
    along_mps = velocity_mps[actor, 0] * np.cos(entry_yaw_rad) + velocity_mps[actor, 1] * np.sin(entry_yaw_rad)
    along_mps = np.maximum(along_mps, 0.0)
    wanted_m = wanted_gap(
        speed_mps[driver], along_mps, drivers.headway_s[driver], drivers.accelerates_mps2[driver], drivers.brakes_mps2[driver]
    )
    pressure, nearest_m, leader_mps = np.zeros(len(speed_mps)), np.full(len(speed_mps), np.inf), np.zeros(len(speed_mps))
    closing_mps = speed_mps[driver] - along_mps
    np.maximum.at(pressure, driver, pressure_of(wanted_m, gap_m, closing_mps, drivers.accelerates_mps2[driver]))
    order = np.argsort(-gap_m, kind="stable")
    nearest_m[driver[order]], leader_mps[driver[order]] = gap_m[order], along_mps[order]
    curve_mps = np.sqrt(COMFORT_MPS2 / np.maximum(np.abs(curvature_1pm), 1e-3))
    lane = path.lanes[:, BEHIND]
    limit_mps = np.minimum(network.limit_mps[lane] * drivers.speed_factor, drivers.top_speed_mps)
    allowed_mps = np.minimum(limit_mps, np.sqrt(curve_mps**2 + 2 * SLOW_DOWN_MPS2 * ahead_m).min(1))
    return Sight(gap_m=nearest_m, leader_mps=leader_mps, pressure=pressure, speed_mps=allowed_mps, wants_nudge=wants_nudge)


def _neighbours(
    drivers: Drivers, boxes: np.ndarray, sight_m: np.ndarray, narrow: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (driver, actor) that may meet, whether the actor's middle is in front; which drivers see something narrow at the edge."""
    own = boxes[drivers.actor]
    x, y = boxes[:, 0] - own[:, :1], boxes[:, 1] - own[:, 1:2]
    cos, sin = np.cos(own[:, 2:3]), np.sin(own[:, 2:3])
    ahead_m, left_m = x * cos + y * sin, y * cos - x * sin
    reach_m = boxes[:, 3] / 2
    near = (ahead_m > -2.0) & (ahead_m - reach_m < sight_m[:, None]) & (np.abs(left_m) - reach_m < 2 + ahead_m)
    rows = np.arange(len(own))
    near[rows, drivers.actor] = False
    towing = drivers.towed >= 0
    near[rows[towing], drivers.towed[towing]] = False
    driver, actor = np.nonzero(near)
    at_edge = narrow & (ahead_m > -drivers.length_m[:, None] / 2 - 1) & (ahead_m < 24.0) & (left_m > -2.6) & (left_m < -0.6)
    return driver, actor, ahead_m[near] > 0, drivers.nudges & at_edge.any(1)


def _entries(
    points_m: np.ndarray, yaw_rad: np.ndarray, ahead_m: np.ndarray, driver: np.ndarray, boxes: np.ndarray, margin_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where on the line of its driver each pair's grown box begins [m] (inf: not on it), and the line's heading there. Slab clipping."""
    cos, sin = np.cos(boxes[:, 2])[:, None], np.sin(boxes[:, 2])[:, None]
    line_m = points_m[driver] - boxes[:, None, :2]
    local = np.stack([line_m[..., 0] * cos + line_m[..., 1] * sin, line_m[..., 1] * cos - line_m[..., 0] * sin])
    half_m = (boxes[:, 3:5].T / 2 + margin_m)[:, :, None]
    begin, step = local[..., :-1], np.diff(local, axis=-1)
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    to_low, to_high = (-half_m - begin) / step, (half_m - begin) / step
    enter = np.maximum(np.minimum(to_low, to_high).max(0), 0.0)
    leave = np.minimum(np.maximum(to_low, to_high).min(0), 1.0)
    met = enter < leave
    segment = met.argmax(1)
    pairs = np.arange(len(driver))
    hit = met[pairs, segment]
    begin_m, end_m = ahead_m[driver, segment], ahead_m[driver, segment + 1]
    entry_m = np.where(hit, begin_m + enter[pairs, segment] * (end_m - begin_m), np.inf)
    return entry_m, yaw_rad[driver, segment]
