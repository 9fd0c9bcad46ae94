"""Small models with a completion, one-camera rigs whose geometry can be worked out by hand, and frames whose cameras fail."""

from dataclasses import replace

import model_samples
import torch
from torch import Tensor

from sparsedrive.models.completion.cascade import CompletionCascade
from sparsedrive.models.completion.config import CompletionConfig, GuidedConfig, PublishedQuirks, ReconstructionConfig, TemporalConfig
from sparsedrive.models.memory_ops import Tick
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.structures import CameraRig, Frame, ImageFeatures, with_available

RING = ("FRONT", "LEFT", "BACK")
DIM, LEVEL_HW = 8, (8, 12, 4, 6)
WIDTH, HEIGHT, FOCAL_PX = 96.0, 64.0, 50.0
NUM_PIXELS = 8 * 12 + 4 * 6


def completion(attention: str = "global", **changes) -> CompletionConfig:
    """All three levels for `model_samples.config`."""
    whole = CompletionConfig(
        temporal=TemporalConfig(attention=attention, ring=RING, num_heads=4, kv_downsample=2),
        reconstruction=ReconstructionConfig(hidden_dim=8),
        guided=GuidedConfig(num_heads=4),
    )
    return replace(whole, **changes)


def config(completion: CompletionConfig | None) -> SparseDriveConfig:
    """`model_samples.config` with a completion; None: only mask-aware."""
    # Where instances start is a choice, which the last bits of another batch size could change.
    return replace(model_samples.config(), mask_aware=True, completion=completion, objects=None)


def failing(frame: Frame, *cameras: int, stream: int = 0) -> Frame:
    """The frame with these cameras failed in one stream, their pictures full of NaN: nobody may look at them."""
    available = frame.rig.available.clone()
    available[stream, list(cameras)] = False
    images = torch.where(available[:, :, None, None, None], frame.images, float("nan"))
    return with_available(replace(frame, images=images), available)


def small_cascade(seed: int = 0, *, names: tuple[str, ...] = RING, spread: float = 0.0, **levels) -> CompletionCascade:
    """A cascade over two levels of 8 channels; levels not named are off. `spread` moves all weights off their initial values."""
    chosen = dict.fromkeys(("temporal", "reconstruction", "guided")) | levels
    published = chosen.pop("published", PublishedQuirks())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = CompletionCascade(CompletionConfig(**chosen, published=published), DIM, 2, names)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * spread)
    return made.eval()


def temporal(**changes) -> TemporalConfig:
    """Level 1 for `small_cascade`."""
    return replace(TemporalConfig(ring=RING, levels=(0, 1), num_heads=2, num_groups=2, kv_downsample=2), **changes)


def forward_rig(cameras: int = 1, *, available: bool = True) -> CameraRig:
    """Cameras at the ego origin that all look along +y (ego: x right, y forward, z up)."""
    image_T_ego = torch.tensor(
        [[FOCAL_PX, WIDTH / 2, 0, 0], [0, HEIGHT / 2, -FOCAL_PX, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]
    )  # pixel x * depth = f * x + cx * y; pixel y * depth = cy * y - f * z; depth = y
    return CameraRig(
        image_T_ego=image_T_ego.expand(1, cameras, 4, 4).clone(),
        image_wh_px=torch.tensor([WIDTH, HEIGHT]).expand(1, cameras, 2).clone(),
        focal_px=torch.full((1, cameras), FOCAL_PX),
        available=torch.full((1, cameras), available),
        names=RING[:cameras],
    )


def features(seed: int = 0, cameras: int = 1, batch: int = 1) -> ImageFeatures:
    """Random features."""
    draw = torch.Generator().manual_seed(seed)
    return ImageFeatures(packed=torch.randn(batch, cameras, NUM_PIXELS, DIM, generator=draw), level_hw=LEVEL_HW)


def blank(images: ImageFeatures, rig: CameraRig) -> ImageFeatures:
    """Features as the encoder gives them where cameras failed."""
    return replace(images, packed=images.packed.masked_fill(~rig.available[:, :, None, None], 0))


def tick(now_T_then: Tensor | None = None, elapsed_s: float = 0.5, *, warm: bool = True, batch: int = 1) -> Tick:
    """Half a second later, without motion unless given."""
    moved = torch.eye(4).expand(batch, 4, 4).clone() if now_T_then is None else now_T_then.expand(batch, 4, 4)
    known = torch.full((batch,), warm)
    elapsed = torch.full((batch,), elapsed_s)
    return Tick(warm=known, attends=known, now_T_then=moved, elapsed_s=elapsed, step_s=elapsed)


def forward_motion(metres: float) -> Tensor:
    """`now_T_then` of a car that drove straight on."""
    now_T_then = torch.eye(4)
    now_T_then[1, 3] = -metres
    return now_T_then[None]


def failed(rig: CameraRig, *cameras: int) -> CameraRig:
    """The rig with these cameras failed in all streams."""
    available = rig.available.clone()
    available[:, list(cameras)] = False
    return replace(rig, available=available)


def start(cascade: CompletionCascade, cameras: int = 1, batch: int = 1):
    """Memory of streams that have seen nothing."""
    return cascade.initial_memory(batch, cameras, NUM_PIXELS, DIM, 6, torch.float32, "cpu")
