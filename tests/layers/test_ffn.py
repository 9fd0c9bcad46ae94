import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sparsedrive.layers.ffn import AsymmetricFFN


def test_short_cut_and_branch_both_see_the_normalised_input():
    torch.manual_seed(0)
    ffn = AsymmetricFFN(6, 10, 4, dropout=0.5).eval()
    x = torch.randn(2, 3, 6) * 5 + 1
    normed = F.layer_norm(x, (6,))
    expected = ffn.shortcut(normed) + ffn.reduce(ffn.expand(normed).clamp(min=0))
    assert_close(ffn(x), expected)
    assert ffn(x).shape == (2, 3, 4)


def test_the_input_is_not_changed_and_dropout_is_for_training():
    torch.manual_seed(0)
    ffn, x = AsymmetricFFN(6, 10, 6, dropout=0.5), torch.randn(2, 6)
    before = x.clone()
    assert not torch.equal(ffn.train()(x), ffn(x))
    assert torch.equal(ffn.eval()(x), ffn(x)) and torch.equal(x, before)
