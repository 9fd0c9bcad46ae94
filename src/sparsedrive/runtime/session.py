"""Frame after frame: a session keeps the state of its streams and checks what comes in."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.decoding import decode
from sparsedrive.models.completion.health import with_health
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Command, Frame, Scene, StreamState

PRESET_KEY = "preset"
MIN_FOCAL_PX = 1.0


class StreamingSession:
    """`scene = session.step(frame)` for B streams that run side by side (B = the first frame's batch size).

    A stream starts cold by itself after a gap of over 2 s, with a new `sequence_id`, or when time runs backwards. Many sessions may
    share one model: all that changes is in `session.state` (and the last frame, with `watch_cameras`).

    `watch_cameras`: cameras whose picture is of one colour, or stays the same while the car moves, count as failed
    (`models.completion.health`), for rigs that do not say so. What to do without them is up to the model: `mask_aware`, `completion`.
    """

    def __init__(self, model: SparseDrive, *, score_threshold: float | None = None, watch_cameras: bool = False):
        self.model = model.eval()
        self.score_threshold = score_threshold
        self.watch_cameras = watch_cameras
        self.state: StreamState | None = None
        self._last: Frame | None = None

    @torch.inference_mode()
    def step(self, frame: Frame) -> Scene:
        """The scene at this frame, in its ego frame. Raises ValueError for a frame that cannot be right; the state is then untouched."""
        self.model.check(frame)
        check_values(frame)
        if self.state is not None and self.state.clock.started.shape[0] != frame.batch_size:
            raise ValueError(
                f"StreamingSession.step: expected {self.state.clock.started.shape[0]} streams as before, got {frame.batch_size}; "
                "reset() the session or open another one"
            )
        # Copies: a caller that fills the same buffers for the next frame must not change what was remembered or returned.
        frame = replace(
            frame,
            global_T_ego=frame.global_T_ego.clone(),
            time_s=frame.time_s.clone(),
            sequence_id=frame.sequence_id.clone(),
            command=frame.command.clone(),
        ).to(self.model.detection.anchors.device)
        given = frame
        if self.watch_cameras:
            given = replace(frame, images=frame.images.clone())
            frame = with_health(frame, self._last)
        predictions, self.state = self.model(frame, self.state)
        self._last = given if self.watch_cameras else None
        config, threshold = self.model.config, self.score_threshold
        return decode(
            predictions,
            frame.command,
            score_threshold=threshold,
            with_track_ids=config.tracks,
            no_duplicates=config.no_duplicates,
            parity=config.parity,
        )

    def reset(self) -> None:
        """Forget everything: the next frame starts cold."""
        self.state = self._last = None

    def save(self, path: str | Path) -> None:
        """Writes the state as safetensors. Raises ValueError before the first frame."""
        if self.state is None:
            raise ValueError("StreamingSession.save: expected at least one step before, got a session without state; call step() first")
        leaves = pytree.tree_leaves(self.state)
        tensors = {f"{index:03d}": leaf.detach().cpu().contiguous() for index, leaf in enumerate(leaves)}
        save_file(tensors, path, metadata={PRESET_KEY: self.model.config.name})

    def load(self, path: str | Path) -> None:
        """Reads a state written by `save` with the same configuration; going on from it equals never having stopped."""
        try:
            with safe_open(path, framework="pt") as file:
                made_by = (file.metadata() or {}).get(PRESET_KEY)
                tensors = [file.get_tensor(key) for key in sorted(file.keys())]
        except SafetensorError as error:
            raise ValueError(f"{path}: expected a session state, got a file that cannot be read ({error}); save it again") from error
        batch = tensors[0].shape[0] if tensors and tensors[0].dim() else 0
        blank = self.model.initial_state(batch)
        leaves, spec = pytree.tree_flatten(blank)
        found = [(tuple(t.shape), t.dtype) for t in tensors]
        if made_by != self.model.config.name or found != [(tuple(leaf.shape), leaf.dtype) for leaf in leaves]:
            raise ValueError(
                f"{path}: expected the state of a session with preset {self.model.config.name!r}, got one of {made_by!r} that does not "
                "fit; load it into a session of the model that wrote it"
            )
        self.state = pytree.tree_unflatten([t.to(leaf.device) for t, leaf in zip(tensors, leaves, strict=True)], spec)


def check_values(frame: Frame) -> None:
    """What shapes cannot tell: NaN images, singular calibration, impossible poses, times and commands. Raises ValueError."""
    for index, name in enumerate(frame.rig.names):
        seen = frame.rig.available[:, index]
        if not bool(torch.isfinite(frame.images[:, index][seen]).all()):
            raise ValueError(
                f"Frame.images: expected finite values, got NaN or infinity in camera {name}; "
                "decode the picture again, or set rig.available to False for it"
            )
        # Finite also for a failed camera: all cameras share one softmax of sampling weights.
        image_T_ego = frame.rig.image_T_ego[:, index]
        determinant = torch.linalg.det(image_T_ego[:, :3, :3].double())[seen]
        if not bool(torch.isfinite(image_T_ego).all()) or bool((determinant.abs() < MIN_FOCAL_PX**2).any()):
            raise ValueError(
                f"CameraRig.image_T_ego: expected an invertible projection for camera {name} (determinant = fx * fy), got a singular "
                "one or one with NaN or infinity; check its intrinsics and extrinsics"
            )
    if not bool((frame.rig.image_wh_px > 0).all()):
        raise ValueError(f"CameraRig.image_wh_px: expected positive sizes, got {frame.rig.image_wh_px.tolist()}; give network pixels")
    _check_poses(frame.global_T_ego)
    if frame.time_s.dtype != torch.float64 or frame.global_T_ego.dtype != torch.float64:
        raise ValueError(
            f"Frame.time_s, Frame.global_T_ego: expected float64 (float32 has 128 s resolution at epoch seconds), "
            f"got {frame.time_s.dtype} and {frame.global_T_ego.dtype}; keep them in double precision"
        )
    if not bool(torch.isfinite(frame.time_s).all()):
        raise ValueError(f"Frame.time_s: expected finite seconds, got {frame.time_s.tolist()}")
    if bool(((frame.command < 0) | (frame.command >= len(Command))).any()):
        raise ValueError(f"Frame.command: expected {[f'{c.value} {c.name.lower()}' for c in Command]}, got {frame.command.tolist()}")


def _check_poses(global_T_ego: Tensor) -> None:
    rotation, bottom = global_T_ego[:, :3, :3], global_T_ego.new_tensor([0.0, 0.0, 0.0, 1.0])
    error = (rotation @ rotation.transpose(-1, -2) - torch.eye(3, dtype=rotation.dtype, device=rotation.device)).abs().amax()
    # written so that NaN fails too
    if not bool((error < 1e-3) & (torch.linalg.det(rotation) > 0).all()):
        raise ValueError(
            f"Frame.global_T_ego: expected a rotation and a translation, got a linear part {float(error):.2g} off orthonormal, "
            "or a mirrored one; check the pose's quaternion"
        )
    if not bool(torch.isfinite(global_T_ego).all() & (global_T_ego[:, 3] == bottom).all()):
        raise ValueError(
            f"Frame.global_T_ego: expected a finite translation in the last column and (0, 0, 0, 1) as the last row, "
            f"got {global_T_ego.tolist()}; check that the pose is not transposed"
        )
