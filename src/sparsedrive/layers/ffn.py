"""Feed-forward block."""

from jaxtyping import Float
from torch import Tensor, nn


class AsymmetricFFN(nn.Module):
    """LayerNorm, then Linear-ReLU-Linear plus a linear short cut, both on the normalised input.

    Source: Sparse4D v2 (arXiv:2305.14018); the short cut is a Linear also where input and output width agree, as published.
    `plain` is the usual block of Sparse4D v1: no norm, and the input itself is the short cut.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, dropout: float = 0.0, *, plain: bool = False):
        super().__init__()
        self.norm = nn.Identity() if plain else nn.LayerNorm(input_dim)
        self.expand = nn.Linear(input_dim, hidden_dim)
        self.reduce = nn.Linear(hidden_dim, output_dim)
        self.shortcut = nn.Identity() if plain else nn.Linear(input_dim, output_dim)
        self.activation = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.expand, self.reduce, self.shortcut):
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
        """Same leading shape, output width."""
        x = self.norm(x)
        hidden = self.dropout(self.activation(self.expand(x)))
        return self.shortcut(x) + self.dropout(self.reduce(hidden))
