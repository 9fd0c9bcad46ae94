"""`sparsedrive stream`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sparsedrive.cli.console import BaseVerb, Weights, optional


@dataclass(frozen=True, kw_only=True)
class Stream(BaseVerb):
    """Run a model over a recorded scene, frame by frame, as in the car.

    The scene comes from a nuScenes-format folder, or from what `sparsedrive prepare` made of one or of a rig of your own.

    Writes results.json (boxes with track ids, map, forecasts, plan), a picture of every frame and a video.

    Examples:
      sparsedrive stream --data nuscenes --scene scene-0103 --preset sparsedrive_small_stage2 --weights small.safetensors --out out
      sparsedrive stream --data nuscenes --scene scene-0103 --out out --max-frames 5 --annotations
      sparsedrive stream --data data/world/prepared/v1.0-world --scene scene-0001 --out out
    """

    data: Path
    """Folder with v1.0-*/, samples/ and can_bus/, or a prepared one."""
    out: Path
    """Folder for results.json, frames/ and video.mp4; made if needed."""
    scene: Annotated[str | None, optional("NAME")] = None
    """Name of the scene; may be left out when there is only one."""
    preset: str = "tiny"
    """Model; `sparsedrive presets` lists them."""
    weights: Weights = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes the GPU if there is one."""
    max_frames: Annotated[int | None, optional("N")] = None
    """Stop after this many frames."""
    allow_missing: bool = False
    """Go on where a camera's picture is not on disk, with that camera marked as failed."""
    watch_cameras: bool = False
    """Also take cameras for failed whose picture is of one colour, or stays the same while the car moves."""
    version: Annotated[str | None, optional("NAME")] = None
    """Table folder, such as v1.0-mini; may be left out when there is only one."""
    score_threshold: float = 0.3
    """Boxes and map lines below this score are neither drawn nor stored."""
    annotations: bool = False
    """Draw the annotated boxes as thin white wires."""
    no_video: bool = False
    """Write only the pictures, not the MP4."""

    def run(self) -> int:
        """Streams the scene."""
        from sparsedrive.cli.stream_log import Outputs, load_model, report, scene_records, stream_log

        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"--max-frames: expected at least 1, got {self.max_frames}")
        records = scene_records(self.data, self.scene, self.version, annotations=self.annotations)
        model, weights = load_model(self.preset, self.weights, self.device)
        outputs = Outputs(folder=self.out, score_threshold=self.score_threshold, video=not self.no_video, watch_cameras=self.watch_cameras)
        report(stream_log(records[: self.max_frames], model, weights, outputs, allow_missing=self.allow_missing))
        return 0
