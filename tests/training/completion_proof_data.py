"""Image features of every frame of a split, computed once: what `completion_proof.py` trains and judges on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sparsedrive.data import ImagePreprocess
from sparsedrive.data.collate import collate
from sparsedrive.data.dataset import DrivingDataset, LoadConfig, LoadedFrame
from sparsedrive.data.prepared import PreparedData
from sparsedrive.data.sampler import FrameRequest
from sparsedrive.data.targets import TargetConfig
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Frame, FrameTargets, ImageFeatures


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureCache:
    """Frames without pictures, and their features as a file of half precision numbers [F, C, S, D].

    In place of pictures, batches hold the frame's row, spread over the shape of the pictures without taking any memory.
    """

    frames_of: dict[str, int]
    loaded: list[LoadedFrame]
    packed: np.memmap
    level_hw: tuple[int, ...]
    image_wh_px: tuple[int, int]
    camera_names: tuple[str, ...]

    @classmethod
    def make(cls, data: PreparedData, split: str, model: SparseDrive, path: Path) -> "FeatureCache":
        """Every frame of the split through the model's encoder; a finished file of the same shape is taken as it is."""
        config = LoadConfig(
            camera_names=model.config.camera_names, preprocess=ImagePreprocess(final_wh_px=model.config.image_wh_px),
            targets=TargetConfig(depth_strides=model.config.depth_strides),
        )  # fmt: skip
        dataset = DrivingDataset(data, split, config)
        frames_of = {run.scene: run.stop for run in dataset.runs}
        names, dim = model.config.camera_names, model.config.encoder.neck.out_channels
        pixels = model.config.encoder.num_pixels(model.config.image_wh_px)
        shape, done = (sum(frames_of.values()), len(names), pixels, dim), path.with_suffix(".done")
        there = path.is_file() and done.is_file() and done.read_text() == str((shape, list(frames_of)))
        if not there:
            done.unlink(missing_ok=True)
        packed = np.lib.format.open_memmap(path, mode="r+" if there else "w+", dtype=np.float16, shape=None if there else shape)
        loaded, level_hw = [], ()
        for name, count in frames_of.items():
            for index in range(count):
                one = dataset[FrameRequest(scene=name, frame=index, sequence_id=0)]
                if not there or not level_hw:
                    with torch.inference_mode():
                        found = model.eval().image_encoder(torch.from_numpy(one.images)[None])
                    packed[len(loaded)], level_hw = found.packed[0].numpy(), found.level_hw
                loaded.append(replace(one, images=np.zeros((len(names), 3, 0, 0), np.float32)))
        packed.flush()
        done.write_text(str((shape, list(frames_of))))
        return cls(
            frames_of=frames_of, loaded=loaded, packed=packed, level_hw=level_hw, image_wh_px=model.config.image_wh_px, camera_names=names
        )

    def request(self, scene: str, frame: int, *, sequence_id: int) -> FrameRequest:
        """A frame of one sequence."""
        return FrameRequest(scene=scene, frame=frame, sequence_id=sequence_id)

    def batch(self, requests: Sequence[FrameRequest]) -> tuple[Frame, FrameTargets]:
        """As a loader gives it, with rows in place of pictures."""
        first = dict(zip(self.frames_of, np.cumsum([0, *self.frames_of.values()]), strict=False))
        rows = [int(first[request.scene]) + request.frame for request in requests]
        frame, targets = collate(
            [replace(self.loaded[row], sequence_id=request.sequence_id) for row, request in zip(rows, requests, strict=True)]
        )
        width, height = self.image_wh_px
        images = torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, len(self.camera_names), 3, height, width)
        return replace(frame, images=images), targets

    def features(self, images: Tensor) -> ImageFeatures:
        """Of the frames whose rows stand in place of pictures."""
        rows = images[:, 0, 0, 0, 0].long().numpy()
        return ImageFeatures(packed=torch.from_numpy(np.stack([self.packed[row] for row in rows])).float(), level_hw=self.level_hw)


class CachedEncoder(nn.Module):
    """Stands in for the image encoder: no weights, reads the cache. Failed cameras are blank."""

    def __init__(self, cache: FeatureCache) -> None:
        super().__init__()
        self.cache = cache

    def forward(self, images: Tensor, available: Tensor) -> ImageFeatures:
        """As `ImageEncoder.forward`."""
        found = self.cache.features(images)
        return replace(found, packed=found.packed.masked_fill(~available[:, :, None, None], 0))
