r"""
A ConvTT layer is a causal convolution
======================================

A Conv-TT layer of order 3 sees three frames through six small factors. It equals one causal convolution with a large
dense kernel, borders included. This script shows that kernel, checks the equality, and prints how the layer would be
evaluated.
"""

# %%
# A layer with a 3x3 kernel in every projection and core. The dense kernel of the oldest frame is 9x9.
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from tt_conv import ConvTT

torch.manual_seed(0)
layer = ConvTT(in_channels=2, out_channels=4, kernel_size=3, order=3, rank=3).double()
kernel, bias = layer.to_dense()
print("dense kernel [out, in, frames, height, width]:", tuple(kernel.shape))
print(f"{sum(p.numel() for p in layer.parameters())} parameters instead of {kernel.numel() + bias.numel()}")

# %%
# An older frame passes more cores, so it is seen through a wider kernel.
figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
limit = kernel.abs().max().item()
for n, axis in enumerate(axes):
    axis.imshow(kernel[0, 0, n].detach(), cmap="coolwarm", vmin=-limit, vmax=limit)
    axis.set(title=("oldest", "middle", "newest")[n] + " frame", xticks=[], yticks=[])
figure.suptitle("Dense kernel of one pair of channels")
plt.show()

# %%
# The same outputs from one 3-D convolution over time and space, which is given two empty frames before the first.
sequence = torch.rand(1, 6, 2, 16, 16, dtype=torch.float64)
volume = F.pad(sequence.transpose(1, 2), (4, 4, 4, 4, 2, 0))
dense = F.conv3d(volume, kernel, bias).transpose(1, 2)
print(f"largest difference: {(layer(sequence) - dense).abs().max():.1e}")

# %%
# One frame at a time gives the same again.
state = None
for t in range(6):
    output, state = layer.stream(sequence[:, t], state)
print(f"largest difference in the last frame: {(output - dense[:, -1]).abs().max():.1e}")

# %%
# How the layer would be evaluated for a batch of sequences, and what else was considered.
layer.explain((8, 10, 2, 64, 64), train=True)

# %%
# At a high rank and with weights that no longer change, rebuilding the dense kernel once is cheaper.
ConvTT(in_channels=2, out_channels=16, kernel_size=3, order=3, rank=48).explain(
    (8, 10, 2, 64, 64), train=False, frozen=True
)
