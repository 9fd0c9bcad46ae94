"""What holds for every test."""

import torch

# Small tensors on busy cores: threads that wait for each other cost more than they bring. Golden streams run in processes of their own.
torch.set_num_threads(1)
