"""The device that a user asks for."""

import torch


def checked_device(name: str) -> torch.device:
    """The device of that name, if this machine and this PyTorch have it; ``auto`` is a GPU where there is one.

    Raises
    ------
    ValueError
        If they do not.

    Examples
    --------
    >>> checked_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        # As Lightning chooses for a training; Apple's GPUs lack the float64 of the scores.
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device {name!r} cannot be used here ({' '.join(str(error).split())[:200]}): "
            f"there are {', '.join(there)}, and what else PyTorch was built for"
        ) from error
    return device
