"""Where agents and the ego vehicle go on to be: 2 Hz futures of annotated key frames, with masks.

A step is valid while the track goes on without a gap; the places of other steps are those of the last valid one.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

AGENT_STEPS, EGO_STEPS = 12, 6
STEP_S = 0.5
MAX_STEP_S = 0.75
"""Key frames further apart than this have a gap between them."""


def joined_frames(scene: str, timestamp_us: Int[np.ndarray, "F"]) -> Bool[np.ndarray, "F"]:
    """Whether the next key frame follows without a gap; never after the last.

    `ValueError` when key frames do not come at 2 Hz at all, for then every future and command would be wrong.
    """
    steps_s = np.diff(timestamp_us) * 1e-6
    if len(steps_s) and not 0.5 * STEP_S < np.median(steps_s) <= MAX_STEP_S:
        raise ValueError(
            f"{scene}: expected key frames {STEP_S} s apart, got a median of {np.median(steps_s):.3f} s; futures and commands are defined "
            "at 2 Hz, so mark (or write) key frames at that rate"
        )
    return np.append(steps_s <= MAX_STEP_S, False)[: len(timestamp_us)]


def ego_futures(
    global_T_ego: Float[np.ndarray, "F 4 4"], joined: Bool[np.ndarray, "F"]
) -> tuple[Float[np.ndarray, "F 6 2"], Bool[np.ndarray, "F 6"]]:
    """Where the ego frame's origin will be, in the ego frame of each key frame, and whether it is known.

    The published converter keeps differences of the same positions, zero past the end of the scene.
    """
    frames = len(global_T_ego)
    place_m = np.zeros((frames, EGO_STEPS, 2))
    valid = np.zeros((frames, EGO_STEPS), bool)
    ego_T_global = np.linalg.inv(global_T_ego)
    now = np.arange(frames)
    going = np.ones(frames, bool)
    for step in range(EGO_STEPS):
        going = going & joined[now]
        now = now + going
        place_m[:, step] = (ego_T_global @ global_T_ego[now][..., 3:])[:, :2, 0]
        valid[:, step] = going
    return place_m, valid


def agent_futures(
    global_m: Float[np.ndarray, "N 2"],
    ego_yaw_rad: Float[np.ndarray, "N"],
    frame: Int[np.ndarray, "N"],
    instance: Int[np.ndarray, "N"],
    joined: Bool[np.ndarray, "F"],
) -> tuple[Float[np.ndarray, "N 12 2"], Bool[np.ndarray, "N 12"]]:
    """How far each of N boxes of one scene will have moved, along the axes of its frame's ego frame, and whether it is known.

    Args:
        global_m: centres in the global frame.
        ego_yaw_rad: turn from the global frame to the ego frame of the box's key frame, about z.
        frame, instance: key frame and object of each box; an object has at most one box a frame.

    The path is turned in the plane, without the tilt of the ego frame: the published converter does the same (it goes through the heading
    of the box), and its differences are those of this function. With the tilt, places 6 s ahead would differ by 7 mm (median).
    """
    row_of = np.full((int(instance.max(initial=-1)) + 1, len(joined) + 1), -1)
    row_of[instance, frame] = np.arange(len(frame))
    now = np.arange(len(frame))
    going = np.ones(len(frame), bool)
    moved_m = np.zeros((len(frame), AGENT_STEPS, 2))
    valid = np.zeros((len(frame), AGENT_STEPS), bool)
    for step in range(AGENT_STEPS):
        later = row_of[instance, frame[now] + 1]
        going = going & joined[frame[now]] & (later >= 0)
        now = np.where(going, later, now)
        moved_m[:, step] = global_m[now] - global_m
        valid[:, step] = going
    cos, sin = np.cos(ego_yaw_rad)[:, None], np.sin(ego_yaw_rad)[:, None]
    x, y = moved_m[..., 0], moved_m[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1), valid
