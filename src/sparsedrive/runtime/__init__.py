"""Running models: streams, results on disk, machine report."""

from sparsedrive.runtime.session import StreamingSession

__all__ = ["StreamingSession"]
