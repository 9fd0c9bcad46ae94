"""Where the published code is wrong and ours is not, one switch each: off by default, on to reproduce the published numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """Quirks of the published SparseDrive code (commit ec0225d). `docs/differences.md` explains each; tests cover both settings."""

    stale_memory_attention: bool = False
    """After a scene change, decoders still attend to the instances of the old scene."""
    shared_track_ids: bool = False
    """One id counter for the whole batch, never restarted at a scene change."""
    unsorted_class_scores: bool = False
    """`Detections.class_score` keeps the order before the boxes were re-sorted by quality."""
    ego_box_row_shift: bool = False
    """The plan rescore moves the first two rows of the flattened ego boxes instead of every ego box 0.5 m forward."""
    corner_only_collisions: bool = False
    """Boxes collide in the plan rescore only if a corner of one lies in the other; crossing boxes do not."""
    backward_time_is_warm: bool = False
    """A frame up to 2 s *older* than the memory, or one of another sequence, still counts as its continuation."""
    padded_denoising_attention: bool = False
    """Denoising queries also attend to the rows that only pad their group to the fullest frame of the batch."""

    @classmethod
    def published(cls) -> "ParityOptions":
        """Everything as the published code does it."""
        return cls(**dict.fromkeys(cls.__dataclass_fields__, True))
