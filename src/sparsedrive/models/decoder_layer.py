"""One layer of an instance decoder: look at the past, at each other, at the images, then refine."""

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor, nn

from sparsedrive.layers.attention import Attention, FeatureEmbedFusion
from sparsedrive.layers.deformable_aggregation import DeformableAggregation
from sparsedrive.layers.ffn import AsymmetricFFN
from sparsedrive.layers.past_aggregation import PastAggregation, Views
from sparsedrive.models.image_history import HistoryConfig
from sparsedrive.structures import CameraRig, DecoderStep, ImageFeatures


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """Sizes shared by every layer of a decoder. `decoupled_attention`: see `FeatureEmbedFusion`.

    `history` makes a layer of Sparse4D v1: past pictures are sampled too (see `PastAggregation`), what was gathered is added to the
    feature instead of put beside it, and normalised before a plain feed-forward block.
    """

    dim: int = 256
    num_heads: int = 8
    ffn_dim: int = 1024
    num_groups: int = 8
    num_levels: int = 4
    decoupled_attention: bool = True
    dropout: float = 0.1
    sampling_dropout: float = 0.15
    history: HistoryConfig | None = None

    def __post_init__(self) -> None:
        for name in ("num_heads", "num_groups"):
            if self.dim % getattr(self, name):
                raise ValueError(f"LayerConfig.{name}: expected a divisor of dim={self.dim}, got {getattr(self, name)}; change one of them")

    @property
    def attention_dim(self) -> int:
        """Width of attention tokens."""
        return 2 * self.dim if self.decoupled_attention else self.dim


class DecoderLayer(nn.Module):
    """A single-frame layer (`attends_memory=False`) or a temporal one. Between the two attentions there is no norm, as published."""

    def __init__(
        self,
        config: LayerConfig,
        key_points: nn.Module,
        num_points: int,
        refine: nn.Module,
        *,
        attends_memory: bool,
        attends_instances: bool,
    ):
        super().__init__()

        def attention() -> Attention:
            return Attention(config.attention_dim, config.num_heads, config.dropout)

        self.memory_attention = attention() if attends_memory else None
        self.instance_attention = attention() if attends_instances else None
        self.attention_norm = nn.LayerNorm(config.dim) if attends_instances else None
        sampling = (key_points, num_points, config.dim, config.num_groups, config.num_levels)
        history = config.history
        self.aggregation: DeformableAggregation
        if history is None:
            self.aggregation = DeformableAggregation(*sampling, config.sampling_dropout)
            self.ffn = AsymmetricFFN(2 * config.dim, config.ffn_dim, config.dim, config.dropout)
        else:
            self.aggregation = PastAggregation(
                *sampling, num_cameras=history.num_cameras, fuses=history.num_past > 0, output_dropout=history.output_dropout
            )
            self.aggregation_norm = nn.LayerNorm(config.dim)
            self.ffn = AsymmetricFFN(config.dim, config.ffn_dim, config.dim, config.dropout, plain=True)
        self.ffn_norm = nn.LayerNorm(config.dim)
        self.refine = refine

    def forward(
        self,
        feature: Tensor,
        state: Tensor,
        embed: Tensor,
        memory: tuple[Tensor, Tensor, Tensor] | None,
        fusion: FeatureEmbedFusion,
        images: ImageFeatures,
        rig: CameraRig,
        step_s: Tensor,
        allowed: Bool[Tensor, "B N N"] | None = None,
        views: Views | None = None,
    ) -> tuple[Tensor, DecoderStep]:
        """Instances (feature [B,N,D], state [B,N,S], embed [B,N,D]) -> (feature, prediction).

        `memory` is (feature [B,K,D], embed [B,K,D], attends [B]); single-frame layers take `None`. `allowed`: which instances each may
        attend to, all unless given. `views` take the place of `images` and `rig` where the layer looks at past pictures.
        """
        if self.memory_attention is not None:
            assert memory is not None, "a temporal layer needs the memory triple"
            feature = fusion.attend_memory(self.memory_attention, feature, embed, *memory, allowed)
        if self.instance_attention is not None and self.attention_norm is not None:
            feature = fusion.attend(self.instance_attention, feature, embed, feature, embed, allowed)
            feature = self.attention_norm(feature)
        if views is None:
            gathered = self.aggregation(feature, state, embed, images, rig)
        else:
            gathered = self.aggregation_norm(self.aggregation(feature, state, embed, views))
        feature = self.ffn_norm(self.ffn(gathered))
        return feature, self.refine(feature, state, embed, step_s)
