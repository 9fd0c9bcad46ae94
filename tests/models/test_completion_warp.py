from dataclasses import replace

import pytest
import torch
from completion_samples import (
    DIM,
    FOCAL_PX,
    HEIGHT,
    LEVEL_HW,
    WIDTH,
    blank,
    failed,
    features,
    forward_motion,
    forward_rig,
    small_cascade,
    start,
    temporal,
    tick,
)

from sparsedrive.geometry import se3
from sparsedrive.models.completion import warp
from sparsedrive.models.completion.blocks import split_levels
from sparsedrive.models.completion.config import PublishedQuirks
from sparsedrive.structures import CameraRig, ImageFeatures


def complete(cascade, history: ImageFeatures, now_T_then=None, rig: CameraRig | None = None):
    """What an untrained cascade makes of a camera that fails one frame after `history`, divided by its confidence; and the confidence."""
    rig = forward_rig() if rig is None else rig
    with torch.no_grad():
        _, memory, said = cascade(history, rig, start(cascade), tick(warm=False))
        assert said is None
        broken = failed(rig, 0)
        images, _, said = cascade(blank(features(9), broken), broken, memory, tick(now_T_then))
    return images.packed[0, 0] / images.confidence[0, 0, :, None], images.confidence[0, 0]


@pytest.mark.parametrize("depths_m", [(10.0,), (10.0, 30.0), (2.0, 5.0, 60.0)])
def test_without_motion_the_camera_s_own_history_comes_back(depths_m):
    history = features()
    found, confidence = complete(small_cascade(temporal=temporal(depths_m=depths_m)), history)
    torch.testing.assert_close(found, history.packed[0, 0], atol=1e-4, rtol=0)
    assert (confidence > 0.8).all()


def ramp() -> ImageFeatures:
    """Features that grow linearly along x in half the channels, along y in the others: bilinear samples of them are exact."""
    levels = []
    for height, width in ((8, 12), (4, 6)):
        centres = warp.pixel_centres(height, width, torch.zeros(1))
        levels.append(centres.repeat_interleave(DIM // 2, dim=1))
    return ImageFeatures(packed=torch.cat(levels)[None, None], level_hw=LEVEL_HW)


@pytest.mark.parametrize(("depth_m", "moved_m"), [(10.0, 2.0), (30.0, 5.0), (10.0, -2.0)])
def test_a_plane_at_the_hypothesis_moves_as_geometry_says(depth_m, moved_m):
    """A pixel at x from the centre shows what was at x * depth / (depth + moved) when the plane was so much farther away."""
    found, confidence = complete(small_cascade(temporal=temporal(depths_m=(depth_m,))), ramp(), forward_motion(moved_m))
    for ours, pixels, (height, width) in zip(
        split_levels(found, LEVEL_HW), split_levels(confidence[:, None], LEVEL_HW), ((8, 12), (4, 6)), strict=True
    ):
        centres = warp.pixel_centres(height, width, ours)
        expected = 0.5 + (centres - 0.5) * depth_m / (depth_m + moved_m)
        # Where the sample's neighbours all lie inside the picture of then.
        half = torch.tensor([0.5 / width, 0.5 / height])
        inside = ((expected > half) & (expected < 1 - half)).all(-1) & (pixels[:, 0] > 0.8)
        assert inside.sum() >= 0.3 * len(centres)
        torch.testing.assert_close(ours[inside], expected.repeat_interleave(DIM // 2, dim=1)[inside], atol=1e-4, rtol=0)


def test_what_is_behind_the_camera_of_then_is_not_used():
    """Driving 20 m backwards: what is 10 m ahead now was 10 m behind the car."""
    found, confidence = complete(small_cascade(temporal=temporal(depths_m=(10.0,))), features(), forward_motion(-20.0))
    assert (found == 0).all()
    assert (confidence < 0.2).all()


def test_places_are_hidden_behind_outside_and_where_nothing_was_seen():
    rig = forward_rig()
    cascade = small_cascade(temporal=temporal())
    memory = start(cascade)
    points_m = torch.tensor([[0.0, 10.0, 0.0], [0.0, -10.0, 0.0], [30.0, 10.0, 0.0], [0.0, 0.05, 0.0], [2.0, 10.0, 1.0]])[None, :, None]
    places = warp.find(points_m, warp.sources(memory, features(), rig))
    assert places.seen[0, :, 0, -1, 0].tolist() == [True, False, False, False, True]
    assert not places.seen[:, :, :, :-1].any()  # nothing remembered yet
    assert (places.points[~places.seen] == warp.HIDDEN).all()
    x, y = 0.5 + 2.0 / 10 * FOCAL_PX / WIDTH, 0.5 - 1.0 / 10 * FOCAL_PX / HEIGHT
    torch.testing.assert_close(places.points[0, 4, 0, -1, 0], torch.tensor([x, y]))
    torch.testing.assert_close(places.depth_m[0, 4, 0, -1, 0], torch.tensor(10.0))


def test_rays_are_the_inverse_of_projection():
    rig = forward_rig()
    centres = warp.pixel_centres(4, 6, rig.focal_px)
    direction, centre_m = warp.rays(rig.image_T_ego, rig.image_wh_px, centres)
    image = (centre_m[..., None, :] + 7.0 * direction) @ rig.image_T_ego[..., :3, :3].transpose(-1, -2) + rig.image_T_ego[..., None, :3, 3]
    torch.testing.assert_close(image[..., 2], torch.full_like(image[..., 2], 7.0))
    torch.testing.assert_close(image[..., :2] / 7.0, (centres * rig.image_wh_px[..., None, :]))


def test_pixel_centres():
    assert warp.pixel_centres(1, 2, torch.zeros(1)).tolist() == [[0.25, 0.5], [0.75, 0.5]]
    assert warp.pixel_centres(1, 2, torch.zeros(1), aligned_corners=True).tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_published_mean_of_coordinates_lies_on_no_plane():
    """Motion of 5 m: places for 10 m and 30 m averaged are those of no single depth hypothesis."""
    quirk = small_cascade(temporal=temporal(depths_m=(10.0, 30.0)), published=PublishedQuirks(mean_coordinates=True))
    found, _ = complete(quirk, ramp(), forward_motion(5.0))
    weights = torch.tensor([10.0, 30.0]) ** -0.5
    share = (weights / weights.sum() * torch.tensor([10 / 15, 30 / 35])).sum()
    pixel = 3 * 12 + 4
    centre = warp.pixel_centres(8, 12, found)[pixel]
    torch.testing.assert_close(found[pixel], (0.5 + (centre - 0.5) * share).repeat_interleave(DIM // 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("moved_m", [0.0, 2.0])
def test_published_pseudo_geometry_mirrors_the_past_or_does_not_find_it(moved_m):
    """A pixel at (u, v) in -1..1 is taken for the point (10, 8 u, 4.8 v) of then, so only a camera along +x finds its own past at all."""
    quirk = small_cascade(temporal=temporal(depths_m=(10.0,)), published=PublishedQuirks(pseudo_geometry=True))
    _, confidence = complete(quirk, ramp(), forward_motion(moved_m))
    assert (confidence < 0.2).all()
    sideways = se3.from_yaw(torch.zeros(1), torch.zeros(1), torch.full((1,), torch.pi / 2))
    rig = replace(forward_rig(), image_T_ego=forward_rig().image_T_ego @ sideways)
    found, confidence = complete(quirk, ramp(), forward_motion(moved_m), rig)
    pixel = 3 * 12 + 4
    u, v = (2 * warp.pixel_centres(8, 12, found)[pixel] - 1).tolist()
    place = torch.tensor([0.5 - FOCAL_PX * (8.0 * u - moved_m) / 10 / WIDTH, 0.5 - FOCAL_PX * 4.8 * v / 10 / HEIGHT])
    torch.testing.assert_close(found[pixel], place.repeat_interleave(DIM // 2), atol=1e-4, rtol=0)
    assert confidence[pixel] > 0.8


def test_published_aligned_corners_miss_by_up_to_half_a_pixel():
    history = ramp()
    quirk = small_cascade(temporal=temporal(depths_m=(10.0,)), published=PublishedQuirks(aligned_corners=True))
    found, _ = complete(quirk, history)
    assert (found - history.packed[0, 0])[3 * 12 + 1].abs().max() > 0.02


def test_an_old_picture_is_not_looked_at():
    cascade, rig = small_cascade(temporal=temporal(max_age_s=1.0)), forward_rig()
    broken = failed(rig, 0)
    with torch.no_grad():
        _, memory, _ = cascade(features(), rig, start(cascade), tick(warm=False))
        _, memory, young = cascade(blank(features(), broken), broken, memory, tick(elapsed_s=0.9))
        _, memory, old = cascade(blank(features(), broken), broken, memory, tick(elapsed_s=0.9))
    assert (young.last.abs().amax(-1) > 0).all()
    assert (old.last == 0).all()
    assert not memory.valid.any()


def test_a_failed_camera_keeps_what_it_saw_last_and_moves_it_along():
    """Two blank frames with motion: the history is that of three poses ago, and its place is worked out from all of it."""
    cascade, rig = small_cascade(temporal=temporal(depths_m=(10.0,), queue_length=1)), forward_rig()
    broken = failed(rig, 0)
    with torch.no_grad():
        _, memory, _ = cascade(ramp(), rig, start(cascade), tick(warm=False))
        _, memory, _ = cascade(blank(features(), broken), broken, memory, tick(forward_motion(1.0)))
        images, memory, _ = cascade(blank(features(), broken), broken, memory, tick(forward_motion(1.5)))
    found = images.packed[0, 0, 4 * 12 + 5] / images.confidence[0, 0, 4 * 12 + 5]
    centre = warp.pixel_centres(8, 12, found)[4 * 12 + 5]
    torch.testing.assert_close(found, (0.5 + (centre - 0.5) * 10 / 12.5).repeat_interleave(DIM // 2), atol=1e-4, rtol=0)
    assert memory.age_s.tolist() == [[[1.0]]]
    quirk = small_cascade(temporal=temporal(), published=PublishedQuirks(failed_history=True))
    with torch.no_grad():
        _, memory, _ = quirk(blank(features(), broken), broken, start(quirk), tick(warm=False))
    assert memory.valid[0, -1, 0], "as published, a blank picture counts as seen"


def test_other_groups_of_channels_may_look_elsewhere():
    """A camera that works now, at the same place, is preferred to an older picture of the camera itself, as all weights begin."""
    cascade = small_cascade(temporal=temporal(depths_m=(10.0,)))
    rig = forward_rig(2)
    broken = failed(rig, 0)
    before, after = features(1, cameras=2), features(2, cameras=2)
    with torch.no_grad():
        _, memory, _ = cascade(before, replace(rig, available=torch.tensor([[True, False]])), start(cascade, 2), tick(warm=False))
        images, _, _ = cascade(blank(after, broken), broken, memory, tick())
    share = torch.tensor([1.0, -1.0]).sigmoid()  # two places, weights e^0 and e^(-2 per s * 0.5 s)
    expected = share[0] * after.packed[0, 1] + share[1] * before.packed[0, 0]
    torch.testing.assert_close(images.packed[0, 0] / images.confidence[0, 0, :, None], expected, atol=1e-4, rtol=1e-4)
