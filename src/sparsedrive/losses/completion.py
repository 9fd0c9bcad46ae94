"""What the completion of failed cameras is taught: the features that the cameras would have given."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.structures import CompletionPredictions

MIN_VARIANCE = 1e-4
FINE_WEIGHT = 0.5  # of the importance along the way, in level 3 (as published)


@dataclass(frozen=True, kw_only=True)
class CompletionLossConfig:
    """Weights of the completion's losses. The defaults suit our normalised errors; `published()` has the documented weights.

    Attributes:
        consistency: of what the last level made, against the teacher; mean over pyramid levels.
        reconstruction, kl: of level 2, against the teacher and of its latent; sums over pyramid levels.
        guided: of level 3: log(1 + smooth L1), more along the way.
        belief: squared distance of every pixel's belief from the share of the teacher's variance that its features explain.
        imagined, surprise: of the auxiliary world model, where there is one: squared error of mean features, and its divergences.
        normalise: `consistency` and `reconstruction` are shares of the teacher's variance (1 - R^2: 1 is no better than the mean feature).
        own_target: level 2 is taught its own input, as first published, so it learns to keep damage too.
        camera_weights: some cameras count more, by name; scaled to a mean of 1 over the rig, 1 for those not named.
    """

    consistency: float = 1.0
    reconstruction: float = 0.1
    kl: float = 1e-4
    guided: float = 0.1
    belief: float = 0.0
    imagined: float = 0.01
    surprise: float = 1e-4
    normalise: bool = True
    own_target: bool = False
    camera_weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        weights = [
            self.consistency,
            self.reconstruction,
            self.kl,
            self.guided,
            self.belief,
            self.imagined,
            self.surprise,
            *(weight for _, weight in self.camera_weights),
        ]
        if min(weights) < 0:
            raise ValueError(f"CompletionLossConfig: expected weights of at least 0, got {min(weights)}")

    @classmethod
    def published(cls) -> "CompletionLossConfig":
        """The documented weights, on plain squared errors."""
        return cls(consistency=0.01, reconstruction=0.01, kl=1e-4, guided=0.1, normalise=False)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CompletionTeacher:
    """Features of the true pictures of cameras that count as failed, without a graph, and of which cameras there are any."""

    packed: Float[Tensor, "B C S D"]
    known: Bool[Tensor, "B C"]


def completion_losses(
    said: CompletionPredictions, teacher: CompletionTeacher | None, camera_names: tuple[str, ...], config: CompletionLossConfig
) -> dict[str, Tensor]:
    """Weighted losses of all levels by name, for one model always the same; zero where no camera failed whose true picture is known.

    `ValueError`: a weight for a camera that the rig does not have.
    """
    camera_weight = _camera_weights(camera_names, config, said.confidence)
    zero = said.last.sum() * 0  # in the graph: with many processes all parameters need a gradient everywhere
    named = dict.fromkeys(("consistency", "reconstruction", "kl", "guided", *(("belief",) if config.belief else ())), zero)
    if said.imagined is not None and said.surprise is not None:
        zero = zero + said.imagined.sum() * 0 + said.surprise.sum() * 0
        named |= dict.fromkeys(("imagined", "surprise"), zero)
    if teacher is None:
        return {f"completion.{name}": value for name, value in named.items()}
    camera = said.cameras.camera
    index = camera[..., None, None].expand(-1, -1, *teacher.packed.shape[2:])
    truth = teacher.packed.gather(1, index).to(said.confidence.dtype)
    weight = camera_weight[camera] * (said.cameras.failed & teacher.known.gather(1, camera))
    named["consistency"] = config.consistency * _errors(said.last, truth, weight, said.level_hw, normalise=config.normalise).mean()
    if config.belief:
        right = explained_pixels(said.last.detach(), truth, weight, said.level_hw)
        distance = (said.confidence - right).square().split(_pixels(said.level_hw), dim=2)
        named["belief"] = config.belief * torch.stack([_row_mean(level.mean(-1), weight) for level in distance]).mean()
    if said.reconstructed is not None and said.source is not None and said.mean is not None and said.log_variance is not None:
        target = said.source.detach() if config.own_target else truth
        errors = _errors(said.reconstructed, target, weight, said.level_hw, normalise=config.normalise)
        named["reconstruction"] = config.reconstruction * errors.sum()
        divergence = 0.5 * (said.mean.square() + said.log_variance.exp() - 1 - said.log_variance).mean(-1)
        sums = [_row_mean(level.mean(-1), weight) for level in divergence.split(_pixels(said.level_hw), dim=2)]
        named["kl"] = config.kl * torch.stack(sums).sum()
    if said.guided is not None and said.importance is not None:
        distance = F.smooth_l1_loss(said.guided, truth, reduction="none").mean(-1) * (1 + FINE_WEIGHT * said.importance)
        means = [_row_mean(level.mean(-1), weight) for level in distance.split(_pixels(said.level_hw), dim=2)]
        named["guided"] = config.guided * torch.stack(means).mean().log1p()
    if said.imagined is not None and said.surprise is not None:
        levels = teacher.packed.to(said.imagined.dtype).split(_pixels(said.level_hw), dim=2)
        gap = said.imagined - torch.cat([level.mean(2) for level in levels], dim=-1)
        named["imagined"] = config.imagined * _row_mean(gap.square().mean(-1), camera_weight * teacher.known)
        named["surprise"] = config.surprise * said.surprise.mean()
    return {f"completion.{name}": zero + value for name, value in named.items()}


def unexplained_share(
    said: Float[Tensor, "B M S D"], truth: Float[Tensor, "B M S D"], weight: Float[Tensor, "B M"], level_hw: tuple[int, ...]
) -> Float[Tensor, "L"]:
    """1 - R^2 of every level, channels weighted alike: 0 is exact, 1 no better than each channel's mean feature.

    `weight` says how much a row counts, 0 not at all; without any row 0.
    """
    shares = []
    for ours, theirs in zip(said.split(_pixels(level_hw), dim=2), truth.split(_pixels(level_hw), dim=2), strict=True):
        error = torch.einsum("bmsd,bm->d", (ours - theirs).square(), weight) / _count(weight, ours)
        shares.append((error / _variance(theirs, weight)).mean())
    return torch.stack(shares)


def explained_pixels(
    said: Float[Tensor, "B M S D"], truth: Float[Tensor, "B M S D"], weight: Float[Tensor, "B M"], level_hw: tuple[int, ...]
) -> Float[Tensor, "B M S"]:
    """Of every pixel, 1 - squared error over the variance of its level, mean over channels, at least 0."""
    levels = zip(said.split(_pixels(level_hw), dim=2), truth.split(_pixels(level_hw), dim=2), strict=True)
    wrong = [((ours - theirs).square() / _variance(theirs, weight)).mean(-1) for ours, theirs in levels]
    return (1 - torch.cat(wrong, dim=2)).clamp(min=0)


def _count(weight: Tensor, like: Tensor) -> Tensor:
    return weight.sum().clamp(min=torch.finfo(weight.dtype).tiny) * like.shape[2]


def _variance(level: Float[Tensor, "B M HW D"], weight: Float[Tensor, "B M"]) -> Float[Tensor, "D"]:
    count = _count(weight, level)
    mean = torch.einsum("bmsd,bm->d", level, weight) / count
    return (torch.einsum("bmsd,bm->d", (level - mean).square(), weight) / count).clamp(min=MIN_VARIANCE)


def _errors(said: Tensor, truth: Tensor, weight: Tensor, level_hw: tuple[int, ...], *, normalise: bool) -> Float[Tensor, "L"]:
    """Of every level."""
    if normalise:
        return unexplained_share(said, truth, weight, level_hw)
    errors = (said - truth).square().mean(-1).split(_pixels(level_hw), dim=2)
    return torch.stack([_row_mean(level.mean(-1), weight) for level in errors])


def _row_mean(rows: Float[Tensor, "B M"], weight: Float[Tensor, "B M"]) -> Tensor:
    return (rows * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def _pixels(level_hw: tuple[int, ...]) -> list[int]:
    return [height * width for height, width in zip(level_hw[::2], level_hw[1::2], strict=True)]


def _camera_weights(names: tuple[str, ...], config: CompletionLossConfig, like: Tensor) -> Float[Tensor, "C"]:
    table = dict(config.camera_weights)
    if strange := sorted(table.keys() - set(names)):
        raise ValueError(f"CompletionLossConfig.camera_weights: expected names among {names}, got {strange}; rename them")
    weights = torch.tensor([table.get(name, 1.0) for name in names], dtype=like.dtype, device=like.device)
    return weights / weights.mean()
