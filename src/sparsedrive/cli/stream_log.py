"""Streaming a recorded scene through a model onto disk; shared by `stream` and `demo`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

import torch
from rich.progress import track

import sparsedrive
from sparsedrive.cli.console import err, out, print_warning
from sparsedrive.convert.checkpoint import PACKAGED, has_packaged_weights, packaged_weights
from sparsedrive.data import FrameRecord, ImagePreprocess, NuScenesLog, Pictures, read_pictures, to_frame
from sparsedrive.data.prepared import INDEX_FILE, PreparedData
from sparsedrive.data.records import to_record
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.runtime.results import StreamResults, frame_result, write_results
from sparsedrive.structures import EGO_FORWARD_SPEED, Scene
from sparsedrive.viz import VideoWriter, render_scene

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where a stream's files go and what is in them. `watch_cameras`: look for dead ones (`StreamingSession`)."""

    folder: Path
    score_threshold: float = 0.3
    video: bool = True
    watch_cameras: bool = False


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a stream left on disk. `step_ms` is the median time of the model (the first frame counts only when alone)."""

    num_frames: int
    results: Path
    frames: Path
    video: Path | None
    step_ms: float


def load_model(preset: str, weights: str | None, device: str) -> tuple[SparseDrive, Path | None]:
    """The model on its device, and the file of its weights; warns when they are random (None).

    `weights` is a file or "random"; None stands for those packaged with the library, where the preset has some.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: expected a CUDA GPU, but PyTorch sees none; `sparsedrive doctor` says why, or take --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    file = _weights_file(preset, weights)
    if file is None:
        print_warning(f"preset {preset!r} runs with untrained, random weights; its boxes, map and plan mean nothing")
    model, chosen = sparsedrive.load(preset, file, device=device), sparsedrive.preset(preset)
    if model.config != chosen:
        others = [one.name for one in fields(chosen) if getattr(chosen, one.name) != getattr(model.config, one.name)]
        print_warning(f"the model is built as {file} was saved; other than in preset {preset!r}: {', '.join(others)}")
    return model, file


def _weights_file(preset: str, weights: str | None) -> Path | None:
    if weights == PACKAGED or (weights is None and has_packaged_weights(preset)):
        return packaged_weights(preset)
    return None if weights in (None, RANDOM) else Path(weights)


def scene_records(folder: Path, scene: str | None, version: str | None, *, annotations: bool) -> Sequence[FrameRecord]:
    """The key frames of a scene, or of the only one, of a nuScenes-format folder or of what `sparsedrive prepare` made of any log."""
    if (folder / INDEX_FILE).is_file():
        data = PreparedData.open(folder)
        found = data.scene(_pick(data.scenes, scene))
        records = [to_record(data, found, frame) for frame in range(found.num_frames)]
        return records if annotations else [replace(record, annotations=None) for record in records]
    log = NuScenesLog(folder, version, annotations=annotations)
    return log.scene(_pick(log.scenes, scene))


def _pick(scenes: Sequence[str], name: str | None) -> str:
    if name is None and len(scenes) != 1:
        some = ", ".join(scenes[:10]) + (" ..." if len(scenes) > 10 else "")
        raise ValueError(f"--scene: expected the name of one of {len(scenes)} scenes, got none; choose from {some}")
    return scenes[0] if name is None else name


def stream_log(
    records: Sequence[FrameRecord], model: SparseDrive, weights: Path | None, outputs: Outputs, *, allow_missing: bool = False
) -> Written:
    """Every record through one session; results, pictures (with the records' annotations, if any) and video into `outputs.folder`."""
    session = sparsedrive.StreamingSession(model, watch_cameras=outputs.watch_cameras)
    preprocess = ImagePreprocess(final_wh_px=model.config.image_wh_px)
    sequence = records[0].scene
    results, step_ms = [], []
    with VideoWriter(outputs.folder, mp4=outputs.video) as video:
        for record in track(records, description=sequence, console=err()):
            pictures = read_pictures(record, model.config.camera_names, allow_missing=allow_missing)
            frame = to_frame(record, pictures, preprocess, sequence_id=0)
            started = time.perf_counter()
            scene = session.step(frame).to("cpu")  # the copy waits for a GPU
            step_ms.append(1e3 * (time.perf_counter() - started))
            results.append(frame_result(scene, frame, record.sample_token, score_threshold=outputs.score_threshold))
            title = f"{sequence}   {model.config.name}" + ("" if weights else "   (untrained weights)")
            video.write(_draw(record, pictures, scene, title, records[0].time_s, outputs.score_threshold))
        problem, video_path = video.problem, video.video_path if video.has_video else None
    if problem:
        print_warning(problem)
    stored = StreamResults(
        sequence=sequence,
        preset=model.config.name,
        weights=None if weights is None else weights.name,
        score_threshold=outputs.score_threshold,
        frames=tuple(results),
    )
    return Written(
        num_frames=len(results),
        results=write_results(outputs.folder / "results.json", stored),
        frames=video.frames_folder,
        video=video_path,
        step_ms=median(step_ms[1:] or step_ms),
    )


def report(written: Written) -> None:
    """Says what there is now, and where."""
    lines = [f"{written.num_frames} frames, {written.step_ms:.0f} ms a frame for the model"]
    lines += [f"results   {written.results}", f"pictures  {written.frames}"]
    if written.video is not None:
        lines.append(f"video     {written.video}")
    out().print("\n".join(lines), markup=False)


def _draw(record: FrameRecord, pictures: Pictures, scene: Scene, title: str, start_s: float, score_threshold: float):
    images = [rgb if there else None for rgb, there in zip(pictures.rgb, pictures.available, strict=True)]
    return render_scene(
        images,
        pictures.image_T_ego,
        pictures.names,
        scene,
        score_threshold=score_threshold,
        title=title,
        time_s=record.time_s - start_s,
        speed_mps=float(record.ego_status[EGO_FORWARD_SPEED]) if record.ego_status_known[EGO_FORWARD_SPEED] else None,
        annotation_boxes=None if record.annotations is None else record.annotations.box,
    )
