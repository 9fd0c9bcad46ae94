"""The whole cascade: features of failed cameras from memory, from what features are like, and from where the car is going.

Source: the three levels of Wu-didi/SparseDrive (branch v2.0-dev); `docs/completion.md` lists what is done otherwise here, and why.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.models.completion import memory as memory_of
from sparsedrive.models.completion import warp
from sparsedrive.models.completion.blocks import level_sizes
from sparsedrive.models.completion.cameras import failed_cameras, put_cameras, take_cameras
from sparsedrive.models.completion.config import CompletionConfig
from sparsedrive.models.completion.guided import Guided, PlanningGuided
from sparsedrive.models.completion.reconstruction import Reconstructed, Reconstruction
from sparsedrive.models.completion.temporal import Completed, TemporalCompletion
from sparsedrive.models.completion.world_model import WorldModel
from sparsedrive.models.memory_ops import Tick
from sparsedrive.structures import CameraRig, CompletionMemory, CompletionPredictions, FailedCameras, ImageFeatures


class CompletionCascade(nn.Module):
    """`images, memory, said = cascade(images, rig, memory, now)`. Weights only; a level that is off has none."""

    def __init__(self, config: CompletionConfig, dim: int, num_levels: int, camera_names: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        temporal, reconstruction, guided = config.temporal, config.reconstruction, config.guided
        self.temporal = None if temporal is None else TemporalCompletion(temporal, dim, camera_names, config.published)
        self.reconstruction = None if reconstruction is None else Reconstruction(reconstruction, dim, num_levels, config.published)
        self.guided = None if guided is None else PlanningGuided(guided, dim)
        self.world_model = WorldModel(dim, num_levels) if config.world_model else None

    def initial_memory(
        self, batch_size: int, num_cameras: int, num_pixels: int, dim: int, plan_steps: int, dtype: torch.dtype, device: torch.device | str
    ) -> CompletionMemory:
        """Memory of streams that have seen nothing."""
        queue_length = 0 if self.config.temporal is None else self.config.temporal.queue_length
        return memory_of.initial(batch_size, num_cameras, queue_length, num_pixels, dim, plan_steps, dtype, device)

    def forward(
        self, images: ImageFeatures, rig: CameraRig, memory: CompletionMemory, now: Tick, true_way_m: Float[Tensor, "B T 2"] | None = None
    ) -> tuple[ImageFeatures, CompletionMemory, CompletionPredictions | None]:
        """Fills in the features of cameras that are not `rig.available`; without such a camera `images` come back as they are.

        The features of the others keep their bits. `images.confidence` says how far each pixel is to be believed: 1 where a camera
        delivered, less where it was completed, 0 where nothing is known of the camera's geometry. The memory returned holds this frame.
        `true_way_m`: the true future path, for `GuidedConfig.trajectory="gt"` in training.
        """
        temporal = self.config.temporal
        memory = memory_of.advance(memory, now, temporal.max_age_s if temporal is not None else 0.0)
        # While training, all parameters need a gradient in every process, be it zero.
        cameras = failed_cameras(rig.available, at_least=1 if self.training else 0)
        if cameras is None:
            return images, memory_of.remember(memory, images, rig, rig.available, all_seen=True), None
        said = self._complete(images, rig, memory, cameras, true_way_m)
        believed = rig.available[:, :, None].to(said.confidence.dtype).expand(-1, -1, images.packed.shape[2])
        completed = ImageFeatures(
            # Where several cameras see a thing, each counts as far as it is believed.
            packed=put_cameras(images.packed, said.last * said.confidence[..., None], cameras),
            level_hw=images.level_hw,
            confidence=put_cameras(believed, said.confidence, cameras),
        )
        seen = rig.available | self.config.published.failed_history
        return completed, memory_of.remember(memory, images, rig, seen, all_seen=False), said

    def _complete(
        self, images: ImageFeatures, rig: CameraRig, memory: CompletionMemory, cameras: FailedCameras, true_way_m: Tensor | None
    ) -> CompletionPredictions:
        rows, dim = cameras.camera.shape, images.packed.shape[-1]
        direction = self._directions(images, rig, cameras)
        known = direction.isfinite().all(-1)  # a camera whose calibration is not known either cannot be completed
        rig = _with_safe_calibration(rig, cameras, known.all(-1))
        direction = torch.where(known[..., None], direction, 0.0)
        features = rig.focal_px.new_zeros(*rows, images.packed.shape[2], dim)
        confidence = features[..., 0]
        first: Completed | None = None
        second: Reconstructed | None = None
        third: Guided | None = None
        if self.temporal is not None:
            first = self.temporal(warp.sources(memory, images, rig), rig, cameras)
            features, confidence = first.features, first.confidence
        source = features
        if self.reconstruction is not None and (self.training or self._reconstructs_at_test()):
            second = self.reconstruction(features, confidence, direction, images.level_hw)
            features, confidence = second.features, second.confidence
        if self.guided is not None:
            third = self.guided(features, confidence, images, rig, cameras, *self._way(memory, true_way_m))
            features, confidence = third.features, third.confidence
        imagined, surprise = (None, None) if self.world_model is None or not self.training else self.world_model(images, rig)
        return CompletionPredictions(
            cameras=cameras,
            level_hw=images.level_hw,
            confidence=confidence.masked_fill(~known, 0),
            temporal=first and first.features,
            source=second and source,
            reconstructed=second and second.features,
            mean=second and second.mean,
            log_variance=second and second.log_variance,
            guided=third and third.features,
            importance=third and third.importance,
            imagined=imagined,
            surprise=surprise,
        )

    def _reconstructs_at_test(self) -> bool:
        return self.config.reconstruction is not None and self.config.reconstruction.use_at_test

    def _way(self, memory: CompletionMemory, true_way_m: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the car is going, and whether that is known."""
        assert self.config.guided is not None
        if self.config.guided.trajectory == "previous":
            return memory.plan_m, memory.plan_valid
        if self.config.guided.trajectory == "gt" and true_way_m is not None:
            return true_way_m, torch.ones_like(memory.plan_valid)
        return memory.plan_m, torch.zeros_like(memory.plan_valid)

    @staticmethod
    def _directions(images: ImageFeatures, rig: CameraRig, cameras: FailedCameras) -> Float[Tensor, "B M S 3"]:
        image_T_ego, wh_px = take_cameras(rig.image_T_ego, cameras), take_cameras(rig.image_wh_px, cameras)
        centres = [warp.pixel_centres(height, width, rig.focal_px) for height, width in level_sizes(images.level_hw)]
        direction, _ = warp.rays(image_T_ego, wh_px, torch.cat(centres))
        return torch.nn.functional.normalize(direction, dim=-1)


def _with_safe_calibration(rig: CameraRig, cameras: FailedCameras, known: Bool[Tensor, "B M"]) -> CameraRig:
    """The rig with any invertible calibration in place of those that are not, so that nothing infinite is computed."""
    own = take_cameras(rig.image_T_ego, cameras)
    identity = torch.eye(4, dtype=own.dtype, device=own.device)
    return replace(rig, image_T_ego=put_cameras(rig.image_T_ego, torch.where(known[..., None, None], own, identity), cameras))
