"""The decorator behind every structure."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from typing_extensions import dataclass_transform

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def structure(cls: type[T]) -> type[T]:
    """Frozen, slotted, keyword-only dataclass that is also a pytree, so `torch.compile` and `torch.export` take and return it."""
    made = dataclass(frozen=True, kw_only=True, slots=True)(cls)
    torch.export.register_dataclass(made, serialized_type_name=f"sparsedrive.{made.__name__}")
    return made
