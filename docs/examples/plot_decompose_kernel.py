r"""
Decomposing a trained kernel into a Conv-TT
===========================================

A dense causal convolution learns to predict the next frame of drifting, decaying waves. Its trained kernel is then
decomposed into projections and cores, for several ranks, and the error is set against the number of parameters. A
kernel that was never trained has no such structure.
"""

# %%
# The data: sums of waves that drift by less than a pixel per frame and decay.
import warnings

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from tt_conv import ConvTT, conv_tt
from tt_conv.conv_tt.fit import PoorFitWarning

torch.manual_seed(0)


def waves(batch: int, time: int, size: int = 24) -> torch.Tensor:
    grid = torch.arange(size) * 2 * torch.pi / size
    frequency = torch.randint(1, 4, (batch, 4, 2))
    drift, phase = 0.6 * torch.rand(batch, 4, 2) - 0.3, 2 * torch.pi * torch.rand(batch, 4)
    frames = []
    for t in range(time):
        angle = (
            frequency[..., 0, None, None] * (grid[:, None] - t * drift[..., 0, None, None])
            + frequency[..., 1, None, None] * (grid - t * drift[..., 1, None, None])
            + phase[..., None, None]
        )
        frames.append(0.97**t * angle.cos().sum(1, keepdim=True))
    return torch.stack(frames, dim=1)


# %%
# The model: 6 hidden channels see 2 frames through one dense kernel of 7 x 7, which is what is decomposed.
channels, steps, size = 6, 2, 7
lift = torch.nn.Conv2d(1, channels, 3, padding=1, padding_mode="circular")
dense = torch.nn.Parameter(0.001 * torch.randn(channels, channels, steps, size, size))
read = torch.nn.Conv2d(channels, 1, 1)
fresh = dense.detach().clone()
optimizer = torch.optim.AdamW([dense, *lift.parameters(), *read.parameters()], lr=4e-3, weight_decay=0.1)
for _ in range(200):
    sequence = waves(8, steps + 1)
    hidden = torch.tanh(lift(sequence[:, :steps].flatten(0, 1))).unflatten(0, (8, steps))
    window = F.pad(hidden.transpose(1, 2).flatten(1, 2), [size // 2] * 4, mode="circular")
    prediction = read(F.conv2d(window, dense.flatten(1, 2)))
    loss = F.mse_loss(prediction, sequence[:, -1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"error of the prediction: {loss.item() / sequence[:, -1].var().item():.1%} of the variance")

# %%
# Every rank is one call. Kernels of 3 x 3 in two levels reach 7 x 7 taps of the oldest frame. With a sliding window
# they reach 5 x 5 of the newest: what this kernel has there beyond is lost at any rank, and ``conv_tt`` warns of it.
# With a fixed window every frame reaches all taps.
ranks = [1, 2, 4]
curves = {
    "random start, fixed window": (fresh, "fixed", 10),
    "trained, sliding window": (dense.detach(), "sliding", 30),
    "trained, fixed window": (dense.detach(), "fixed", 30),
}
figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for (label, (kernel, window, limit)), style in zip(curves.items(), ("s--", "^-", "o-"), strict=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorFitWarning)
        found = [
            conv_tt(kernel, rank, order=2, kernel_size=3, window=window, restarts=1, n_iter_max=limit) for rank in ranks
        ]
    points = [(tensor.n_parameters, tensor.relative_error) for tensor in found]
    axis.plot(*zip(*points, strict=True), style, label=label)
    for rank, point in zip(ranks, points, strict=True):
        axis.annotate(f"rank {rank}", point, textcoords="offset points", xytext=(-12, 7), fontsize=8)
axis.set(xlabel=f"parameters (the dense kernel has {dense.numel():,})", ylabel="relative error", ylim=(0, 1.05))
axis.legend()
plt.show()

# %%
# A decomposed kernel becomes a layer.
layer = ConvTT.from_conv_tt_tensor(found[-1], boundary="circular")
print(layer)
