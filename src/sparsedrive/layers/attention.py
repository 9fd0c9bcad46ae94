"""Multi-head attention, and how an instance's feature and anchor embedding enter it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.ops.published_order import in_published_order


class Attention(nn.Module):
    """Multi-head scaled dot product attention with a packed input projection (parameter layout of `nn.MultiheadAttention`)."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"Attention.dim: expected a multiple of num_heads={num_heads}, got {dim}; change one of them")
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        key: Float[Tensor, "B K D"],
        value: Float[Tensor, "B K D"],
        allowed: Bool[Tensor, "B K"] | Bool[Tensor, "B Q K"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """`allowed` is True for keys that may be attended to, by all queries of a stream or by each; every row needs at least one."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x, w, b in zip(inputs, weights, biases, strict=True)
        )
        if in_published_order():
            return self.out_proj(_attend_in_published_order(q, k, v, allowed).transpose(1, 2).flatten(2))
        mask = allowed if allowed is None else _for_heads(allowed)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _for_heads(allowed: Tensor) -> Tensor:
    """[B, K] or [B, Q, K] -> [B, 1, 1 or Q, K]."""
    return allowed[:, None, None] if allowed.dim() == 2 else allowed[:, None]


def _attend_in_published_order(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax attention spelled out; where all queries of a stream share their keys, over these keys alone."""
    q = q * q.shape[-1] ** -0.5
    if allowed is not None and (q.shape[2] == 1 or allowed.dim() == 3):
        scores = (q @ k.transpose(-1, -2)).masked_fill(~_for_heads(allowed), -math.inf)
        return scores.softmax(-1) @ v
    rows = []
    for b in range(q.shape[0]):
        chosen = slice(None) if allowed is None else allowed[b]
        rows.append((q[b] @ k[b][:, chosen].transpose(-1, -2)).softmax(-1) @ v[b][:, chosen])
    return torch.stack(rows)


class FeatureEmbedFusion(nn.Module):
    """How features and anchor embeddings become attention tokens, shared by all layers of a decoder.

    `decoupled` (Sparse4D v3, arXiv:2311.11722, section 3.3): side by side, twice as wide, so that their attention weights do not
    interfere; values are projected up before and results down after. Otherwise the embedding is added to queries and keys.
    """

    def __init__(self, dim: int, decoupled: bool, dropout: float = 0.0):
        super().__init__()
        self.decoupled = decoupled
        self.dropout = nn.Dropout(dropout)
        self.fc_before = nn.Linear(dim, 2 * dim, bias=False) if decoupled else nn.Identity()
        self.fc_after = nn.Linear(2 * dim, dim, bias=False) if decoupled else nn.Identity()

    def tokens(self, feature: Tensor, embed: Tensor) -> Tensor:
        """Queries or keys."""
        return torch.cat([feature, embed], dim=-1) if self.decoupled else feature + embed

    def attend(
        self,
        attention: Attention,
        feature: Tensor,
        embed: Tensor,
        other_feature: Tensor,
        other_embed: Tensor,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Instances (feature, embed) look at others; residual on the tokens, projected back to the feature width."""
        query = self.tokens(feature, embed)
        mixed = attention(query, self.tokens(other_feature, other_embed), self.fc_before(other_feature), allowed)
        return self.fc_after(self._residual(feature, query) + self.dropout(mixed))

    def attend_memory(
        self,
        attention: Attention,
        feature: Tensor,
        embed: Tensor,
        memory_feature: Tensor,
        memory_embed: Tensor,
        attends: Bool[Tensor, "B"],
        allowed: Bool[Tensor, "B N N"] | None = None,
    ) -> Tensor:
        """Streams that have a memory (`attends`) look at it; the others look at their own instances, each at those it is `allowed` to.

        A stream without memory takes its raw tokens as values, past `fc_before`: the published models were trained so.
        """
        query = self.tokens(feature, embed)
        own_value = self._residual(feature, query)
        num_memory, spare = memory_feature.shape[1], query.shape[1] - memory_feature.shape[1]
        if num_memory == 0:
            return self.fc_after(own_value + self.dropout(attention(query, query, own_value, allowed)))
        if allowed is not None:
            key = torch.cat([self.tokens(memory_feature, memory_embed), query], dim=1)
            value = torch.cat([self.fc_before(memory_feature), own_value], dim=1)
            sees_memory = attends[:, None, None].expand(-1, query.shape[1], num_memory)
            seen = torch.cat([sees_memory, ~attends[:, None, None] & allowed], dim=-1)
            return self.fc_after(own_value + self.dropout(attention(query, key, value, seen)))
        # One set of keys serves both kinds of stream: the memory, padded and masked to the number of instances, or the instances.
        attends = attends[:, None]
        key = torch.where(attends[..., None], F.pad(self.tokens(memory_feature, memory_embed), (0, 0, 0, spare)), query)
        value = torch.where(attends[..., None], F.pad(self.fc_before(memory_feature), (0, 0, 0, spare)), own_value)
        allowed = ~attends | (torch.arange(query.shape[1], device=query.device) < num_memory)
        return self.fc_after(own_value + self.dropout(attention(query, key, value, allowed)))

    def _residual(self, feature: Tensor, query: Tensor) -> Tensor:
        return query if self.decoupled else feature
