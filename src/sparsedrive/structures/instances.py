"""Instances: what a decoder refines and hands on."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.structures._structure import structure
from sparsedrive.structures.completion_memory import CompletionPredictions
from sparsedrive.structures.denoising import DenoisingTargets

CENTERNESS = 0  # column of DecoderStep.quality


@structure
class DecoderStep:
    """Prediction of one decoder layer. S = 11 for boxes (`geometry.box_state`), 2 * points for polylines.

    `quality` (boxes only): logits of centerness and yawness.
    """

    class_logits: Float[Tensor, "B N K"]
    state: Float[Tensor, "B N S"]
    quality: Float[Tensor, "B N 2"] | None

    @property
    def confidence(self) -> Float[Tensor, "B N"]:
        """What decoded boxes are ranked by: the score of the best class, times the centerness where there is one."""
        score = self.class_logits.amax(-1).sigmoid()
        return score if self.quality is None else score * self.quality[..., CENTERNESS].sigmoid()


@structure
class DenoisingPredictions:
    """All layers' answers to denoising queries, and what each layer should have answered."""

    steps: list[DecoderStep]
    targets: list[DenoisingTargets]


@structure
class InstancePredictions:
    """All layers of one decoder, and the instances after the last one. `track_id` counts per stream. `denoising`: where asked for.

    `true_fit` (Sparse4D v1, where true boxes were given): how well depth fits at P points of each of them, 0 to about 1.
    """

    steps: list[DecoderStep]
    feature: Float[Tensor, "B N D"]
    embed: Float[Tensor, "B N D"]
    track_id: Int[Tensor, "B N"]
    denoising: DenoisingPredictions | None = None
    true_fit: Float[Tensor, "B M P"] | None = None

    @property
    def last(self) -> DecoderStep:
        """The final layer's prediction."""
        return self.steps[-1]


@structure
class MotionPredictions:
    """Agent forecasts for the detection instances: `modes` futures of `T` steps, as offsets from step to step.

    `history_state` are up to H past states of the instance in the current ego frame, oldest first; the last `period` are real.
    """

    mode_logits: Float[Tensor, "B N M"]
    step_offsets_m: Float[Tensor, "B N M T 2"]
    history_state: Float[Tensor, "B N H 11"]
    period: Int[Tensor, "B N"]


@structure
class PlanPredictions:
    """Ego futures: M modes for each of the 3 commands, as offsets from step to step, and the predicted ego status."""

    mode_logits: Float[Tensor, "B 3 M"]
    step_offsets_m: Float[Tensor, "B 3 M T 2"]
    ego_status: Float[Tensor, "B 10"]
    history_state: Float[Tensor, "B H 11"]
    period: Int[Tensor, "B"]


FOCAL_UNIT_PX = 100.0
"""`ObjectMap` gives depths as a camera of this focal length would see them."""


@structure
class ObjectMap:
    """What every pixel of one pyramid level shows: class, and where the object is.

    `geometry`: from the pixel to the projected centre in pixels of the level (right, down); log of the depth a camera of 100 px focal
    length would see it at; logs of length, width, height; sine and cosine of its yaw against the direction from the ego origin to it.
    `shown`: pixels that a camera delivered, or that were completed and are rather believed than not; the others mean nothing.
    """

    class_logits: Float[Tensor, "B C H W K"]
    geometry: Float[Tensor, "B C H W 8"]
    shown: Bool[Tensor, "B C H W"]
    level: int


@structure
class Predictions:
    """Everything a SparseDrive step predicts, undecoded: what losses and decoders read. Absent stages are `None`.

    `completion` is there only where a camera failed.
    """

    detection: InstancePredictions
    map: InstancePredictions | None
    motion: MotionPredictions | None
    plan: PlanPredictions | None
    depth_m: list[Float[Tensor, "BC 1 H W"]] | None
    completion: CompletionPredictions | None = None
    objects: list[ObjectMap] | None = None
