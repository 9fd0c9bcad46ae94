"""CamFail: how cameras fail, as lists. Every scenario is a `FailureScript` made from a seed for given scenes and cameras.

    C0   nothing fails
    S1   one camera is dead for the whole scene, each in turn
    S2a  two neighbours on the ring of cameras; S2o two opposite ones; S3 three: front, rear, left and right arc, every other one twice
    O    a camera (front, rear, front left) dies 5 s into the scene (half-way in scenes shorter than 10 s)
    I    every camera breaks down and comes back by itself: down 1 s or 3 s on average, 1/6 or 1/3 of the time, three seeds
    FL   "frame lost" of RoboBEV: every picture by itself is black with probability k/6
    CC   "camera crash" of RoboBEV: k of six cameras dead in all scenes
    Z    a picture freezes and nobody notices, each camera in turn
    P    the front camera is partly covered, blurred, or wrongly exposed, and nobody notices
    H    the health signal errs: the front camera's death is announced 1 or 3 frames late, or never; a healthy one is announced as dead
    R    masks as the authors of the published cascade draw them: 60 % of frames lose 1 or 2 cameras

Failed cameras are black and announced, unless said otherwise. An announced frozen camera would be S1: models do not look at announced
ones. RoboBEV draws its cameras with replacement, we without; its easy, mid and hard are k = 2, 4, 5. Neighbours are found from where the
cameras look, so any rig with a ring of cameras will do; of k, a rig with C cameras takes the share k/6.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool

from sparsedrive.data.failure_script import FailureScript, FaultSpan
from sparsedrive.data.failures import CameraFailureSimulator, FaultKind, MarkovFailures, RandomFailures
from sparsedrive.data.keyed_random import Purpose, check_seed, keyed_rng
from sparsedrive.data.prepared import PreparedScene

SUITES = {
    "quick": ("C0", "S1-front", "S1-rear", "O-front", "R"),
    "core": ("C0", "S1", "S2a", "O", "I-1s", "FL-2", "R"),
    "full": ("C0", "S1", "S2a", "S2o", "S3", "O", "I", "FL", "CC", "Z", "P", "H", "R"),
}
"""Names, or beginnings of names, of the scenarios of each suite."""
CLEAN = "C0"
ONSET_S = 5.0
SIXTHS = (1, 2, 3, 4, 5)
ROBOBEV_LEVELS = (2, 4, 5)
MARKOV_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to fail; `group` is the part of the list above it belongs to."""

    name: str
    group: str
    text: str
    script: FailureScript


@dataclass(frozen=True)
class _Rig:
    """The scenes, and the cameras in their order around the car: from the front one to the left."""

    scenes: tuple[PreparedScene, ...]
    ring: tuple[str, ...]
    seed: int

    def name(self, place: int) -> str:
        return self.ring[place % len(self.ring)]

    @property
    def rear(self) -> int:
        return len(self.ring) // 2


def suite_scenarios(suite: str, scenes: Sequence[PreparedScene], camera_names: Sequence[str], seed: int = 0) -> tuple[Scenario, ...]:
    """The scenarios of a suite, the clean one first. The same arguments always give the same lists.

    Args:
        suite: "quick", "core" or "full".
        scenes: of the split; a scene's failures depend on its name, not on the others.
        camera_names: of the model; at least one.
        seed: of all that is random.

    `ValueError`: an unknown suite, or a camera the scenes do not have.
    """
    if suite not in SUITES:
        raise ValueError(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    check_seed(seed)
    every = tuple(_every(_Rig(tuple(scenes), camera_ring(scenes[0], camera_names), seed)))
    chosen = choose(every, SUITES[suite], skip_missing=True)
    for scenario in chosen:
        scenario.script.check(scenes, camera_names)
    return chosen


def choose(scenarios: Sequence[Scenario], names: Sequence[str], *, skip_missing: bool = False) -> tuple[Scenario, ...]:
    """Those whose name or group is one of `names`, or begins with one and a dash; the clean one always.

    `ValueError`: a name that stands for none.
    """

    def stands_for(name: str, scenario: Scenario) -> bool:
        return name == scenario.group or f"{scenario.name}-".startswith(f"{name}-")

    lost = [name for name in names if not any(stands_for(name, scenario) for scenario in scenarios)]
    if lost and not skip_missing:
        raise ValueError(f"scenarios: expected names or groups of this suite, got {lost}; there are {[one.name for one in scenarios]}")
    return tuple(one for one in scenarios if one.name == CLEAN or any(stands_for(name, one) for name in names))


def camera_ring(scene: PreparedScene, camera_names: Sequence[str]) -> tuple[str, ...]:
    """The cameras in the order in which they look around the car: the one that looks most to the front, then to the left and round.

    `ValueError`: the scene lacks one.
    """
    lacking = [name for name in camera_names if name not in scene.camera_names]
    if lacking or not camera_names:
        raise ValueError(f"scene {scene.name}: no camera {lacking}, there is {list(scene.camera_names)}")
    axes = scene.camera_T_ego[0, [scene.camera_names.index(name) for name in camera_names], 2, :2]
    azimuth_rad = np.arctan2(-axes[:, 0], axes[:, 1])
    front = np.abs(azimuth_rad).argmin()
    order = np.argsort((azimuth_rad - azimuth_rad[front]).round(6) % (2 * np.pi), kind="stable")
    return tuple(camera_names[row] for row in order)


def onset_frame(scene: PreparedScene) -> int:
    """First frame of the failures of group O: 5 s after the scene's start, half-way where it is shorter than 10 s."""
    time_s = (scene.timestamp_us - scene.timestamp_us[0]) * 1e-6
    return int(np.searchsorted(time_s, min(ONSET_S, time_s[-1] / 2)))


def _every(rig: _Rig) -> Iterator[Scenario]:
    yield _scenario(CLEAN, CLEAN, "nothing fails", [])
    yield from _dead(rig)
    yield from _onset(rig)
    yield from _random(rig)
    yield from _unnoticed(rig)
    yield from _health(rig)
    published = RandomFailures(probability=0.6, max_cameras=2, seed=rig.seed)
    yield _scenario("R", "R", "60 % of frames lose 1 or 2 cameras, drawn anew every frame", _drawn(rig, published))


def _dead(rig: _Rig) -> Iterator[Scenario]:
    """S1, S2a, S2o, S3."""
    count, rear = len(rig.ring), rig.rear
    places: dict[str, list[tuple[str, tuple[int, ...]]]] = {"S1": [(_role(rig, place), (place,)) for place in range(count)]}
    if count > 2:
        places["S2a"] = [(_named(rig, pair), pair) for pair in ((place, (place + 1) % count) for place in range(count))]
    if count > 3:
        pairs = [(place, (place + rear) % count) for place in range(count if count % 2 else rear)]
        places["S2o"] = [(_named(rig, pair), pair) for pair in pairs]
    if count == 6:
        arcs = {"front": 0, "rear": 3, "left": 1, "right": 5}
        places["S3"] = [(f"{name}-arc", tuple((middle + step) % count for step in (-1, 0, 1))) for name, middle in arcs.items()]
        places["S3"] += [("alternate-a", (0, 2, 4)), ("alternate-b", (1, 3, 5))]
    for group, dead in places.items():
        for name, some in dead:
            cameras = [rig.name(place) for place in some]
            spans = [_span(scene, camera, 0) for scene in rig.scenes for camera in cameras]
            yield _scenario(f"{group}-{name}", group, f"{_list(cameras)} dead in the whole scene", spans)


def _onset(rig: _Rig) -> Iterator[Scenario]:
    for place in dict.fromkeys((0, rig.rear, 1 % len(rig.ring))):
        camera = rig.name(place)
        spans = [_span(scene, camera, onset_frame(scene)) for scene in rig.scenes]
        yield _scenario(f"O-{_role(rig, place)}", "O", f"{camera} dies {ONSET_S:g} s into the scene", spans)


def _random(rig: _Rig) -> Iterator[Scenario]:
    """I, FL, CC."""
    frame_s = float(np.median(np.concatenate([np.diff(scene.timestamp_us) for scene in rig.scenes]))) * 1e-6
    for mean_down_s in (1.0, 3.0):
        for sixths in (1, 2):
            for number in range(MARKOV_SEEDS):
                chain = MarkovFailures(
                    down_share=sixths / 6, mean_down_s=max(mean_down_s, frame_s), frame_s=frame_s, seed=(rig.seed + number) % 2**32
                )  # fmt: skip
                text = f"every camera down {sixths}/6 of the time, for {mean_down_s:g} s on average, seed {number}"
                yield _scenario(f"I-{mean_down_s:g}s-{sixths}of6-{number}", "I", text, _drawn(rig, chain))
    for sixths in SIXTHS:
        text = f"every picture lost with probability {sixths}/6"
        yield _scenario(f"FL-{sixths}", "FL", text, [span for scene in rig.scenes for span in _lost_frames(rig, scene, sixths)])
    order = keyed_rng(rig.seed, Purpose.FAILURE, zlib.crc32(b"crash")).permutation(len(rig.ring))
    for sixths in ROBOBEV_LEVELS:
        cameras = [rig.name(place) for place in order[: round(sixths * len(rig.ring) / 6)]]
        spans = [_span(scene, camera, 0) for scene in rig.scenes for camera in cameras]
        yield _scenario(f"CC-{sixths}", "CC", f"{_list(cameras)} dead in all scenes", spans)


def _lost_frames(rig: _Rig, scene: PreparedScene, sixths: int) -> Iterator[FaultSpan]:
    for camera in rig.ring:
        rng = keyed_rng(rig.seed, Purpose.FAILURE, zlib.crc32(scene.name.encode()), zlib.crc32(camera.encode()), 0)
        yield from _spans(scene, camera, rng.uniform(size=scene.num_frames) < sixths / 6)


def _unnoticed(rig: _Rig) -> Iterator[Scenario]:
    """Z, P."""
    for place, camera in enumerate(rig.ring):
        spans = [_span(scene, camera, 1, kind="freeze", announced=False) for scene in rig.scenes if scene.num_frames > 1]
        yield _scenario(f"Z-{_role(rig, place)}", "Z", f"{camera} repeats its first picture, unnoticed", spans)
    front = rig.name(0)
    damages: tuple[tuple[FaultKind, str, Callable[[float], str], tuple[float, ...]], ...] = (
        ("occlude", "covered", lambda share: f"{share:.0%} of {front} covered", (0.25, 0.5, 0.75)),
        ("blur", "blur", lambda sigma: f"{front} blurred, sigma {sigma:g} px at 1600 px width", (2.0, 4.0, 8.0)),
        ("expose", "exposure", lambda factor: f"{front} {factor:g} times as bright", (0.25, 0.5, 2.0, 4.0)),
    )
    for kind, word, text, amounts in damages:
        for amount in amounts:
            spans = [_span(scene, front, 0, kind=kind, amount=amount, announced=False) for scene in rig.scenes]
            yield _scenario(f"P-{word}-{amount:g}", "P", f"{text(amount)}, unnoticed", spans)


def _health(rig: _Rig) -> Iterator[Scenario]:
    front = rig.name(0)
    for late in (1, 3):
        spans = []
        for scene in rig.scenes:
            start = onset_frame(scene)
            told = min(start + late, scene.num_frames)
            spans += [_span(scene, front, start, told, announced=False)] * (told > start)
            spans += [_span(scene, front, told)] * (told < scene.num_frames)
        yield _scenario(
            f"H-late-{late}", "H", f"{front} dies {ONSET_S:g} s into the scene, announced {late} frame{'s' * (late > 1)} late", spans
        )
    spans = [_span(scene, front, onset_frame(scene), announced=False) for scene in rig.scenes]
    yield _scenario("H-undetected", "H", f"{front} dies {ONSET_S:g} s into the scene, never announced", spans)
    spans = [_span(scene, front, 0, kind="intact") for scene in rig.scenes]
    yield _scenario("H-false-alarm", "H", f"{front} works but is announced as dead", spans)


def _scenario(name: str, group: str, text: str, spans: Sequence[FaultSpan]) -> Scenario:
    return Scenario(name=name, group=group, text=text, script=FailureScript(spans=tuple(spans)))


def _drawn(rig: _Rig, simulator: CameraFailureSimulator) -> list[FaultSpan]:
    """What a simulator does to every scene, by the scene's name."""
    spans: list[FaultSpan] = []
    for scene in rig.scenes:
        key = zlib.crc32(scene.name.encode())
        failed = np.stack([simulator.failed(key, frame, rig.ring) for frame in range(scene.num_frames)])
        spans += [span for column, camera in enumerate(rig.ring) for span in _spans(scene, camera, failed[:, column])]
    return spans


def _spans(scene: PreparedScene, camera: str, failed: Bool[np.ndarray, "F"]) -> list[FaultSpan]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], failed, [False]])))
    return [_span(scene, camera, int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _span(
    scene: PreparedScene,
    camera: str,
    start: int,
    stop: int | None = None,
    *,
    kind: FaultKind = "black",
    amount: float = 0.0,
    announced: bool = True,
) -> FaultSpan:
    """A fault up to the scene's end, unless said otherwise."""
    assert kind in get_args(FaultKind), kind
    stop = scene.num_frames if stop is None else stop
    return FaultSpan(scene=scene.name, camera=camera, start=start, stop=stop, kind=kind, amount=amount, announced=announced)


def _role(rig: _Rig, place: int) -> str:
    """A short name: "front" and "rear" for what they are on every rig, else the camera's own."""
    if place == 0:
        return "front"
    return "rear" if place == rig.rear and len(rig.ring) > 1 else _short(rig.name(place))


def _named(rig: _Rig, places: Sequence[int]) -> str:
    return "-".join(_role(rig, place) for place in places)


def _short(camera: str) -> str:
    return camera.removeprefix("CAM_").lower().replace("_", "")


def _list(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "no camera"
