import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sparsedrive.layers.attention import Attention, FeatureEmbedFusion
from sparsedrive.ops.published_order import published_order

DIM, HEADS = 16, 4


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(dim: int = DIM, dropout: float = 0.0) -> Attention:
    torch.manual_seed(0)
    module = Attention(dim, HEADS, dropout)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


def fusion(decoupled: bool) -> FeatureEmbedFusion:
    torch.manual_seed(1)
    return FeatureEmbedFusion(DIM, decoupled).eval()


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=rng(seed))


def test_equals_multihead_attention_of_torch():
    ours, theirs = attention(), nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())  # the same parameter layout too
    query, key, value = tokens(2, 5, seed=1), tokens(2, 7, seed=2), tokens(2, 7, seed=3)
    assert_close(ours(query, key, value), theirs(query, key, value)[0])
    allowed = torch.rand(2, 7, generator=rng(4)) > 0.4
    assert allowed.any(1).all() and not allowed.all()
    assert_close(ours(query, key, value, allowed), theirs(query, key, value, key_padding_mask=~allowed)[0])


def test_keys_not_allowed_have_no_influence():
    ours, query, key = attention(), tokens(2, 5, seed=1), tokens(2, 7, seed=2)
    allowed = torch.arange(7).expand(2, 7) < 3
    changed = key.masked_fill(~allowed[..., None], 1e4)
    assert torch.equal(ours(query, key, key, allowed), ours(query, changed, changed, allowed))
    assert_close(ours(query, key, key, allowed), ours(query, key[:, :3], key[:, :3]))


def test_queries_may_differ_in_what_they_see():
    ours, theirs = attention(), nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, key = tokens(2, 5, seed=1), tokens(2, 7, seed=2)
    allowed = torch.rand(2, 5, 7, generator=rng(4)) > 0.5
    assert allowed.any(-1).all() and not (allowed == allowed[:, :1]).all()
    assert_close(ours(query, key, key, allowed), theirs(query, key, key, attn_mask=~allowed.repeat_interleave(HEADS, 0))[0])
    with published_order():
        assert_close(ours(query, key, key, allowed), theirs(query, key, key, attn_mask=~allowed.repeat_interleave(HEADS, 0))[0])


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_published_order_changes_rounding_only(queries, masked):
    ours, query, key = attention(), tokens(2, queries, seed=1), tokens(2, 7, seed=2)
    allowed = torch.arange(7).expand(2, 7) < torch.tensor([[2], [7]]) if masked else None
    fast = ours(query, key, key, allowed)
    with published_order():
        assert_close(ours(query, key, key, allowed), fast)


def test_dropout_acts_in_training_only():
    ours, query = attention(dropout=0.5), tokens(2, 5)
    assert torch.equal(ours(query, query, query), ours(query, query, query))
    ours.train()
    assert not torch.equal(ours(query, query, query), ours(query, query, query))


def test_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="multiple of num_heads=5, got 16"):
        Attention(16, 5)


def spelled_out(fuse, attend, feature, embed, other_feature, other_embed):
    """Sparse4D v3: [feature, embed] tokens, values up, residual on the tokens, everything down again."""
    query, key = torch.cat([feature, embed], -1), torch.cat([other_feature, other_embed], -1)
    mixed = attend(query, key, other_feature @ fuse.fc_before.weight.T)
    return (query + mixed) @ fuse.fc_after.weight.T


def test_decoupled_attention():
    fuse, attend = fusion(decoupled=True), attention(2 * DIM)
    inputs = [tokens(2, 5, seed=1), tokens(2, 5, seed=2), tokens(2, 7, seed=3), tokens(2, 7, seed=4)]
    assert_close(fuse.attend(attend, *inputs), spelled_out(fuse, attend, *inputs))


def test_added_embedding_attention():
    fuse, attend = fusion(decoupled=False), attention()
    assert not list(fuse.parameters())
    feature, embed, other, other_embed = tokens(2, 5, seed=1), tokens(2, 5, seed=2), tokens(2, 7, seed=3), tokens(2, 7, seed=4)
    expected = feature + attend(feature + embed, other + other_embed, other)
    assert_close(fuse.attend(attend, feature, embed, other, other_embed), expected)


@pytest.mark.parametrize("decoupled", [False, True])
def test_memory_attention_is_per_stream_memory_or_self(decoupled):
    fuse, attend = fusion(decoupled), attention(2 * DIM if decoupled else DIM)
    feature, embed, memory, memory_embed = tokens(2, 5, seed=1), tokens(2, 5, seed=2), tokens(2, 3, seed=3), tokens(2, 3, seed=4)
    attends = torch.tensor([True, False])
    both = fuse.attend_memory(attend, feature, embed, memory, memory_embed, attends)
    assert_close(both[:1], fuse.attend(attend, feature[:1], embed[:1], memory[:1], memory_embed[:1]))
    query = fuse.tokens(feature, embed)[1:]
    own_value = query if decoupled else feature[1:]
    assert_close(both[1:], fuse.fc_after(own_value + attend(query, query, own_value)))
    # what a stream must not see is not seen, whatever it is
    poisoned = memory.clone()
    poisoned[1] = math.nan
    again = fuse.attend_memory(attend, feature, embed, poisoned, memory_embed, attends)
    assert torch.equal(again, both)


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_decoder_without_memory_attends_to_itself(decoupled):
    fuse, attend = fusion(decoupled), attention(2 * DIM if decoupled else DIM)
    feature, embed, none = tokens(2, 5, seed=1), tokens(2, 5, seed=2), tokens(2, 0)
    cold = torch.tensor([False, False])
    expected = fuse.attend_memory(attend, feature, embed, tokens(2, 3), tokens(2, 3), cold)
    assert_close(fuse.attend_memory(attend, feature, embed, none, none, cold), expected)
    warm = torch.tensor([True, True])  # nothing to look at: the same
    assert_close(fuse.attend_memory(attend, feature, embed, none, none, warm), expected)
