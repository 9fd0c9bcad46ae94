"""`sparsedrive calibration`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sparsedrive.cli.console import BaseVerb, optional, out, print_warning

if TYPE_CHECKING:
    from sparsedrive.data import FrameRecord


@dataclass(frozen=True, kw_only=True)
class Calibration(BaseVerb):
    """Draw one frame so that a person sees whether its calibration is right.

    Every camera with the horizon, rings on the road, lidar returns and annotated boxes, and from above where each camera looks.
    docs/own_rig.md says what a wrong calibration looks like.

    Examples:
      sparsedrive calibration --data nuscenes --scene scene-0103 --frame 0 --out check.png
      sparsedrive calibration --data prepared --scene scene-0061 --out check.png --no-boxes
    """

    data: Path
    """nuScenes-format folder, or one written by `sparsedrive prepare`."""
    out: Path
    """Picture to write (.png or .jpg)."""
    scene: Annotated[str | None, optional("NAME")] = None
    """Name of the scene; may be left out when there is only one."""
    frame: int = 0
    """Which key frame, from 0."""
    no_boxes: bool = False
    """Leave the annotated boxes out."""
    ground_height_m: float = -1.84
    """Height of the road in the ego frame; the nuScenes lidar stands 1.84 m above it."""
    width: int = 2400
    """Width of the picture in pixels."""
    version: Annotated[str | None, optional("NAME")] = None
    """Table folder of a nuScenes-format folder, such as v1.0-mini; may be left out when there is only one."""

    def run(self) -> int:
        """Reads, draws, writes."""
        from sparsedrive.data import read_pictures
        from sparsedrive.data.lidar import read_lidar
        from sparsedrive.viz.calibration import render_calibration
        from sparsedrive.viz.files import write_picture

        record, lidar = self._record()
        pictures = read_pictures(record, [camera.name for camera in record.cameras], allow_missing=True)
        if not any(pictures.available):
            absent = record.cameras[0].path
            raise ValueError(f"{record.scene}, frame {self.frame}: no picture {absent}; unpack samples/ or choose another frame")
        missing = [name for name, there in zip(pictures.names, pictures.available, strict=True) if not there]
        if missing:
            print_warning(f"no picture of {', '.join(missing)}")
        if not lidar.is_file():
            print_warning(f"no lidar file {lidar}: the picture shows boxes and rings only")
        objects = None if self.no_boxes else record.annotations
        check = render_calibration(
            [rgb if there else None for rgb, there in zip(pictures.rgb, pictures.available, strict=True)],
            pictures.image_T_ego.numpy(),
            pictures.names,
            points_m=read_lidar(lidar)[:, :3] if lidar.is_file() else None,
            boxes=None if objects is None else objects.box.numpy(),
            labels=None if objects is None else objects.label.numpy(),
            ground_z_m=self.ground_height_m,
            title=f"{record.scene}, frame {self.frame}",
            width_px=self.width,
        )
        write_picture(self.out, check)
        out().print(f"{sum(pictures.available)} cameras -> {self.out}", markup=False)
        return 0

    def _record(self) -> "tuple[FrameRecord, Path]":
        """The frame, and where its lidar file should be."""
        from sparsedrive.data import NuScenesLog
        from sparsedrive.data.nuscenes.tables import EGO_CHANNEL
        from sparsedrive.data.prepared import INDEX_FILE, PreparedData
        from sparsedrive.data.records import to_record

        if (self.data / INDEX_FILE).is_file():
            prepared = PreparedData.open(self.data)
            name = self._pick(prepared.scenes)
            scene = prepared.scene(name)
            self._check_frame(name, scene.num_frames)
            return to_record(prepared, scene, self.frame), prepared.root / scene.lidar_paths[self.frame]
        log = NuScenesLog(self.data, self.version, annotations=not self.no_boxes)
        name = self._pick(log.scenes)
        samples = log.samples(name)
        self._check_frame(name, len(samples))
        return log.scene(name)[self.frame], self.data / log.files(samples[self.frame])[EGO_CHANNEL].filename

    def _pick(self, scenes: tuple[str, ...]) -> str:
        if self.scene is not None:
            return self.scene
        if len(scenes) != 1:
            raise ValueError(f"--scene: expected the name of one of {len(scenes)} scenes, got none; choose from {', '.join(scenes[:10])}")
        return scenes[0]

    def _check_frame(self, name: str, num_frames: int) -> None:
        if not 0 <= self.frame < num_frames:
            raise ValueError(f"--frame: expected 0 to {num_frames - 1} in {name}, got {self.frame}")
