"""What a training run is: sizes, rates, and when to save. Recipes are functions over it (`recipes`)."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sparsedrive.losses.criterion import CriterionConfig


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW with a smaller rate for the image backbone; linear warm-up, then half a cosine down to `min_rate_share` of the rate."""

    rate: float = 4e-4
    backbone_rate_share: float = 0.5
    weight_decay: float = 1e-3
    warmup_steps: int = 500
    warmup_share: float = 1 / 3
    min_rate_share: float = 1e-3
    clip_norm: float = 25.0

    def __post_init__(self) -> None:
        for name in ("rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"OptimiserConfig.{name}: expected a positive number, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run of `steps` optimiser steps over `batch_size` streams in all.

    Attributes:
        batch_size: streams of all processes and accumulation parts together; what the rate is for.
        accumulation: parts in which a process works off its streams, one after the other, to need less memory.
        precision: "no" is float32; "bf16" and "fp16" compute the model in half precision.
        ema_decay: also keep a running mean of the weights and save it beside them; None for none.
        freeze: parameters whose names begin with one of these do not learn, nor do the batch statistics of such modules change.
        save_every, keep: optimiser steps between checkpoints, and how many of the last ones stay on disk.
        deterministic: refuse operations whose result may differ from run to run.
    """

    steps: int
    batch_size: int
    accumulation: int = 1
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    precision: Literal["no", "bf16", "fp16"] = "no"
    ema_decay: float | None = None
    freeze: tuple[str, ...] = ()
    save_every: int = 500
    keep: int = 3
    log_every: int = 10
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainConfig.{name}: expected at least 1, got {getattr(self, name)}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"TrainConfig.ema_decay: expected a number between 0 and 1 such as 0.999, got {self.ema_decay}")

    def settings(self) -> dict[str, Any]:
        """What decides the outcome of the run, as JSON would give it back."""
        without = ("save_every", "keep", "log_every")
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name not in without}))

    def streams_per_part(self, processes: int) -> int:
        """Streams a process works on at once; `ValueError` where the batch does not divide evenly."""
        parts = processes * self.accumulation
        if self.batch_size % parts:
            raise ValueError(
                f"TrainConfig.batch_size: expected a multiple of processes * accumulation = {processes} * {self.accumulation}, "
                f"got {self.batch_size}; change one of them"
            )
        return self.batch_size // parts
