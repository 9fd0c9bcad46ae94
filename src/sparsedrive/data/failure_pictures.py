"""What a failed or damaged camera shows."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sparsedrive.data import pixels
from sparsedrive.data.failures import CameraFault

BLUR_WIDTH_PX = 1600
"""Width of the pictures that the sigma of a blur is given for (nuScenes); for others it is scaled with the width."""


def damaged(picture: UInt8[np.ndarray, "H W 3"], fault: CameraFault) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with what is left of it: a patch of the picture's shape in its middle, blur, or exposure. As it is for other kinds.

    Exposure is a factor on the grey levels, cut off at white, as of a sensor with a linear response.
    """
    height, width = picture.shape[:2]
    if fault.kind == "occlude":
        half_wh_px = np.array([width, height]) * np.sqrt(fault.amount) / 2
        low, high = (np.round(np.array([width, height]) / 2 + side * half_wh_px).astype(int) for side in (-1, 1))
        picture = picture.copy()
        picture[low[1] : high[1], low[0] : high[0]] = 0
    elif fault.kind == "blur":
        picture = cv2.GaussianBlur(picture, (0, 0), fault.amount * width / BLUR_WIDTH_PX, borderType=cv2.BORDER_REPLICATE)
    elif fault.kind == "expose":
        picture = np.clip(np.round(picture * np.float32(fault.amount)), 0, 255).astype(np.uint8)
    return picture


def filled(
    fault: CameraFault | None,
    rng: np.random.Generator,
    mean_rgb: tuple[float, float, float],
    std_rgb: tuple[float, float, float],
    wh_px: tuple[int, int],
) -> Float[np.ndarray, "3 #h #w"]:
    """Network input of a camera without a picture: noise, the mean colour, else black. `rng` makes the noise."""
    if fault is not None and fault.kind == "mean":
        return np.zeros((3, 1, 1), np.float32)
    if fault is not None and fault.kind == "noise":
        grey = rng.integers(0, 256, (3, wh_px[1], wh_px[0])).astype(np.float32)
        return grey / np.array(std_rgb, np.float32)[:, None, None] + pixels.black(mean_rgb, std_rgb)
    return pixels.black(mean_rgb, std_rgb)
