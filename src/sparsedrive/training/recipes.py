"""Published and own recipes: what a preset is trained with. `sparsedrive train` starts from these."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sparsedrive.data.augment import AugmentConfig
from sparsedrive.data.failures import Curriculum, FailureSchedule, MarkovFailures, RandomFailures
from sparsedrive.losses.completion import CompletionLossConfig
from sparsedrive.losses.criterion import CriterionConfig
from sparsedrive.losses.detection import BoxLossConfig
from sparsedrive.losses.futures import FutureLossConfig
from sparsedrive.losses.matching import BoxCost
from sparsedrive.training.config import OptimiserConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a preset is trained: `epochs` over the split at `batch_size` streams, each scene in `parts` pieces, while cameras fail."""

    epochs: float
    batch_size: int
    optimiser: OptimiserConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    parts: int = 2
    ema_decay: float | None = None
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    failures: FailureSchedule | None = None

    def with_batch(self, batch_size: int) -> "Recipe":
        """The same recipe for another batch: the rate follows the batch linearly (arXiv:1706.02677)."""
        rate = self.optimiser.rate * batch_size / self.batch_size
        return replace(self, batch_size=batch_size, optimiser=replace(self.optimiser, rate=rate))

    def train_config(self, num_frames: int) -> TrainConfig:
        """The run over a split of `num_frames`; the warm-up is at most a tenth of it."""
        steps = max(1, round(self.epochs * num_frames / self.batch_size))
        optimiser = replace(self.optimiser, warmup_steps=min(self.optimiser.warmup_steps, steps // 10))
        return TrainConfig(steps=steps, batch_size=self.batch_size, optimiser=optimiser, criterion=self.criterion, ema_decay=self.ema_decay)


def stage1() -> Recipe:
    """SparseDrive stage 1 as published: 100 epochs of nuScenes at batch 64 (8 GPUs x 8)."""
    return Recipe(epochs=100, batch_size=64, optimiser=OptimiserConfig(rate=4e-4, backbone_rate_share=0.5))


def stage2() -> Recipe:
    """SparseDrive stage 2 as published: 10 epochs at batch 48 (8 GPUs x 6), from the weights of stage 1."""
    return Recipe(epochs=10, batch_size=48, optimiser=OptimiserConfig(rate=3e-4, backbone_rate_share=0.1))


def tiny() -> Recipe:
    """The small model on the embedded world, all stages at once, from random weights: nothing is pretrained, so all learn at one rate."""
    augment = AugmentConfig(flip_probability=0.0, rotate_deg=(0.0, 0.0), zoom=(1.0, 1.0), turn_deg=(-10.0, 10.0), colour=None)
    optimiser = OptimiserConfig(rate=7e-4, backbone_rate_share=1.0, warmup_steps=200)
    criterion = CriterionConfig(futures=FutureLossConfig(motion_path_weight=0.1, plan_path_weight=3.0))
    return Recipe(epochs=4.5, batch_size=4, optimiser=optimiser, augment=augment, criterion=criterion)


def tiny_pretrained() -> Recipe:
    """As `tiny`, the backbone slower: what it learned from photographs should not be washed out."""
    chosen = tiny()
    return replace(chosen, optimiser=replace(chosen.optimiser, backbone_rate_share=0.2))


def stage2_completion() -> Recipe:
    """The completion as published: 30 epochs at batch 4 on one GPU, from the finished weights of stage 2 (`--init`), with the documented
    weights of the losses, failures and curriculum. True pictures of failed cameras stay in the frame for the teacher ("intact")."""
    return Recipe(
        epochs=30,
        batch_size=4,
        optimiser=OptimiserConfig(rate=1.5e-5, backbone_rate_share=0.1),
        criterion=CriterionConfig(completion=CompletionLossConfig.published()),
        failures=RandomFailures(probability=0.6, max_cameras=2, fill="intact", curriculum=Curriculum()),
    )


def tiny_completion() -> Recipe:
    """From the weights of `tiny` (`--init`), at a low rate, with cameras that break down a quarter of the time, for 4 s on average."""
    chosen = tiny()
    return replace(
        chosen,
        epochs=1.0,
        optimiser=replace(chosen.optimiser, rate=2e-4, backbone_rate_share=0.1, warmup_steps=100),
        failures=MarkovFailures(down_share=0.25, mean_down_s=4.0, fill="intact"),
    )


def sparse4d_v3() -> Recipe:
    """Sparse4D v3 as published: 100 epochs of nuScenes at batch 48 (8 GPUs x 6), each scene in two pieces."""
    augment = AugmentConfig(turn_deg=(-22.5, 22.5))
    return Recipe(epochs=100, batch_size=48, optimiser=OptimiserConfig(rate=6e-4, backbone_rate_share=0.5), augment=augment)


def sparse4d_v2() -> Recipe:
    """Sparse4D v2 as published: as v3 at batch 64 (8 GPUs x 8); a barrier has a front and a back."""
    return replace(sparse4d_v3(), batch_size=64, criterion=CriterionConfig(detection=BoxLossConfig(reversible_classes=())))


def sparse4d_v1() -> Recipe:
    """Sparse4D v1: 24 epochs of nuScenes at batch 8 (8 GPUs x 1), from FCOS3D's backbone; pictures change in colour only.

    Streams run in order; the published code draws three past frames anew for each sample, up to twice as far apart.
    """
    cost = BoxCost(state_weights=(2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    return Recipe(
        epochs=24,
        batch_size=8,
        optimiser=OptimiserConfig(rate=2e-4, backbone_rate_share=0.1, weight_decay=1e-2, clip_norm=35.0),
        augment=AugmentConfig(flip_probability=0.0, rotate_deg=(0.0, 0.0), zoom=(1.0, 1.0), turn_deg=(0.0, 0.0)),
        criterion=CriterionConfig(detection=BoxLossConfig(cost=cost, reversible_classes=())),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "tiny_pretrained": tiny_pretrained,
    "sparsedrive_small_stage1": stage1,
    "sparsedrive_small_stage2": stage2,
    "sparsedrive_base_stage1": stage1,
    "sparsedrive_base_stage2": stage2,
    "tiny_completion": tiny_completion,
    "sparsedrive_small_stage2_completion": stage2_completion,
    "sparsedrive_small_stage2_completion_v2": stage2_completion,
    "sparse4d_tiny": tiny,
    "sparse4d_v1_r101_h1": sparse4d_v1,
    "sparse4d_v1_r101_h4": sparse4d_v1,
    "sparse4d_v2_r50": sparse4d_v2,
    "sparse4d_v2_r101": sparse4d_v2,
    "sparse4d_v3_r50": sparse4d_v3,
    "sparse4d_v3_r101": sparse4d_v3,
    "sparse4d_v3_vov99": sparse4d_v3,
}


def recipe(preset: str) -> Recipe:
    """The recipe of a preset; `ValueError` lists the presets that have one."""
    if preset not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {preset!r}")
    return RECIPES[preset]()
