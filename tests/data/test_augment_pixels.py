"""Pictures go where the calibration says, however they were decoded, and damaged ones are refused by name."""

import cv2
import numpy as np
import pytest
import torch
from prepared_samples import write_picture

from sparsedrive.data.augment import Augmentation
from sparsedrive.data.pixels import black, colour_and_normalise, read_picture, reduction, warp
from sparsedrive.data.preprocess import ImagePreprocess

FINAL_WH_PX = (352, 128)
AUGMENTATIONS = {
    "none": Augmentation(),
    "small": Augmentation(zoom=0.8),
    "zoom": Augmentation(zoom=1.2, shift=0.3, bottom_cut=0.05),
    "flip": Augmentation(flip=True),
    "rotate": Augmentation(rotate_rad=np.radians(5.4)),
    "all": Augmentation(zoom=1.1, shift=0.9, bottom_cut=0.02, flip=True, rotate_rad=-0.07),
}


def dot(wh_px: tuple[int, int], at_px: np.ndarray, radius_px: float = 8.0) -> np.ndarray:
    """A bright, smooth dot on black; (0, 0) is the corner of the picture, so pixel i has its middle at i + 0.5."""
    y, x = np.mgrid[: wh_px[1], : wh_px[0]] + 0.5
    grey = 255 * np.exp(-((x - at_px[0]) ** 2 + (y - at_px[1]) ** 2) / (2 * radius_px**2))
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, -1)


def middle_px(picture: np.ndarray) -> np.ndarray:
    weight = np.maximum(picture.astype(float).sum(-1) - 30, 0)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("reduced", [True, False], ids=["reduced", "full"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("wh_px", [(800, 450), (1003, 597), (1601, 899)])
def test_pixels_land_where_points_do(tmp_path, wh_px, name, reduced):
    augmentation = AUGMENTATIONS[name]
    network_T_image = augmentation.network_T_image(wh_px, FINAL_WH_PX)
    factor = reduction(augmentation.scale(wh_px, FINAL_WH_PX))
    for place in ((0.3, 0.6), (0.7, 0.7)):
        at_px = np.array(place) * wh_px
        path = tmp_path / "dot.jpg"
        write_picture(path, dot(wh_px, at_px, radius_px=3 / augmentation.scale(wh_px, FINAL_WH_PX)))
        warped = warp(read_picture(path, wh_px, factor, reduced=reduced), factor, network_T_image, FINAL_WH_PX)
        expected = (network_T_image @ [*at_px, 1, 1])[:2]
        assert np.abs(middle_px(warped) - expected).max() < 0.1, (place, factor)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_shrinking_in_the_decoder_is_shrinking(tmp_path, factor, suffix):
    """Against block means, on a smooth picture whose size no factor divides."""
    rng = np.random.default_rng(0)
    bgr = cv2.resize(rng.integers(0, 256, (9, 16, 3)).astype(np.uint8), (1003, 597), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, bgr)
    shrunk, averaged = (read_picture(path, (1003, 597), factor, reduced=reduced) for reduced in (True, False))
    assert shrunk.shape == averaged.shape == (-(-597 // factor), -(-1003 // factor), 3)
    assert np.abs(shrunk.astype(int) - averaged).mean() < 1


@pytest.mark.parametrize(
    ("scale", "factor"), [(1.3, 1), (1.0, 1), (0.51, 1), (0.5, 2), (0.44, 2), (0.25, 4), (0.2, 4), (0.125, 8), (0.01, 8)]
)
def test_no_decoding_below_the_wanted_size(scale, factor):
    assert reduction(scale) == factor


@pytest.mark.parametrize("scale", [0.3, 0.44, 0.55, 0.7])
@pytest.mark.parametrize("reduced", [True, False], ids=["reduced", "full"])
def test_fine_stripes_become_grey_instead_of_moire(tmp_path, scale, reduced):
    wh_px, path = (800, 450), tmp_path / "stripes.jpg"
    final = (round(wh_px[0] * scale), round(wh_px[1] * scale))
    stripes = np.zeros((450, 800, 3), np.uint8)
    stripes[:, ::2] = 255  # period 2 px: cannot be shown in a smaller picture
    write_picture(path, stripes)
    matrix, factor = Augmentation().network_T_image(wh_px, final), reduction(scale)
    warped = warp(read_picture(path, wh_px, factor, reduced=reduced), factor, matrix, final)
    direct = cv2.warpAffine(stripes, matrix[:2, [0, 1, 3]], final)
    assert warped[5:-5, 5:-5].std() < 0.8 * direct[5:-5, 5:-5].std()


def test_training_pixels_are_close_to_those_of_evaluation(tmp_path):
    rng = np.random.default_rng(0)
    bgr = cv2.resize(rng.integers(0, 256, (45, 80, 3)).astype(np.uint8), (800, 450), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "picture.jpg"
    write_picture(path, bgr)
    preprocess = ImagePreprocess(final_wh_px=FINAL_WH_PX)
    expected = preprocess(cv2.cvtColor(read_picture(path, (800, 450)), cv2.COLOR_BGR2RGB)).numpy()
    matrix = Augmentation().network_T_image((800, 450), FINAL_WH_PX)
    ours = np.empty_like(expected)
    warped = warp(read_picture(path, (800, 450), 2), 2, matrix, FINAL_WH_PX)
    colour_and_normalise(warped, None, preprocess.mean_rgb, preprocess.std_rgb, out=ours)
    grey_levels = np.abs(ours - expected) * np.array(preprocess.std_rgb)[:, None, None]
    assert grey_levels.mean() < 2.5


def test_one_matrix_colours_and_normalises():
    rng = np.random.default_rng(0)
    bgr, colour = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8), rng.normal(size=(3, 4))
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    out = np.empty((3, 4, 5), np.float32)
    colour_and_normalise(bgr, colour, mean, std, out=out)
    rgb = bgr[..., ::-1].astype(float)
    expected = (rgb @ colour[:, :3].T + colour[:, 3] - mean) / std
    np.testing.assert_allclose(out, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-4)


def test_a_missing_picture_is_black():
    preprocess = ImagePreprocess(final_wh_px=(8, 4))
    expected = preprocess(np.zeros((4, 8, 3), np.uint8))
    assert torch.equal(torch.from_numpy(black(preprocess.mean_rgb, preprocess.std_rgb)).expand(3, 4, 8), expected)


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """As cameras write it: a whole small JPEG in a segment of the header."""
    return jpeg[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + jpeg[2:]


@pytest.mark.parametrize("thumbnail", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_jpeg_cut_short_is_named(tmp_path, kept, factor, thumbnail):
    path = tmp_path / "cut.jpg"
    write_picture(path, dot((160, 90), np.array([80, 45])))
    small = path.read_bytes()
    write_picture(path, dot((320, 180), np.array([80, 45])))
    content = with_thumbnail(path.read_bytes(), small) if thumbnail else path.read_bytes()
    path.write_bytes(content)
    assert read_picture(path, (320, 180), factor).any()
    begin = len(small) if thumbnail else 0
    path.write_bytes(content[: begin + int((len(content) - begin) * kept)])
    with pytest.raises(ValueError, match=r"cut\.jpg: .*cut short"):
        read_picture(path, (320, 180), factor)


@pytest.mark.parametrize(("content", "message"), [(b"", "not a picture"), (b"no picture", "not a picture"), (None, "cannot be read")])
def test_what_is_no_picture_is_named(tmp_path, content, message):
    path = tmp_path / "odd.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"odd\.jpg: {message}"):
        read_picture(path, (320, 180))


@pytest.mark.parametrize("factor", [1, 2])
def test_a_picture_of_another_size_is_refused(tmp_path, factor):
    path = tmp_path / "other.jpg"
    write_picture(path, np.zeros((180, 320, 3), np.uint8))
    with pytest.raises(ValueError, match=r"other\.jpg: expected a picture of 640 x 360 pixels"):
        read_picture(path, (640, 360), factor)
