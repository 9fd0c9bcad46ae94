"""A model, or its saved predictions, through every metric: `predict` streams, `evaluate` judges."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sparsedrive.data.dataset import LoadConfig
from sparsedrive.data.failures import FailureSchedule
from sparsedrive.data.loader import make_loader
from sparsedrive.data.nuscenes.splits import official_splits
from sparsedrive.data.prepared import PreparedData
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.targets import TargetConfig
from sparsedrive.evaluation.planning import plan_section
from sparsedrive.evaluation.predictions import FramePredictions, PredictionSet, box_records, check, joined, kept
from sparsedrive.evaluation.results import TASKS, Evaluation, Header
from sparsedrive.evaluation.sections import detection_section, forecast_section, map_section, tracking_section
from sparsedrive.evaluation.truth import FROM_PREPARED, SplitTruth, TruthSource, box_truth, read_split
from sparsedrive.metrics.submission import read_detections, read_tracks
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.runtime.session import StreamingSession

RESULT_FILES = "result files"
"""In place of a preset where official result files were judged."""

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""


def predict(
    model: SparseDrive,
    data: PreparedData,
    split: str,
    *,
    weights: str | None,
    library: str,
    batch_size: int = 1,
    workers: int = 2,
    allow_missing: bool = False,
    failures: FailureSchedule | None = None,
    progress: Progress | None = None,
) -> PredictionSet:
    """Every scene of a split through the model, frame by frame in order, `batch_size` scenes side by side.

    Args:
        model: in evaluation mode afterwards, on its own device.
        weights, library: name of the weights' file (None: random) and version of sparsedrive, for the record.
        workers: processes that load pictures.
        allow_missing: take a camera whose picture is not there as failed, instead of stopping.
        failures: what is wrong with cameras; None for nothing.

    `ValueError`: an unknown split, missing pictures, or NaN in what the model says.
    """
    config = LoadConfig(
        camera_names=model.config.camera_names,
        preprocess=ImagePreprocess(final_wh_px=model.config.image_wh_px),
        targets=TargetConfig(depth_strides=()),
        missing_images="black" if allow_missing else "error",
    )
    truth = read_split(data, split)
    loader = make_loader(data, split, config, training=False, batch_size=batch_size, workers=workers, failures=failures)
    first = dict(zip(truth.frames.scene_names, truth.first_frame.tolist(), strict=False))
    found: dict[int, FramePredictions] = {}
    session = StreamingSession(model)
    for step, (frame, _) in enumerate(loader):
        scene = session.step(frame).to("cpu")
        for stream, request in enumerate(loader.requests(step)):
            if not request.padding:
                found[first[request.scene] + request.frame] = kept(scene, stream)
        if progress is not None:
            progress("model", len(found), len(truth.frames.tokens))
    boxes, lines, forecasts, plan_m = joined([found[row] for row in range(len(truth.frames.tokens))])
    predictions = PredictionSet(
        version=data.version, split=split, preset=model.config.name, weights=weights, parity=_parity(model), library=library,
        frames=truth.frames, boxes=boxes, lines=lines, forecasts=forecasts, plan_m=plan_m,
    )  # fmt: skip
    check(predictions, "predictions")
    return predictions


def evaluate(
    predictions: PredictionSet,
    data: PreparedData,
    *,
    tasks: Sequence[str] = TASKS,
    date: str,
    truth_source: TruthSource = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Judge predictions of a split of `data` in the given tasks ("det", "track", "map", "motion", "plan"); `date` as it shall be noted.

    Tasks the model does not have (motion and plan of a stage 1, the map of a Sparse4D) are left out with a note. `ValueError`: an unknown
    task, predictions of other frames than the prepared ones.
    """
    left = check_tasks(tasks)
    truth = read_split(data, predictions.split)
    _check_same_frames(predictions, truth)
    notes = list(_notes(predictions, truth))

    show = progress or (lambda *_: None)

    def begin(task: str) -> bool:
        if task in left:
            show(f"metrics: {task}", left.index(task), len(left))
        return task in left

    said = box_records(predictions, truth.global_T_ego)
    there, source = box_truth(truth, truth_source) if {"det", "track"} & set(left) else (None, "")
    notes += _truth_notes(source, "det" in left)
    detection = detection_section(there, said, source) if begin("det") and there is not None else None
    tracking = tracking_section(there, said, source) if begin("track") and there is not None and predictions.tracked else None
    elements = map_section(truth, predictions) if begin("map") and predictions.lines is not None else None
    forecasting = forecast_section(truth, predictions, said) if begin("motion") and predictions.forecasts is not None else None
    planning = None
    if begin("plan") and predictions.plan_m is not None:
        planning, more = plan_section(truth, predictions.plan_m)
        notes += more
    show("metrics", len(left), len(left))
    parts = {"track": predictions.tracked or None, "map": predictions.lines, "motion": predictions.forecasts, "plan": predictions.plan_m}
    if lacking := [task for task, part in parts.items() if part is None and task in left]:
        notes.append(f"preset {predictions.preset!r} has no {' and no '.join(lacking)}")
    made_by = {name: getattr(predictions, name) for name in ("preset", "weights", "parity", "library")}
    return Evaluation(
        header=_header(truth, date=date, notes=tuple(notes), **made_by),
        frames=truth.frames,
        detection=detection,
        tracking=tracking,
        map=elements,
        forecasting=forecasting,
        planning=planning,
    )


def evaluate_files(
    data: PreparedData,
    split: str,
    *,
    detections: Path | None,
    tracks: Path | None,
    library: str,
    date: str,
    truth_source: TruthSource = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Judge official nuScenes result files of any program: a detection file, a tracking file, or both.

    `ValueError`: none given, or a file breaks a rule of the official format.
    """
    files = [path for path in (detections, tracks) if path is not None]
    if not files:
        raise ValueError("evaluate_files: expected a detection file, a tracking file or both, got none")
    truth = read_split(data, split)
    there, source = box_truth(truth, truth_source)
    show = progress or (lambda *_: None)
    detection, tracking = None, None
    if detections is not None:
        show(f"metrics: {detections.name}", 0, len(files))
        detection = detection_section(there, read_detections(detections, there.frames), source)
    if tracks is not None:
        show(f"metrics: {tracks.name}", len(files) - 1, len(files))
        tracking = tracking_section(there, read_tracks(tracks, there.frames), source)
    show("metrics", len(files), len(files))
    names = " and ".join(path.name for path in files)
    notes = tuple(_truth_notes(source, detections is not None))
    header = _header(truth, preset=RESULT_FILES, weights=names, parity=(), library=library, date=date, notes=notes)
    return Evaluation(
        header=header, frames=truth.frames, detection=detection, tracking=tracking, map=None, forecasting=None, planning=None
    )  # fmt: skip


def check_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks, each once, in the usual order. `ValueError` for an unknown one, or none."""
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ValueError(f"tasks: expected some of {', '.join(TASKS)}, got {', '.join(map(repr, unknown)) or 'none'}")
    return tuple(task for task in TASKS if task in tasks)


def _header(truth: SplitTruth, **said: Any) -> Header:
    return Header(
        data=str(truth.data.folder), version=truth.data.version, split=truth.split, num_scenes=len(truth.scenes),
        num_frames=len(truth.frames.tokens), **said,
    )  # fmt: skip


def _parity(model: SparseDrive) -> tuple[str, ...]:
    parity = model.config.parity
    return tuple(item.name for item in fields(parity) if getattr(parity, item.name))


def _check_same_frames(predictions: PredictionSet, truth: SplitTruth) -> None:
    ours, theirs = truth.frames.tokens, predictions.frames.tokens
    if ours != theirs:
        lost, strange = len(set(ours) - set(theirs)), len(set(theirs) - set(ours))
        raise ValueError(
            f"predictions: expected the {len(ours)} frames of split {truth.split!r} in {truth.data.folder}, got {len(theirs)} frames "
            f"({lost} missing, {strange} unknown); they were made from other data, so run the model again"
        )


def _truth_notes(source: str, detection: bool) -> Iterator[str]:
    if source == FROM_PREPARED and detection:
        yield "detection: without the nuScenes tables no attribute is known: mAAE counts as 1 and NDS is at most 0.9"


def _notes(predictions: PredictionSet, truth: SplitTruth) -> Iterator[str]:
    if predictions.weights is None:
        yield "the weights were random: the numbers mean nothing"
    if predictions.split == "train":
        yield "this is the split the model may have been trained on"
    if predictions.plan_m is not None and official_splits(predictions.version):
        yield "plan: objects are those of the ten detection classes; SparseDrive's evaluation also counts rare ones, such as animals"
    if not any((scene.lidar_returns > 0).any() for scene in truth.scenes):
        yield "no box has a lidar return: nothing counts as an object"
    notes = [note for scene in truth.scenes for note in scene.notes]
    if notes:
        yield f"{len(notes)} notes from preparing, such as: {notes[0]}"
