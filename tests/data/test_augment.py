"""Augmentation of the pictures' geometry and colours: drawn by key, and told to the calibration."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsedrive.data.augment import Augmentation, AugmentConfig, ColourConfig, draw_augmentation, draw_colour
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.targets import turn_status

FINAL_WH_PX = (704, 256)
SIZES = st.sampled_from([(1600, 900), (1936, 1216), (704, 396), (640, 640)])
PARTS = {
    "zoom": st.floats(0.8, 1.4),
    "shift": st.floats(0, 1),
    "bottom_cut": st.floats(0, 0.3),
    "flip": st.booleans(),
    "rotate_rad": st.floats(-0.3, 0.3),
    "turn_rad": st.floats(-np.pi, np.pi),
}


def camera_points(wh_px: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(image_T_ego, points that it sees)."""
    rng = np.random.default_rng(seed)
    image_T_camera = np.eye(4)
    image_T_camera[:2, :3] = [[0.8 * wh_px[0], 0, 0.51 * wh_px[0]], [0, 0.8 * wh_px[0], 0.53 * wh_px[1]]]
    camera_T_ego = np.eye(4)
    camera_T_ego[:3, :3], camera_T_ego[:3, 3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]], rng.normal(0, 1, 3)
    depth_m = rng.uniform(3, 60, 50)
    return image_T_camera @ camera_T_ego, np.stack([depth_m * rng.uniform(-0.6, 0.6, 50), depth_m + 3, rng.uniform(-2, 3, 50)], 1)


def project(image_T_ego: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    homogeneous = points_m @ image_T_ego[:3, :3].T + image_T_ego[:3, 3]
    return homogeneous[:, :2] / homogeneous[:, 2:]


def move_pixels(pixels: np.ndarray, augmentation: Augmentation, wh_px: tuple[int, int]) -> np.ndarray:
    """What the augmentation says, done to points one step after the other."""
    (width, height), final = wh_px, np.array(FINAL_WH_PX, float)
    scale = augmentation.zoom * max(final[0] / width, final[1] / height)
    moved = pixels * scale
    moved[:, 0] -= augmentation.shift * max(0.0, width * scale - final[0])
    bottom = height * scale * (1 - augmentation.bottom_cut)
    moved[:, 1] += final[1] - bottom
    if augmentation.flip:
        moved[:, 0] = final[0] - moved[:, 0]
    from_middle = (moved - final / 2) @ np.array([1, 1j])
    # Counter-clockwise as seen on the screen, whose y axis points down.
    turned = from_middle * np.exp(-1j * augmentation.rotate_rad)
    return np.stack([turned.real, turned.imag], 1) + final / 2


@given(st.sampled_from([*PARTS, "all"]), st.data(), SIZES, st.integers(0, 99))
def test_calibration_moves_with_the_pixels(part, data, wh_px, seed):
    chosen = PARTS if part == "all" else {part: PARTS[part]}
    augmentation = replace(Augmentation(), **{name: data.draw(values) for name, values in chosen.items()})
    image_T_ego, points_m = camera_points(wh_px, seed)
    turned_T_ego = augmentation.turned_T_ego()
    network_T_turned = (augmentation.network_T_image(wh_px, FINAL_WH_PX) @ image_T_ego @ np.linalg.inv(turned_T_ego)).astype(np.float32)
    expected = move_pixels(project(image_T_ego, points_m), augmentation, wh_px)
    assert np.abs(project(network_T_turned.astype(np.float64), points_m @ turned_T_ego[:3, :3].T) - expected).max() < 1e-3


def test_a_turned_ego_frame_turns_the_measured_status_with_it():
    status = np.array([1.0, 0, 9.8, 0.1, 0, 0.3, 5.0, 0, 0.2, -0.4])
    assert np.allclose(turn_status(status, np.pi / 2), [0, 1.0, 9.8, 0, 0.1, 0.3, 0, 5.0, 0.2, -0.4])
    assert np.array_equal(turn_status(status, 0.0), status)


def test_the_ego_frame_is_turned_counter_clockwise():
    quarter = Augmentation(turn_rad=np.pi / 2).turned_T_ego()
    assert np.allclose(quarter @ [1, 0, 5, 1], [0, 1, 5, 1])


@pytest.mark.parametrize("wh_px", [(1600, 900), (704, 396)])
def test_no_augmentation_is_the_geometry_of_evaluation(wh_px):
    expected = ImagePreprocess(final_wh_px=FINAL_WH_PX).network_T_image(wh_px).numpy()
    np.testing.assert_allclose(Augmentation().network_T_image(wh_px, FINAL_WH_PX), expected, atol=1e-9)


def test_the_published_smallest_picture():
    """0.40 of 1600 x 900 is 640 x 360: all columns, the rows from 104 on, and a black strip of 64 columns."""
    augmentation = Augmentation(zoom=AugmentConfig().zoom[0], shift=0.7)
    matrix = augmentation.network_T_image((1600, 900), FINAL_WH_PX)
    np.testing.assert_allclose(matrix @ [1600, 900, 1, 1], [640, 256, 1, 1])
    np.testing.assert_allclose(matrix @ [0, 260, 1, 1], [0, 0, 1, 1], atol=1e-9)


def test_draws_cover_their_ranges_and_no_more():
    config = AugmentConfig(turn_deg=(-20, 20), bottom_cut=(0.0, 0.1))
    drawn = [draw_augmentation(config, 0, sequence, 0) for sequence in range(300)]
    for values, (low, high) in (
        ([a.zoom for a in drawn], config.zoom),
        ([a.shift for a in drawn], (0, 1)),
        ([a.bottom_cut for a in drawn], config.bottom_cut),
        ([np.degrees(a.rotate_rad) for a in drawn], config.rotate_deg),
        ([np.degrees(a.turn_rad) for a in drawn], config.turn_deg),
    ):
        margin = 0.05 * (high - low)
        assert low - 1e-9 <= min(values) < low + margin
        assert high - margin < max(values) <= high + 1e-9
    assert 0.4 < np.mean([a.flip for a in drawn]) < 0.6


def test_a_sequence_keeps_its_draw():
    config = AugmentConfig()
    assert len({draw_augmentation(config, 3, 7, frame) for frame in range(5)}) == 1
    assert len({draw_augmentation(replace(config, per_sequence=False), 3, 7, frame) for frame in range(5)}) == 5
    assert len({draw_augmentation(config, seed, sequence, 0) for seed in range(3) for sequence in range(3)}) == 9


def test_colours_are_drawn_for_every_picture():
    config = ColourConfig()
    drawn = np.stack([draw_colour(config, 0, 1, frame, camera) for frame in range(20) for camera in range(6)])
    again = np.stack([draw_colour(config, 0, 1, frame, camera) for frame in range(20) for camera in range(6)])
    np.testing.assert_array_equal(drawn, again)
    assert len(np.unique(drawn.reshape(len(drawn), -1), axis=0)) > 100


def test_saturation_and_hue_keep_grey():
    config = ColourConfig(brightness=0, contrast=(1, 1), hue_deg=60)
    grey = np.array([90.0, 90.0, 90.0, 1.0])
    matrices = [draw_colour(config, 0, 0, frame, 0) for frame in range(60)]
    np.testing.assert_allclose([matrix @ grey for matrix in matrices], np.full((60, 3), 90.0))
    assert max(np.abs(matrix[:, :3] - np.eye(3)).max() for matrix in matrices) > 0.4


def test_brightness_and_contrast():
    config = ColourConfig(contrast=(2, 2), saturation=(1, 1), hue_deg=0, swap_channels=False)
    matrices = np.stack([draw_colour(config, 0, 0, frame, 0) for frame in range(400)])
    factor, offset = matrices[:, 0, 0], matrices[:, 0, 3] / matrices[:, 0, 0]
    assert set(np.round(factor, 9)) == {1.0, 2.0}
    assert 0.4 < np.mean(factor == 2) < 0.6 and 0.4 < np.mean(offset == 0) < 0.6
    assert 30 < np.abs(offset).max() <= 32


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: AugmentConfig(zoom=(1.2, 1.0)), "zoom"),
        (lambda: AugmentConfig(zoom=(0.0, 1.0)), "zoom"),
        (lambda: AugmentConfig(zoom=(1.0, float("nan"))), "zoom"),
        (lambda: AugmentConfig(bottom_cut=(0.0, 1.0)), "bottom_cut"),
        (lambda: AugmentConfig(rotate_deg=(5.0, -5.0)), "rotate_deg"),
        (lambda: AugmentConfig(flip_probability=1.5), "flip_probability"),
        (lambda: ColourConfig(contrast=(-1.0, 1.0)), "contrast"),
        (lambda: ColourConfig(hue_deg=-1.0), "hue_deg"),
    ],
)
def test_impossible_ranges_are_refused(make, field):
    with pytest.raises(ValueError, match=field):
        make()
