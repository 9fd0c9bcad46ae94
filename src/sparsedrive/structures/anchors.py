"""Where instances start from: the anchors of boxes, map lines, forecasts and plans, clustered from data, and their file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sparsedrive.geometry import box_state
from sparsedrive.structures.frame import Command
from sparsedrive.structures.outputs import DETECTION_CLASSES

FORMAT = 1
METADATA_KEY = "sparsedrive_anchors"
ARRAYS = ("detection", "map_lines_m", "motion_m", "plan_m")


@dataclass(frozen=True, kw_only=True)
class AnchorSizes:
    """How many anchors a model has, and how long they are. The defaults are those of SparseDrive as published."""

    detection: int = 900
    map_lines: int = 100
    map_vertices: int = 20
    motion_modes: int = 6
    motion_steps: int = 12
    plan_modes: int = 6
    plan_steps: int = 6

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"AnchorSizes.{name}: expected at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class AnchorGroup:
    """One clustering: `count` anchors, of which the first `from_data` come from `samples` samples and the rest from a fallback."""

    name: str
    samples: int
    from_data: int
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Anchors:
    """Anchors in the ego frame (x right, y forward, z up), float32; in each group those from data come first.

    Attributes:
        detection: box states (`geometry.box_state`).
        map_lines_m: polylines.
        motion_m: positions 0.5 s apart of each class's modes, from the box's centre, x along its heading.
        plan_m: positions 0.5 s apart of the ego frame's origin, for each `Command`.
        groups: what each part was made from.
        data, split, seed: the log, its split and the random seed.
    """

    detection: Float[np.ndarray, "N 11"]
    map_lines_m: Float[np.ndarray, "L P 2"]
    motion_m: Float[np.ndarray, "K M T 2"]
    plan_m: Float[np.ndarray, "3 M E 2"]
    groups: tuple[AnchorGroup, ...] = field(default=())
    data: str = ""
    split: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        wanted = {
            "detection": (None, box_state.STATE_DIM),
            "map_lines_m": (None, None, 2),
            "motion_m": (len(DETECTION_CLASSES), None, None, 2),
            "plan_m": (len(Command), None, None, 2),
        }
        for name, shape in wanted.items():
            value = getattr(self, name)
            fits = value.ndim == len(shape) and all(a in (None, b) for a, b in zip(shape, value.shape, strict=True))
            if not fits or value.dtype != np.float32 or not np.isfinite(value).all():
                text = str(list(shape)).replace("None", "n")
                raise ValueError(f"Anchors.{name}: expected finite float32 {text}, got {value.dtype} {list(value.shape)}")

    @property
    def sizes(self) -> AnchorSizes:
        """The sizes of the model these anchors fit."""
        return AnchorSizes(
            detection=len(self.detection),
            map_lines=len(self.map_lines_m),
            map_vertices=self.map_lines_m.shape[1],
            motion_modes=self.motion_m.shape[1],
            motion_steps=self.motion_m.shape[2],
            plan_modes=self.plan_m.shape[1],
            plan_steps=self.plan_m.shape[2],
        )

    def save(self, path: Path | str) -> None:
        """Write a safetensors file with what the anchors were made from as JSON in its header; the same anchors give the same bytes."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"Anchors.save: expected a path ending in .safetensors, got {path}; rename it")
        about = {"format": FORMAT, "data": self.data, "split": self.split, "seed": self.seed, "groups": [asdict(g) for g in self.groups]}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}
        save_file(arrays, partial, metadata={METADATA_KEY: json.dumps(about)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> "Anchors":
        """Read a file written by `save`; `ValueError` says what is wrong with another one."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; write one with `sparsedrive anchors`")
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads((file.metadata() or {})[METADATA_KEY])
                if about["format"] != FORMAT:
                    raise ValueError(f"expected format {FORMAT}, got {about['format']}")
                groups = tuple(AnchorGroup(**group) for group in about["groups"])
                arrays = {name: file.get_tensor(name) for name in ARRAYS}
            return cls(**arrays, groups=groups, data=about["data"], split=about["split"], seed=about["seed"])
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path}: not a file of anchors ({error}); write one with `sparsedrive anchors`") from error
