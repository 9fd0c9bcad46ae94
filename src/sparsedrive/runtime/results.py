"""Results of a stream as one JSON file, and back to typed values.

Everything is in metres, radians and metres per second in the ego frame of its own frame (nuScenes: LIDAR_TOP, x right, y forward,
z up); `global_T_ego` takes it to the global frame.
"""

import json
import os
import types
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES, Command, Frame, Plan, Scene

SCHEMA = "sparsedrive-results"
SCHEMA_VERSION = 1
DECIMALS = 5  # 0.01 mm

Xy = tuple[float, float]
Xyz = tuple[float, float, float]
Path2d = tuple[Xy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastResult:
    """Futures of one object, 0.5 s apart, likeliest first; `mode_score` belongs to `trajectories_m` row by row."""

    mode_score: tuple[float, ...]
    trajectories_m: tuple[Path2d, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionResult:
    """One box: size is length, width, height; yaw counter-clockwise from +x. `track_id` is steady over the stream."""

    class_name: str
    score: float
    track_id: int
    centre_m: Xyz
    size_lwh_m: Xyz
    yaw_rad: float
    velocity_mps: Xy
    forecast: ForecastResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MapElementResult:
    """One polyline on the ground."""

    class_name: str
    score: float
    points_m: Path2d


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """Ego futures for `command` (right, left, straight), 0.5 s apart: the selected one and all modes. `mode_collides`: hits a forecast."""

    command: str
    trajectory_m: Path2d
    mode_score: tuple[float, ...]
    mode_collides: tuple[bool, ...]
    modes_m: tuple[Path2d, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """All results of one instant; `token` names it in its log."""

    token: str
    time_s: float
    global_T_ego: tuple[tuple[float, ...], ...]
    detections: tuple[DetectionResult, ...]
    map: tuple[MapElementResult, ...]
    plan: PlanResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResults:
    """Results of a stream. `weights` is None for an untrained model. Rows below `score_threshold` were left out."""

    sequence: str
    preset: str
    weights: str | None
    score_threshold: float
    frames: tuple[FrameResult, ...]


def frame_result(scene: Scene, frame: Frame, token: str, *, score_threshold: float = 0.3) -> FrameResult:
    """The rows of a scene (batch of one) with at least `score_threshold`, rounded to 0.01 mm. ValueError for a larger batch."""
    if frame.batch_size != 1 or scene.detections.box.shape[0] != 1:
        raise ValueError(
            f"frame_result: expected a batch of 1, got a frame of {frame.batch_size} and a scene of {scene.detections.box.shape[0]}; "
            "pick a stream with scene.stream(index)"
        )
    return FrameResult(
        token=token,
        time_s=float(frame.time_s[0]),
        global_T_ego=_tuples(frame.global_T_ego[0].tolist()),
        detections=_detections(scene, score_threshold),
        map=_map_elements(scene, score_threshold),
        plan=None if scene.plan is None else _plan(scene.plan),
    )


def write_results(path: str | Path, results: StreamResults) -> Path:
    """Writes the file in one step (a reader never sees half of it). ValueError when a value is NaN or infinite."""
    path = Path(path)
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(results)}
    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise ValueError(f"{path}: expected finite results, got NaN or infinity; check the weights and the frames") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_results(path: str | Path) -> StreamResults:
    """The file back as typed values, equal to what was written. ValueError that names the place for a file that is not of this kind."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"results: no file {path}; `sparsedrive stream` writes results.json into its --out folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got a file that cannot be parsed ({error}); write it again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA!r}, got {schema!r}; this is not a results file of sparsedrive")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {content.get('schema_version')!r}; "
            "read it with the version of sparsedrive that wrote it"
        )
    body = {key: value for key, value in content.items() if key not in ("schema", "schema_version")}
    return _parse(body, StreamResults, f"{path}: results")


def _round(values: Any) -> Any:
    """Nested lists of numbers as nested tuples of rounded ones."""
    return tuple(_round(value) for value in values) if isinstance(values, list) else round(values, DECIMALS)


def _tuples(values: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values)


def _detections(scene: Scene, score_threshold: float) -> tuple[DetectionResult, ...]:
    found = scene.detections
    rows = ((found.score[0] >= score_threshold) & found.valid[0]).nonzero()[:, 0].tolist()
    results = []
    for row in rows:
        box = found.box[0, row].tolist()
        results.append(
            DetectionResult(
                class_name=DETECTION_CLASSES[int(found.label[0, row])],
                score=_round(float(found.score[0, row])),
                track_id=int(found.track_id[0, row]),
                centre_m=_round(box[:3]),
                size_lwh_m=_round(box[3:6]),
                yaw_rad=_round(box[6]),
                velocity_mps=_round(box[7:9]),
                forecast=_forecast(scene, row),
            )
        )
    return tuple(results)


def _forecast(scene: Scene, row: int) -> ForecastResult | None:
    if scene.forecasts is None:
        return None
    score, order = scene.forecasts.mode_score[0, row].sort(descending=True, stable=True)
    return ForecastResult(mode_score=_round(score.tolist()), trajectories_m=_round(scene.forecasts.trajectory_m[0, row][order].tolist()))


def _map_elements(scene: Scene, score_threshold: float) -> tuple[MapElementResult, ...]:
    elements = scene.map
    if elements is None:
        return ()
    rows = ((elements.score[0] >= score_threshold) & elements.valid[0]).nonzero()[:, 0].tolist()
    return tuple(
        MapElementResult(
            class_name=MAP_CLASSES[int(elements.label[0, row])],
            score=_round(float(elements.score[0, row])),
            points_m=_round(elements.points_m[0, row].tolist()),
        )
        for row in rows
    )


def _plan(plan: Plan) -> PlanResult:
    command = Command(int(plan.command[0]))
    return PlanResult(
        command=command.name.lower(),
        trajectory_m=_round(plan.trajectory_m[0].tolist()),
        mode_score=_round(plan.mode_score[0, command].tolist()),
        mode_collides=tuple(plan.mode_collides[0].tolist()),
        modes_m=_round(plan.all_trajectories_m[0, command].tolist()),
    )


def _parse(value: Any, kind: Any, where: str) -> Any:
    """A JSON value as the annotated type: dataclass, number, text, tuple or `X | None`. ValueError names `where`."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(option for option in get_args(kind) if option is not types.NoneType)
        return None if value is None else _parse(value, inner, where)
    if is_dataclass(kind):
        return _parse_dataclass(value, kind, where)
    if get_origin(kind) is tuple:
        return _parse_tuple(value, get_args(kind), where)
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}"[:400] + "; the file is damaged or was edited by hand")
    return float(value) if kind is float else value


def _parse_dataclass(value: Any, kind: Any, where: str) -> Any:
    names = [field.name for field in fields(kind)]
    if not isinstance(value, dict) or set(value) != set(names):
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{where}: expected the keys {sorted(names)}, got {got}; the file is damaged or of another version")
    hints = get_type_hints(kind)
    return kind(**{name: _parse(value[name], hints[name], f"{where}.{name}") for name in names})


def _parse_tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, got {value!r}"[:400] + "; the file is damaged or was edited by hand")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{where}: expected {len(kinds)} values, got {len(value)}; the file is damaged or was edited by hand")
    return tuple(_parse(item, kind, f"{where}[{index}]") for index, (item, kind) in enumerate(zip(value, kinds, strict=True)))
