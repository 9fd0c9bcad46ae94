import math

import torch
from torch.testing import assert_close

from sparsedrive.layers.embed import BoxEncoder, PolylineEncoder, sine_embedding


def test_box_parts_lie_side_by_side():
    torch.manual_seed(0)
    encoder, state = BoxEncoder((8, 4, 2, 6)), torch.randn(2, 3, 11)
    embed = encoder(state)
    assert embed.shape == (2, 3, 20)
    # column of the state -> the part of the embedding it may change
    parts = [(0, 8)] * 3 + [(8, 12)] * 3 + [(12, 14)] * 2 + [(14, 20)] * 3
    for column, (first, last) in enumerate(parts):
        changed = state.clone()
        changed[..., column] += 1.5
        moved = (encoder(changed) != embed).flatten(0, 1).any(0)
        assert moved[first:last].any() and not moved[:first].any() and not moved[last:].any(), column


def test_box_embedding_of_any_leading_shape():
    encoder, state = BoxEncoder((4, 4, 4, 4)), torch.randn(2, 3, 5, 11)
    assert_close(encoder(state)[1, 2, 4], encoder(state[1, 2, 4]))


def test_polyline_embedding_depends_on_every_coordinate():
    torch.manual_seed(0)
    encoder = PolylineEncoder(3, 8)
    state = torch.randn(1, 2, 6, requires_grad=True)
    encoder(state)[..., 0].sum().backward()
    assert (state.grad != 0).all()


def test_sine_embedding_by_hand():
    """dim 8: two wavelengths, 1 m and 100 m; y first, then x; sine and cosine in turn."""
    x_m, y_m = 0.3, 0.1
    expected = [f(2 * math.pi * value / wavelength) for value in (y_m, x_m) for wavelength in (1, 100) for f in (math.sin, math.cos)]
    embedding = sine_embedding(torch.tensor([[x_m, y_m]], dtype=torch.float64), 8)
    assert_close(embedding, torch.tensor([expected], dtype=torch.float64))


def test_sine_embedding_keeps_leading_shape_and_dtype():
    assert sine_embedding(torch.zeros(2, 3, 6, 2), 32).shape == (2, 3, 6, 32)
    assert sine_embedding(torch.zeros(2, dtype=torch.float64), 16).dtype == torch.float64
