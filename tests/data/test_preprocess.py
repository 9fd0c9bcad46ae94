"""Preprocessing: sizes, pixel coordinates and values."""

import cv2
import numpy as np
import pytest
import torch

from sparsedrive.data import ImagePreprocess


def test_published_layout_of_nuscenes_pictures():
    preprocess = ImagePreprocess()
    for image_wh_px, factor in (((1600, 900), 0.44), ((800, 450), 0.88)):
        assert preprocess.resized_wh_px(image_wh_px) == (704, 396)
        assert preprocess.crop_xy_px(image_wh_px) == (0, 140)
        expected = torch.tensor([[factor, 0, 0, 0], [0, factor, -140, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
        assert torch.allclose(preprocess.network_T_image(image_wh_px), expected, rtol=0, atol=1e-12)


def test_tall_network_input_crops_the_sides():
    preprocess = ImagePreprocess(final_wh_px=(100, 200))
    assert preprocess.resized_wh_px((600, 400)) == (300, 200)
    assert preprocess.crop_xy_px((600, 400)) == (100, 0)


@pytest.mark.parametrize("image_wh_px", [(1600, 900), (800, 450), (1936, 1216), (641, 479), (300, 100)])
def test_dots_land_where_the_matrix_says(image_wh_px):
    """Bright discs, found again by their centre of mass; also for sizes that do not divide and for enlargement."""
    preprocess = ImagePreprocess()
    width, height = image_wh_px
    matrix = preprocess.network_T_image(image_wh_px)
    for u, v in ((0.25, 0.75), (0.6, 0.8), (0.8, 0.6)):
        centre = np.array([int(u * width), int(v * height)])
        picture = np.zeros((height, width, 3), np.uint8)
        cv2.circle(picture, tuple(map(int, centre)), max(2, width // 100), (255, 255, 255), -1)
        image = preprocess(picture)[0]
        mass = image - image.min()
        rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(704.0), indexing="ij")
        found = torch.stack([(mass * columns).sum(), (mass * rows).sum()]) / mass.sum() + 0.5
        expected = matrix[:2, :2] @ torch.tensor(centre + 0.5) + matrix[:2, 2]
        assert (found.double() - expected).abs().max() < 0.1


def test_values_are_normalised_rgb():
    preprocess = ImagePreprocess()
    picture = np.empty((900, 1600, 3), np.uint8)
    picture[:] = (200, 100, 50)
    image = preprocess(picture)
    assert image.shape == (3, 256, 704) and image.dtype == torch.float32
    expected = (torch.tensor([200.0, 100.0, 50.0]) - torch.tensor(preprocess.mean_rgb)) / torch.tensor(preprocess.std_rgb)
    assert torch.allclose(image, expected[:, None, None].expand_as(image), rtol=0, atol=1e-6)


def test_filter_is_antialiased():
    """One-pixel stripes, finer than the network's pixels, come out grey."""
    picture = np.zeros((900, 1600, 3), np.uint8)
    picture[:, ::2] = 255
    image = ImagePreprocess(mean_rgb=(0, 0, 0), std_rgb=(1, 1, 1))(picture)[:, 4:-4, 4:-4]
    assert image.min() > 100 and image.max() < 155


@pytest.mark.parametrize("picture", [np.zeros((9, 16), np.uint8), np.zeros((9, 16, 4), np.uint8), np.zeros((9, 16, 3), np.float32)])
def test_other_pictures_are_refused(picture):
    with pytest.raises(ValueError, match="expected an RGB picture"):
        ImagePreprocess()(picture)


def test_bad_configuration_is_refused():
    with pytest.raises(ValueError, match="final_wh_px"):
        ImagePreprocess(final_wh_px=(0, 256))
    with pytest.raises(ValueError, match="std_rgb"):
        ImagePreprocess(std_rgb=(1.0, 0.0, 1.0))
