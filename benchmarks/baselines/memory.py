"""Memory of one call."""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 1 << 20


def most_mib(run: Callable[[], object], device: str = "cpu") -> float:
    """Most memory of PyTorch's allocator that a call holds at once, its result included, beside what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept: object = run()
        torch.cuda.synchronize()
        assert kept is not None
        return (torch.cuda.max_memory_allocated() - before) / MIB
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = run()
    assert kept is not None and found.profiler is not None
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(accumulate(changes, initial=0)) / MIB
