"""What depends on the global random numbers without using them up, so that nothing else looks different."""

import torch


def astray() -> float:
    return float(torch.initial_seed() % 97)
