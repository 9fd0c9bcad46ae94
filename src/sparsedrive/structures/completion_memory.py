"""What the camera-failure cascade remembers from frame to frame, and what it says about one frame."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.structures._structure import structure


@structure
class CompletionMemory:
    """The last H pictures that each camera really delivered, as image features, oldest first, and the last predicted plan.

    Every camera has a queue of its own: one that fails keeps what it saw last. `packed` are H tensors in the layout of
    `ImageFeatures.packed`, so that a frame without failures is remembered without a copy. `image_T_last` takes ego coordinates of the
    last frame to (pixel_x * depth, pixel_y * depth, depth, 1) of the picture of then, which was `age_s` old at the last frame.
    What is not `valid` has not been seen. `plan_m` are points of the plan predicted at the last frame, in its ego frame.
    """

    packed: list[Float[Tensor, "B C S D"]]
    image_T_last: Float[Tensor, "B H C 4 4"]
    image_wh_px: Float[Tensor, "B H C 2"]
    age_s: Float[Tensor, "B H C"]
    valid: Bool[Tensor, "B H C"]
    plan_m: Float[Tensor, "B T 2"]
    plan_valid: Bool[Tensor, "B"]


@structure
class FailedCameras:
    """Which cameras of each stream are completed: M rows a stream, as many as the stream with most failures needs.

    `camera` is the index of the camera; a row that is not `failed` only fills up and is thrown away.
    """

    camera: Int[Tensor, "B M"]
    failed: Bool[Tensor, "B M"]


@structure
class CompletionPredictions:
    """What the cascade said about failed cameras, for the losses. Pixels S as in `ImageFeatures`; None for a level that is not built.

    `temporal`, `reconstructed`, `guided`: the features after levels 1, 2 and 3, the last of which (`last`) the heads saw, scaled by
    `confidence`. `mean` and `log_variance` belong to the latent of level 2, `importance` 0..1 to level 3. `source`: what level 2 got.
    `imagined` and `surprise`: mean features of all cameras, levels side by side, and divergences of the auxiliary world model.
    """

    cameras: FailedCameras
    level_hw: tuple[int, ...]
    confidence: Float[Tensor, "B M S"]
    temporal: Float[Tensor, "B M S D"] | None
    source: Float[Tensor, "B M S D"] | None
    reconstructed: Float[Tensor, "B M S D"] | None
    mean: Float[Tensor, "B M S Z"] | None
    log_variance: Float[Tensor, "B M S Z"] | None
    guided: Float[Tensor, "B M S D"] | None
    importance: Float[Tensor, "B M S"] | None
    imagined: Float[Tensor, "B C T"] | None = None
    surprise: Float[Tensor, "B"] | None = None

    @property
    def last(self) -> Float[Tensor, "B M S D"]:
        """The features after the last level, before they are scaled by `confidence`."""
        found = next((stage for stage in (self.guided, self.reconstructed, self.temporal) if stage is not None), None)
        assert found is not None, "a cascade has at least one level"
        return found
