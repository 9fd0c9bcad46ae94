"""A small model, an endless loader of random frames with targets, and runs of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import model_samples
import torch
from torch.utils import _pytree as pytree

from sparsedrive.data.sampler import FrameRequest
from sparsedrive.models.depth_head import DepthHeadConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.structures import BoxTargets, Frame, FrameTargets, FutureTargets, MapTargets, cat_frames
from sparsedrive.training.config import OptimiserConfig, TrainConfig
from sparsedrive.training.trainer import Trainer, make_accelerator

SEQUENCE_LENGTH = 3


def model_config() -> SparseDriveConfig:
    """`model_samples.config` with one depth level, so that its targets are small, and a thin backbone; without object maps, whose losses
    are averaged over pixels, of which every stream has another number."""
    config = model_samples.config()
    encoder = replace(config.encoder, backbone=ResNetConfig(depth=18, width=8))
    return replace(config, encoder=encoder, depth=DepthHeadConfig(num_levels=1), objects=None)


def train_config(**changes) -> TrainConfig:
    """Six steps of four streams."""
    optimiser = OptimiserConfig(rate=1e-3, warmup_steps=2)
    return replace(TrainConfig(steps=6, batch_size=4, optimiser=optimiser, save_every=2, keep=2, log_every=1), **changes)


def targets(index: int, stream: int) -> FrameTargets:
    """Three boxes, two lines and some depth for frame `index` of a stream; frame 0 of stream 1 has nothing at all."""
    draw = torch.Generator().manual_seed(7919 * stream + index)
    nothing = index == 0 and stream == 1
    boxes = BoxTargets(
        box=torch.rand(1, 3, 10, generator=draw) * 8 + 0.5,
        label=torch.tensor([[0, 5, 8]]),
        instance=torch.arange(3)[None],
        lidar_returns=torch.ones(1, 3, dtype=torch.int64),
        valid=torch.full((1, 3), not nothing),
    )
    lines_m = torch.rand(1, 2, 20, 2, generator=draw) * 10
    elements = MapTargets(
        points_m=torch.stack([lines_m, lines_m.flip(2)], 2),
        order_valid=torch.ones(1, 2, 2, dtype=torch.bool),
        label=torch.tensor([[1, 2]]),
        valid=torch.full((1, 2), not nothing),
    )
    futures = FutureTargets(
        agent_m=boxes.box[:, :, None, :2].repeat(1, 1, 12, 1),
        agent_valid=torch.full((1, 3, 12), not nothing),
        ego_m=torch.rand(1, 6, 2, generator=draw),
        ego_valid=torch.full((1, 6), not nothing),
    )
    depth_m = torch.rand(1, 3, model_samples.HEIGHT // 4, model_samples.WIDTH // 4, generator=draw) * 40
    return FrameTargets(
        boxes=boxes, map=elements, futures=futures, depth_m=(depth_m,), ego_status_known=torch.ones(1, 10, dtype=torch.bool)
    )


class RandomLoader:
    """Step `n` is always the same batch: streams `first` to `first + streams`, each changing its sequence every few frames."""

    def __init__(self, streams: int = 4, first: int = 0, spoil=lambda step, frame, targets: (frame, targets)) -> None:
        self.step, self.streams, self.spoil = 0, range(first, first + streams), spoil

    def __iter__(self) -> Iterator[tuple[Frame, FrameTargets]]:
        while True:
            step, self.step = self.step, self.step + 1
            sequence, index = divmod(step, SEQUENCE_LENGTH)
            frames = [model_samples.frame(index, stream=stream, sequence=10 * sequence + stream) for stream in self.streams]
            rows = [pytree.tree_flatten(targets(step, stream)) for stream in self.streams]
            merged = [torch.cat(list(column)) for column in zip(*(leaves for leaves, _ in rows), strict=True)]
            yield self.spoil(step, cat_frames(frames), pytree.tree_unflatten(merged, rows[0][1]))

    def requests(self, step: int) -> list[FrameRequest]:
        return [FrameRequest(scene=f"drive-{stream}", frame=step, sequence_id=stream) for stream in self.streams]

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state) -> None:
        self.step = state["step"]


def trainer(folder: Path, *, seed: int = 0, loader: RandomLoader | None = None, **changes) -> Trainer:
    """A fresh run on the CPU; `seed` is that of the first weights."""
    config = train_config(**changes)
    accelerator = make_accelerator(config, cpu=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_config().build()
    return Trainer(model, loader or RandomLoader(), config, folder, accelerator)


def same_weights(a: Trainer, b: Trainer) -> bool:
    """Bit by bit."""
    ours, theirs = a.plain_model.state_dict(), b.plain_model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
