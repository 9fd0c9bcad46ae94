"""What happens to denoising queries around a decoder, as pure functions: who sees whom, follow into the next frame, remember."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.models.memory_ops import Tick, Transform
from sparsedrive.structures import DenoisingConfig, DenoisingMemory, DenoisingQueries, DenoisingTargets, ParityOptions, take_rows


def check(queries: DenoisingQueries, config: DenoisingConfig | None) -> DenoisingConfig:
    """The configuration the queries were made for; `ValueError` where they do not fit it."""
    if config is None:
        raise ValueError("denoising: expected None as DecoderConfig.denoising is None; set it to a DenoisingConfig, or give no queries")
    group_size, rest = divmod(queries.state.shape[1], config.num_groups)
    if rest or not 0 < group_size <= config.max_group_size or queries.propagated.shape[1] != config.num_temporal_groups:
        raise ValueError(
            f"denoising: expected {config.num_groups} equal groups of at most {config.max_group_size} queries of which "
            f"{config.num_temporal_groups} live on, got {queries.state.shape[1]} queries of which {queries.propagated.shape[1]} groups "
            "live on; make them with the decoder's own DenoisingConfig"
        )
    return config


def visible(valid: Bool[Tensor, "B Q"], num_groups: int, parity: ParityOptions) -> Bool[Tensor, "B Q Q"]:
    """Which queries each query may attend to: its own group without padding (and itself, so that no row is empty)."""
    group = torch.arange(valid.shape[1], device=valid.device) // (valid.shape[1] // num_groups)
    same_group = group[:, None] == group[None]
    if parity.padded_denoising_attention:
        return same_group.expand(len(valid), -1, -1)
    itself = torch.eye(len(group), dtype=torch.bool, device=valid.device)
    return same_group & valid[:, None] | itself


def follow(
    own: DenoisingTargets, instance: Int[Tensor, "B T R"], valid: Bool[Tensor, "B T R"], num_groups: int
) -> tuple[Float[Tensor, "B T R 10"], Int[Tensor, "B T R"]]:
    """Boxes and labels of this frame's objects for queries made for `instance` in an earlier one; label -1 where the object has gone."""
    num_temporal = instance.shape[1]
    own_instance, box, label = (rows.unflatten(1, (num_groups, -1))[:, :num_temporal] for rows in (own.instance, own.box, own.label))
    same = (instance[..., None] == own_instance[:, :, None]) & (instance >= 0)[..., None]
    found, row = same.any(-1) & valid, same.int().argmax(-1)
    return box.gather(2, row[..., None].expand(*row.shape, box.shape[-1])), torch.where(found, label.gather(2, row), -1)


def merge(
    feature: Float[Tensor, "B Q D"],
    state: Float[Tensor, "B Q S"],
    own: DenoisingTargets,
    memory: DenoisingMemory,
    now: Tick,
    transform: Transform,
    num_groups: int,
) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q S"], DenoisingTargets]:
    """The first T groups give way to those of the last frame, moved to now, where a stream has any; their targets follow the instances.

    Groups keep this frame's size: what a fuller frame had more is cut off, negatives first.
    """
    group_size = state.shape[1] // num_groups
    replaces = now.warm & memory.valid.flatten(1).any(1)
    moved = transform(memory.state.flatten(1, 2), now.now_T_then, now.elapsed_s).reshape(memory.state.shape)
    instance, valid = memory.instance[:, :, :group_size], memory.valid[:, :, :group_size]
    box, label = follow(own, instance, valid, num_groups)

    def replaced(rows: Tensor, past: Tensor) -> Tensor:
        grouped = rows.unflatten(1, (num_groups, -1))
        first = torch.where(replaces.reshape(-1, *[1] * (past.dim() - 1)), past[:, :, :group_size], grouped[:, : past.shape[1]])
        return torch.cat([first, grouped[:, past.shape[1] :]], dim=1).flatten(1, 2)

    targets = DenoisingTargets(
        box=replaced(own.box, box),
        label=replaced(own.label, label),
        instance=replaced(own.instance, instance),
        valid=replaced(own.valid, valid),
    )
    return replaced(feature, memory.feature), replaced(state, moved), targets


def remember(
    feature: Float[Tensor, "B Q D"],
    state: Float[Tensor, "B Q S"],
    targets: DenoisingTargets,
    propagated: Int[Tensor, "B T"],
    config: DenoisingConfig,
) -> DenoisingMemory:
    """The groups that live on, detached from the graph and padded to the full group size."""

    def kept(rows: Tensor) -> Tensor:
        grouped = take_rows(rows.detach().unflatten(1, (config.num_groups, -1)), propagated)
        padding = [0, 0] * (grouped.dim() - 3) + [0, config.max_group_size - grouped.shape[2]]
        return F.pad(grouped, padding)

    return DenoisingMemory(feature=kept(feature), state=kept(state), instance=kept(targets.instance), valid=kept(targets.valid))


def initial(
    batch_size: int, config: DenoisingConfig, dim: int, state_dim: int, dtype: torch.dtype, device: torch.device | str
) -> DenoisingMemory:
    """Memory of streams that have seen nothing."""
    shape = (batch_size, config.num_temporal_groups, config.max_group_size)
    return DenoisingMemory(
        feature=torch.zeros(*shape, dim, dtype=dtype, device=device),
        state=torch.zeros(*shape, state_dim, dtype=dtype, device=device),
        instance=torch.zeros(shape, dtype=torch.int64, device=device),
        valid=torch.zeros(shape, dtype=torch.bool, device=device),
    )
