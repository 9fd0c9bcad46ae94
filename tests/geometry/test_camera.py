import torch
from geometry_samples import generator
from torch.testing import assert_close

from sparsedrive.geometry import camera

FOCAL_PX, WIDTH_PX, HEIGHT_PX = 500.0, 800.0, 400.0


def forward_camera() -> torch.Tensor:
    """Looks along +y from the origin (x right, z up), principal point in the middle."""
    camera_T_ego = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    image_T_camera = torch.tensor([[FOCAL_PX, 0, WIDTH_PX / 2, 0], [0, FOCAL_PX, HEIGHT_PX / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    return image_T_camera @ camera_T_ego


def project_one(*point_m: float) -> list[float]:
    image_wh_px = torch.tensor([[[WIDTH_PX, HEIGHT_PX]]])
    return camera.project(torch.tensor([[[point_m]]]), forward_camera()[None, None], image_wh_px).flatten().tolist()


def test_project_by_hand():
    assert project_one(0.0, 10.0, 0.0) == [0.5, 0.5]
    assert project_one(4.0, 10.0, 1.0) == [(400 + 500 * 0.4) / 800, (200 - 500 * 0.1) / 400]
    assert project_one(-8.0, 10.0, 4.0) == [0.0, 0.0]


def test_project_is_the_matrix_product_then_division():
    draw = generator(0)
    points_m = torch.randn(2, 5, 4, 3, generator=draw, dtype=torch.float64) * 10
    image_T_ego = torch.randn(2, 3, 4, 4, generator=draw, dtype=torch.float64)
    image_wh_px = torch.rand(2, 3, 2, generator=draw, dtype=torch.float64) * 100 + 10
    homogeneous = torch.cat([points_m, torch.ones(2, 5, 4, 1, dtype=torch.float64)], -1)
    pixels = torch.einsum("bcij,bapj->bapci", image_T_ego, homogeneous)
    in_front = pixels[..., 2] > 1e-3
    assert in_front.any() and not in_front.all()
    expected = pixels[..., :2] / pixels[..., 2:3] / image_wh_px[:, None, None]
    assert_close(camera.project(points_m, image_T_ego, image_wh_px)[in_front], expected[in_front])


def test_points_behind_and_beside_the_camera_are_outside_and_finite():
    for point_m in [(4.0, -10.0, 1.0), (4.0, 0.0, 1.0), (0.01, -0.001, 0.01), (1e-3, -5.0, 0.0), (0.0, -5.0, 1e-3)]:
        x, y = project_one(*point_m)
        assert abs(x) < 1e12 and abs(y) < 1e12
        assert not (0 < x < 1 and 0 < y < 1), point_m


def test_depth_is_clamped_just_in_front_of_the_camera():
    """Closer than 1e-5 m the division is by 1e-5 m: u = fx x + cx z is what is left of it."""
    x, y = project_one(1e-6, 1e-6, 0.0)
    assert_close(x, (FOCAL_PX * 1e-6 + WIDTH_PX / 2 * 1e-6) / camera.MIN_DEPTH_M / WIDTH_PX, rtol=1e-5, atol=0)
    assert_close(y, HEIGHT_PX / 2 * 1e-6 / camera.MIN_DEPTH_M / HEIGHT_PX, rtol=1e-5, atol=0)


def test_project_has_finite_gradients_at_zero_depth():
    points_m = torch.tensor([[[[0.0, 0.0, 0.0], [1.0, -2.0, 0.0], [1.0, 5.0, 0.0]]]], requires_grad=True)
    camera.project(points_m, forward_camera()[None, None], torch.tensor([[[WIDTH_PX, HEIGHT_PX]]])).sum().backward()
    assert points_m.grad is not None and points_m.grad.isfinite().all()


def test_project_with_depth_agrees_and_keeps_the_sign():
    points_m = torch.tensor([[4.0, 10.0, 1.0], [4.0, -10.0, 1.0], [1.0, 0.0, 0.0]])
    pixels, depth_m = camera.project_with_depth(points_m, forward_camera())
    assert depth_m.tolist() == [10.0, -10.0, 0.0]
    assert pixels[0].tolist() == [600.0, 150.0]
    assert pixels[1].tolist() == [200.0, 250.0]  # mirrored through the centre, as the line through the pinhole says
    assert pixels.isfinite().all()
    image_wh_px = torch.tensor([[[WIDTH_PX, HEIGHT_PX]]])
    assert_close(
        camera.project(points_m[None, None, :1], forward_camera()[None, None], image_wh_px).flatten() * image_wh_px.flatten(), pixels[0]
    )
