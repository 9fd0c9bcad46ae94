"""Pictures of a stream on disk: one PNG a frame, and one MP4 of all."""

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray


class VideoWriter:
    """Writes `folder/frames/000000.png`, ... and `folder/NAME.mp4`. Use as a context manager.

    Numbered PNGs of an earlier run in that folder are removed first. The PNGs are always written; when OpenCV cannot encode MP4 on
    this machine, `problem` says so.
    """

    def __init__(self, folder: str | Path, *, name: str = "video", fps: float = 2.0, mp4: bool = True) -> None:
        self.folder = Path(folder)
        self.frames_folder = self.folder / "frames"
        self.video_path = self.folder / f"{name}.mp4"
        self.problem: str | None = None
        self.count = 0
        self._fps = fps
        self._want_mp4 = mp4
        self._encoder: cv2.VideoWriter | None = None
        self._wh_px: tuple[int, int] | None = None
        self.frames_folder.mkdir(parents=True, exist_ok=True)
        for stale in self.frames_folder.glob("[0-9]" * 6 + ".png"):
            stale.unlink()

    @property
    def has_video(self) -> bool:
        """True when the MP4 is being written (known after the first picture)."""
        return self._encoder is not None

    def write(self, picture_rgb: NDArray[np.uint8]) -> Path:
        """Adds a picture [H, W, 3]; all must have the size of the first. Returns the PNG's path."""
        wh_px = (picture_rgb.shape[1], picture_rgb.shape[0])
        if self._wh_px is None:
            self._wh_px = wh_px
            if self._want_mp4:
                self._open(wh_px)
        if wh_px != self._wh_px:
            raise ValueError(f"VideoWriter: expected pictures of {self._wh_px} pixels like the first one, got {wh_px}")
        picture_bgr = cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2BGR)
        path = self.frames_folder / f"{self.count:06d}.png"
        if not cv2.imwrite(str(path), picture_bgr):
            raise OSError(f"could not write {path}; is the disk full or the folder read-only?")
        if self._encoder is not None:
            self._encoder.write(picture_bgr)
        self.count += 1
        return path

    def close(self) -> None:
        """Ends the MP4."""
        if self._encoder is not None:
            self._encoder.release()

    def _open(self, wh_px: tuple[int, int]) -> None:
        encoder = cv2.VideoWriter(str(self.video_path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, wh_px)
        if encoder.isOpened():
            self._encoder = encoder
        else:
            self.problem = (
                f"this build of OpenCV ({cv2.__version__}) cannot encode MP4 (codec mp4v); the pictures are in {self.frames_folder}"
            )

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
