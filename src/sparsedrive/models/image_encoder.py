"""Images of all cameras -> feature pyramid in the layout the sampling op reads."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.layers.grid_mask import GridMaskConfig
from sparsedrive.models.efficientnet import EfficientNetLite0Config
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.vovnet import VoVNetConfig
from sparsedrive.structures import ImageFeatures


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """Backbone, pyramid, and the training-time mask (None: no mask). `channels_last` is a memory layout: speed and the last bits."""

    backbone: ResNetConfig | EfficientNetLite0Config | VoVNetConfig = field(default_factory=ResNetConfig)
    neck: FPNConfig = field(default_factory=FPNConfig)
    grid_mask: GridMaskConfig | None = field(default_factory=GridMaskConfig)
    channels_last: bool = True

    def num_pixels(self, image_wh_px: tuple[int, int]) -> int:
        """Pixels of all levels of one camera's features; sizes of the picture are multiples of the strides of the backbone."""
        width, height = (size // (4 * 2**self.neck.start_level) for size in image_wh_px)
        total = 0
        for _ in range(self.neck.num_levels):
            total += width * height
            width, height = -(-width // 2), -(-height // 2)
        return total

    def build(self) -> "ImageEncoder":
        """An encoder with fresh weights."""
        return ImageEncoder(self)


class ImageEncoder(nn.Module):
    """Every camera goes through the same backbone and pyramid, on its own."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.grid_mask = None if config.grid_mask is None else config.grid_mask.build()
        self.backbone = config.backbone.build()
        self.channels_last = config.channels_last
        self.neck = config.neck.build(config.backbone.out_channels)

    def forward(self, images: Float[Tensor, "B C 3 H W"], available: Bool[Tensor, "B C"] | None = None) -> ImageFeatures:
        """Features of normalised images. A camera that is not `available` has zero features, whatever its picture holds.

        Pictures of failed cameras are left out of the backbone; compiled and exported programs, whose shapes are fixed, put another
        camera's in their places.

        Errors: ValueError for images or `available` of another shape.
        """
        self._check(images, available)
        batch, cameras = images.shape[:2]
        pictures = images.flatten(0, 1)
        delivered: Tensor | None = None
        if available is not None and not torch.compiler.is_compiling():
            delivered = available.flatten().nonzero()[:, 0]
            if len(delivered) == len(pictures):
                return self._encode(pictures, batch)
        if available is not None and (delivered is None or len(delivered) == 0):
            features = self._encode(_without_failed(pictures, available.flatten()), batch)
            return replace(features, packed=features.packed.masked_fill(~available[:, :, None, None], 0))
        if delivered is None:
            return self._encode(pictures, batch)
        some = self._encode(pictures[delivered], 1)
        packed = some.packed.new_zeros(batch * cameras, *some.packed.shape[2:]).index_copy(0, delivered, some.packed[0])
        return replace(some, packed=packed.unflatten(0, (batch, cameras)))

    def _encode(self, pictures: Float[Tensor, "BC 3 H W"], batch: int) -> ImageFeatures:
        if self.grid_mask is not None:
            pictures = self.grid_mask(pictures)
        # channels last is what the sampling op reads: packing is then a plain copy
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        levels = self.neck(self.backbone(pictures.contiguous(memory_format=memory_format)))
        return pack_levels([level.unflatten(0, (batch, -1)) for level in levels])

    @staticmethod
    def _check(images: Tensor, available: Tensor | None) -> None:
        if images.dim() != 5 or images.shape[2] != 3:
            raise ValueError(
                f"ImageEncoder: expected images [B, C, 3, H, W], got {list(images.shape)}; "
                "stack the cameras of a stream in dimension 1 and add the batch dimension"
            )
        if available is not None and available.shape != images.shape[:2]:
            raise ValueError(
                f"ImageEncoder: expected available {list(images.shape[:2])} for images {list(images.shape)}, "
                f"got {list(available.shape)}; give one bool for every camera of every stream"
            )


def pack_levels(levels: list[Float[Tensor, "B C D H W"]]) -> ImageFeatures:
    """Pyramid levels, finest first, as one tensor: the inverse of `ImageFeatures.level`."""
    packed = torch.cat([level.movedim(2, -1).flatten(2, 3) for level in levels], dim=2)
    return ImageFeatures(packed=packed, level_hw=tuple(size for level in levels for size in level.shape[-2:]))


def may_have_failed(available: Bool[Tensor, "B C"]) -> bool:
    """Whether a camera failed; compiled and exported programs do not ask and always take it for possible."""
    return torch.compiler.is_compiling() or not bool(available.all())


def with_confidence(images: ImageFeatures, available: Bool[Tensor, "B C"]) -> ImageFeatures:
    """Features in which failed cameras are marked as blank, so that the sampling weights of what they do not show go to the others.

    Without a failed camera `images` as they are.
    """
    if not may_have_failed(available):
        return images
    shape = images.packed.shape[:3]
    return replace(images, confidence=available[:, :, None].to(images.packed.dtype).expand(shape))


def _without_failed(pictures: Tensor, available: Tensor) -> Tensor:
    """[N, 3, H, W] with every failed picture replaced by the first available one, by zeros if there is none.

    Shapes stay fixed, and neither garbage nor a constant picture enters the batch statistics of the healthy cameras.
    """
    first = available.int().argmax()
    source = torch.where(available, torch.arange(len(pictures), device=pictures.device), first)
    return pictures[source].masked_fill(~available.any(), 0)
