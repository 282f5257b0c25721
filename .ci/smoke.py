"""What an installation without extras must do; run in a clean environment, outside the repository."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import tt_conv
from tt_conv import ConvTT, TensorizedConv, conv_einsum
from tt_conv.applications import video_prediction
from tt_conv.applications.compression import compress, save_compressed
from tt_conv.layers import ConvTTLSTM, FramePredictor

COMMAND = Path(sys.executable).with_name("tt-conv")


def command(*arguments: str) -> tuple[int, str]:
    """Exit status and all that was printed."""
    finished = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120)
    return finished.returncode, finished.stdout + finished.stderr


assert "site-packages" in tt_conv.__file__, tt_conv.__file__

# The layers, the language, compression.
assert ConvTT(3, 8, 3)(torch.zeros(1, 4, 3, 6, 6)).shape == (1, 4, 8, 6, 6)
assert ConvTTLSTM(3, 8, 3, rank=2)(torch.zeros(1, 4, 3, 6, 6))[0].shape == (1, 4, 8, 6, 6)
assert FramePredictor(1, (4,), (1,), kernel_size=3)(torch.zeros(1, 3, 1, 8, 8), future=2).shape == (1, 4, 1, 8, 8)
assert conv_einsum("bihw,oihw->bohw|hw", torch.zeros(1, 2, 5, 5), torch.zeros(3, 2, 3, 3)).shape == (1, 3, 3, 3)
for factorization in ("cp", "tucker", "tt", "svd"):
    layer = TensorizedConv.from_conv(torch.nn.Conv2d(8, 8, 3), factorization, rank=2)
    assert layer(torch.zeros(1, 8, 6, 6)).shape == (1, 8, 4, 4)
small, report = compress(torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 16, 3)), budget=0.5)
assert report.parameters_after <= report.parameters_before / 2, report
assert not {"lightning", "torchmetrics", "matplotlib", "av"} & set(sys.modules)

# Where an extra is needed, its name.
EXTRA = "pip install 'tt-conv[applications]'"


def refusal(call: Callable[[], object]) -> str:
    """Return the message of a call that needs an extra."""
    try:
        call()
    except ModuleNotFoundError as error:
        return str(error)
    raise AssertionError("this needs no extra")


assert EXTRA in refusal(lambda: save_compressed(small, "small"))
assert EXTRA in refusal(lambda: video_prediction.FramePrediction)
for arguments in (
    ("demo",),
    ("train", "--config", "moving_mnist_conv_tt_lstm_small"),
    ("evaluate", "--checkpoint", "none.ckpt"),
    ("predict", "--checkpoint", "none.ckpt", "--video", "none.mp4"),
    ("data", "inspect", "--data.kind", "own"),
):
    status, printed = command(*arguments)
    assert status == 2, (arguments, printed)
    assert EXTRA in printed, (arguments, printed)

# The command line itself.
status, printed = command("--help")
assert status == 0, printed
assert "Show how a conv-einsum is evaluated" in printed, printed
status, printed = command("explain", "ij,jk->ik", "--sizes", "2,3 3,4")
assert status == 0, printed
assert "Optimized cost:  24 MACs" in printed, printed
assert command("recipes")[0] == 0
module = [sys.executable, "-m", "tt_conv", "--version"]
assert subprocess.run(module, capture_output=True, text=True, check=True).stdout.startswith("tt-conv ")
print(f"tt-conv {tt_conv.__version__} works without extras")
