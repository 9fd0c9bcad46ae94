"""Where there is no GPU, Triton's kernels run in its interpreter. It decides when it is imported, so this comes before every test."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
