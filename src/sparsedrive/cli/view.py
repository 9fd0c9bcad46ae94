"""`sparsedrive view`."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sparsedrive.cli.console import BaseVerb, err, optional, out, print_warning


@dataclass(frozen=True, kw_only=True)
class View(BaseVerb):
    """Look at a prepared scene, with predictions if there are any: pictures, a video, and a Rerun recording to fly through.

    The recording needs Rerun: pip install 'sparsedrive[view]'. Then `rerun scene.rrd` shows it.

    Examples:
      sparsedrive view --data prepared --scene scene-0103 --out look
      sparsedrive view --data prepared --scene scene-0103 --predictions out/predictions.json --out look
    """

    data: Path
    """Folder made by `sparsedrive prepare`."""
    out: Path
    """Folder for frames/, scene.mp4 and scene.rrd; made if needed."""
    scene: Annotated[str | None, optional("NAME")] = None
    """Name of the scene; may be left out when there is only one."""
    root: Annotated[Path | None, optional("FOLDER")] = None
    """Folder of the log's pictures, should they have moved since they were prepared."""
    predictions: Annotated[Path | None, optional("FILE")] = None
    """Predictions saved by `sparsedrive eval` (.json, with the .npz beside it); without them only what is annotated is shown."""
    max_frames: Annotated[int | None, optional("N")] = None
    """Stop after this many frames."""
    score_threshold: float = 0.3
    """Boxes and map lines below this score are not shown."""
    no_video: bool = False
    """Write only the pictures, not the MP4."""

    def run(self) -> int:
        """Writes pictures, video and recording."""
        from rich.progress import track

        from sparsedrive.cli.view_rerun import INSTALL, SceneRecording, find_rerun
        from sparsedrive.data.prepared import PreparedData
        from sparsedrive.data.records import to_record
        from sparsedrive.evaluation.predictions import PredictionSet
        from sparsedrive.evaluation.scenes import empty_scene, frame_picture, predicted_scene
        from sparsedrive.structures import Command
        from sparsedrive.viz import VideoWriter

        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"--max-frames: expected at least 1, got {self.max_frames}")
        data = PreparedData.open(self.data, self.root)
        scene = data.scene(_pick(self.scene, data.scenes))
        predictions = None if self.predictions is None else PredictionSet.load(self.predictions)
        rows = None if predictions is None else _rows(predictions.frames.tokens, scene.sample_tokens, scene.name)
        rerun, path = find_rerun(), self.out / "scene.rrd"
        with ExitStack() as stack:
            video = stack.enter_context(VideoWriter(self.out, name="scene", mp4=not self.no_video))
            recording = None if rerun is None else stack.enter_context(SceneRecording(rerun, path, scene.name))
            for frame in track(range(min(scene.num_frames, self.max_frames or scene.num_frames)), description=scene.name, console=err()):
                command = Command(int(scene.command[frame]))
                said = None if predictions is None or rows is None else predicted_scene(predictions, rows[frame], command)
                title = f"{scene.name}   {predictions.preset if predictions is not None else 'annotations'}"
                shown = said if said is not None else empty_scene()
                video.write(frame_picture(data, scene, frame, shown, title=title, score_threshold=self.score_threshold))
                if recording is not None:
                    recording.write(to_record(data, scene, frame), said, self.score_threshold)
        if video.problem:
            print_warning(video.problem)
        lines = [f"{video.count} frames of {scene.name}", f"pictures   {video.frames_folder}"]
        lines += [f"video      {video.video_path}"] if video.has_video else []
        lines += [f"recording  {path}   (rerun {path})"] if recording is not None else [f"no Rerun recording; for one: {INSTALL}"]
        out().print("\n".join(lines), markup=False)
        return 0


def _pick(name: str | None, scenes: tuple[str, ...]) -> str:
    if name is None and len(scenes) != 1:
        some = ", ".join(scenes[:10]) + (" ..." if len(scenes) > 10 else "")
        raise ValueError(f"--scene: expected the name of one of {len(scenes)} scenes, got none; choose from {some}")
    return name or scenes[0]


def _rows(predicted: tuple[str, ...], tokens: tuple[str, ...], scene: str) -> list[int]:
    """Row of every frame of the scene among the predicted ones."""
    row_of_token = {token: row for row, token in enumerate(predicted)}
    lost = [token for token in tokens if token not in row_of_token]
    if lost:
        raise ValueError(
            f"--predictions: {len(lost)} of {len(tokens)} frames of {scene} have no predictions (such as {lost[0]}); "
            "evaluate a split with this scene, or choose one that was evaluated"
        )
    return [row_of_token[token] for token in tokens]
