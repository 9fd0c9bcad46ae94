"""TorchSparse's names for the global options, for ported code. New code says `with use_config(ConvConfig(...))` or gives layers a config.

Here every one of them acts, and none changes a value somebody else holds: each sets a new global ConvConfig.
"""

from dataclasses import replace

from sparsedrive.sparse.config import ConvConfig, DownsampleMode, KmapMode, current_config, set_global_config

__all__ = [
    "clear_global_conv_config",
    "get_conv_mode",
    "get_default_conv_config",
    "get_downsample_mode",
    "get_global_conv_config",
    "get_kmap_mode",
    "set_conv_mode",
    "set_downsample_mode",
    "set_global_conv_config",
    "set_kmap_mode",
]

SPLITS_OF_MODE = (0, 1, 3)
"""Conv mode -> parts of the kernel that output rows are sorted for; see `ConvConfig.mask_splits`."""


def set_conv_mode(mode: int) -> None:
    """Implicit GEMM over output rows as they are (0), sorted by which neighbours exist (1), or so in three parts of the kernel (2).

    Raises:
        ValueError: another mode.
    """
    if mode not in range(len(SPLITS_OF_MODE)):
        raise ValueError(f"set_conv_mode: expected 0, 1 or 2, got {mode}; choose one of these")
    set_global_config(replace(current_config(), mask_splits=SPLITS_OF_MODE[mode]))


def get_conv_mode() -> int:
    """0, 1 or 2, as `set_conv_mode` takes it."""
    splits = current_config().mask_splits
    return 2 if splits > 1 else splits


def set_kmap_mode(mode: KmapMode) -> None:
    """ "hashmap" or "hashmap_on_the_fly", see `ConvConfig.kmap_mode`."""
    set_global_config(replace(current_config(), kmap_mode=mode))


def get_kmap_mode() -> KmapMode:
    """As set."""
    return current_config().kmap_mode


def set_downsample_mode(mode: DownsampleMode) -> None:
    """ "spconv" or "minkowski", see `ConvConfig.downsample_mode`."""
    set_global_config(replace(current_config(), downsample_mode=mode))


def get_downsample_mode() -> DownsampleMode:
    """As set."""
    return current_config().downsample_mode


def get_default_conv_config() -> ConvConfig:
    """What holds where nothing was set."""
    return ConvConfig()


def get_global_conv_config() -> ConvConfig:
    """What layers without a config of their own run with."""
    return current_config()


def set_global_conv_config(config: ConvConfig) -> None:
    """Let layers without a config of their own run with this one."""
    set_global_config(config)


def clear_global_conv_config() -> None:
    """Back to the defaults."""
    set_global_config(ConvConfig())
