"""Row selection inside a batch."""

from jaxtyping import Int, Shaped
from torch import Tensor


def take_rows(rows: Shaped[Tensor, "B N *rest"], index: Int[Tensor, "B K"]) -> Shaped[Tensor, "B K *rest"]:
    """`rows[b, index[b]]` for every b."""
    shape = (*index.shape, *[1] * (rows.dim() - 2))
    return rows.gather(1, index.reshape(shape).expand(*index.shape, *rows.shape[2:]))
