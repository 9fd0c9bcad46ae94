"""Image features of all cameras and levels in one tensor, the layout the sampling op reads."""

from jaxtyping import Float
from torch import Tensor

from sparsedrive.structures._structure import structure


@structure
class ImageFeatures:
    """`packed[b, c]` holds camera c's levels one after the other, each row-major over its pixels, channels last.

    `level_hw` is (H0, W0, H1, W1, ...), S = sum of H*W; the same for every camera. `confidence`: how far each pixel is to be believed, 1
    where a camera delivered it, 0 where it is blank; features are already multiplied with it. None: whoever reads decides by
    `CameraRig.available`.
    """

    packed: Float[Tensor, "B C S D"]
    level_hw: tuple[int, ...]
    confidence: Float[Tensor, "B C S"] | None = None

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels."""
        return len(self.level_hw) // 2

    def level(self, index: int) -> Float[Tensor, "B C D H W"]:
        """One level as an image, channels first (a view)."""
        return self._pixels(self.packed, index).movedim(-1, 2)

    def level_confidence(self, index: int) -> Float[Tensor, "B C H W"] | None:
        """How far each pixel of one level is to be believed, where that is known."""
        return None if self.confidence is None else self._pixels(self.confidence, index)

    def _pixels(self, packed: Tensor, index: int) -> Tensor:
        sizes = list(zip(self.level_hw[::2], self.level_hw[1::2], strict=True))
        index = range(len(sizes))[index]
        start = sum(h * w for h, w in sizes[:index])
        height, width = sizes[index]
        return packed[:, :, start : start + height * width].unflatten(2, (height, width))
