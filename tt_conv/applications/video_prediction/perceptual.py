"""LPIPS, where its package and its weights are."""

from pathlib import Path

import torch
from torch import Tensor

from tt_conv.applications.video_prediction.metrics import Measure

_ALEXNET = "alexnet-owt-7be5be79.pth"


def lpips_distance(device: torch.device | str = "cpu") -> Measure:
    """The LPIPS distance with AlexNet, as a function of frames [B, C, H, W] from 0 to 1.

    Nothing is downloaded: AlexNet's weights must be where torchvision keeps them.

    Raises
    ------
    ImportError
        If the packages lpips and torchvision are not installed, or do not go together with PyTorch.
    FileNotFoundError
        If the weights are not there.

    References
    ----------
    R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang: The unreasonable effectiveness of deep features as a
    perceptual metric. CVPR 2018.
    """
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # torchvision of another PyTorch raises RuntimeError
        raise ImportError(
            f"LPIPS needs the packages lpips and torchvision, which cannot be imported ({error}): "
            "pip install 'tt-conv[lpips]', or leave --lpips out"
        ) from error
    weights = Path(torch.hub.get_dir(), "checkpoints", _ALEXNET)
    if not weights.exists():
        raise FileNotFoundError(
            f"LPIPS needs AlexNet's weights at {weights}: put https://download.pytorch.org/models/{_ALEXNET} there, "
            "or leave --lpips out"
        )
    network = lpips.LPIPS(net="alex", version="0.1", verbose=False).to(device).eval()

    def distance(predicted: Tensor, truth: Tensor) -> Tensor:
        frames = [(2 * part.float() - 1).expand(-1, 3, -1, -1).to(device) for part in (predicted, truth)]
        with torch.inference_mode():
            return network(*frames).reshape(len(predicted)).cpu()

    return distance
