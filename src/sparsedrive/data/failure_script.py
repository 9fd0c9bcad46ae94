"""A fixed list of camera failures: what happens to which camera in which frames of which scene. For evaluation, and to be kept in a file.

Equal lists have equal `digest`s, so a result can say exactly what was done to the cameras.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from sparsedrive.data.failures import CameraFault, FaultKind
from sparsedrive.data.prepared import PreparedScene, whole_file
from sparsedrive.data.sampler import FrameRequest

FORMAT, FORMAT_VERSION = "sparsedrive-failures", 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FaultSpan:
    """One fault of one camera over the frames start <= frame < stop of a scene; the last three fields as in `CameraFault`."""

    scene: str
    camera: str
    start: int
    stop: int
    kind: FaultKind
    amount: float = 0.0
    announced: bool = True

    def __post_init__(self) -> None:
        CameraFault(kind=self.kind, amount=self.amount)
        if not 0 <= self.start < self.stop:
            raise ValueError(f"fault of {self.camera} in {self.scene}: expected 0 <= start < stop, got {self.start} and {self.stop}")


@dataclass(frozen=True, kw_only=True)
class FailureScript:
    """Faults in any order. A `FailureSchedule`: give it to `make_loader`.

    Raises:
        ValueError: two faults of one camera at the same frame.
    """

    spans: tuple[FaultSpan, ...]

    def __post_init__(self) -> None:
        for (scene, camera), spans in self._of_camera.items():
            for one, next_one in pairwise(spans):
                if next_one.start < one.stop:
                    raise ValueError(
                        f"failures of {camera} in {scene}: two faults at frame {next_one.start}, {one.kind!r} and {next_one.kind!r}; one "
                        "camera can have one fault at a time"
                    )

    @cached_property
    def _of_camera(self) -> dict[tuple[str, str], list[FaultSpan]]:
        found: dict[tuple[str, str], list[FaultSpan]] = {}
        for span in sorted(self.spans):
            found.setdefault((span.scene, span.camera), []).append(span)
        return found

    @cached_property
    def digest(self) -> str:
        """Hash of the faults, whatever their order."""
        return hashlib.sha256(json.dumps([asdict(span) for span in sorted(self.spans)]).encode()).hexdigest()

    def faults(self, request: FrameRequest, camera_names: Sequence[str]) -> tuple[CameraFault | None, ...]:
        """One entry a camera; None for those with which nothing is wrong."""
        return tuple(self._fault(request.scene, request.frame, name) for name in camera_names)

    def _fault(self, scene: str, frame: int, camera: str) -> CameraFault | None:
        span = self._span(scene, frame, camera)
        if span is None:
            return None
        before = span
        while before.kind == "freeze" and (earlier := self._span(scene, before.start - 1, camera)) and earlier.kind == "freeze":
            before = earlier
        stale = before.start - 1 if span.kind == "freeze" and before.start > 0 else None
        return CameraFault(kind=span.kind, amount=span.amount, announced=span.announced, stale_frame=stale)

    def _span(self, scene: str, frame: int, camera: str) -> FaultSpan | None:
        return next((span for span in self._of_camera.get((scene, camera), ()) if span.start <= frame < span.stop), None)

    def lost(self, scene: str, num_frames: int, camera_names: Sequence[str]) -> Bool[np.ndarray, "F C"]:
        """At which frames of a scene something is wrong with which camera, announced or not."""
        lost = np.zeros((num_frames, len(camera_names)), bool)
        for column, camera in enumerate(camera_names):
            for span in self._of_camera.get((scene, camera), ()):
                lost[span.start : span.stop, column] = True
        return lost

    def check(self, scenes: Sequence[PreparedScene], camera_names: Sequence[str]) -> None:
        """`ValueError` where a fault is of a scene, a camera or a frame that is not there."""
        frames = {scene.name: scene.num_frames for scene in scenes}
        for span in self.spans:
            where = f"failures: fault {span.kind!r} of {span.camera} in {span.scene}, frames {span.start} to {span.stop - 1}"
            if span.scene not in frames:
                raise ValueError(f"{where}: no such scene, there are {_some(list(frames))}; make the list for this split")
            if span.camera not in camera_names:
                raise ValueError(f"{where}: no such camera, there are {list(camera_names)}")
            if span.stop > frames[span.scene]:
                raise ValueError(f"{where}: the scene has {frames[span.scene]} frames; make the list for these data")

    def save(self, path: Path | str) -> Path:
        """Write a JSON file, with the digest."""
        path = Path(path)
        faults = [asdict(span) for span in sorted(self.spans)]
        content = {"format": FORMAT, "version": FORMAT_VERSION, "digest": self.digest, "faults": faults}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path | str) -> "FailureScript":
        """Read a file of `save`, or one written by hand without a digest. `ValueError` names what is wrong with it."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror}); expected a list of camera failures") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected JSON, got a file that cannot be parsed ({error})") from error
        if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"{path}: expected an object with format {FORMAT!r} and version {FORMAT_VERSION}; this is no list of failures")
        if not isinstance(content.get("faults"), list):
            raise ValueError(f"{path}: expected a list under 'faults', got {content.get('faults')!r:.60}")
        script = cls(spans=tuple(_span_of(row, f"{path}: fault {number}") for number, row in enumerate(content["faults"])))
        if content.get("digest", script.digest) != script.digest:
            raise ValueError(f"{path}: the faults were changed after the digest was written; remove the digest if that is meant")
        return script


def _span_of(row: Any, where: str) -> FaultSpan:
    kinds: Mapping[str, Any] = {item.name: item.type for item in fields(FaultSpan)}
    needed = {"scene", "camera", "start", "stop", "kind"}
    if not isinstance(row, dict) or not needed <= set(row) <= set(kinds):
        raise ValueError(f"{where}: expected keys {', '.join(kinds)} (the last two may be left out), got {row!r:.120}")
    texts = dict.fromkeys(("scene", "camera", "kind"), str)
    wanted: dict[str, Any] = texts | {"start": int, "stop": int, "amount": (int, float), "announced": bool}
    for name, value in row.items():
        if not isinstance(value, wanted[name]) or (isinstance(value, bool) and name != "announced"):
            raise ValueError(f"{where}, {name}: got {value!r:.60}, which is of the wrong type")
    try:
        return FaultSpan(**(row | {"amount": float(row.get("amount", 0.0))}))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
