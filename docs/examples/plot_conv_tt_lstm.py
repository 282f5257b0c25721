r"""
How far back a ConvTT-LSTM sees
===============================

One step of a ConvTT-LSTM looks at several past hidden states through one jointly factorized kernel. Here an
untrained cell shows the part of that kernel which belongs to each of them.
"""

# %%
# A cell of order 3 that looks back on five hidden states. Level 1 sees the oldest three, level 3 the newest.
import matplotlib.pyplot as plt
import torch

from tt_conv.layers import ConvTTLSTMCell

torch.manual_seed(0)
cell = ConvTTLSTMCell(in_channels=1, hidden_channels=8, kernel_size=3, order=3, steps=5, rank=4)
print(cell)

# %%
# Put a single active pixel into one past state at a time. The Conv-TT of the cell answers with the part of
# its dense kernel that belongs to that state. An older state passes more cores, so it reaches further.
impulses = torch.zeros(5, 5, 8, 15, 15)
for n in range(5):
    impulses[n, n, :, 7, 7] = 1
with torch.no_grad():
    responses = cell.recurrent.forward_window(impulses) - cell.recurrent.forward_window(0 * impulses)

figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
for n, axis in enumerate(axes):
    axis.imshow(responses[n].square().mean(0).sqrt(), cmap="magma")
    axis.set_title(f"$h_{{t-{5 - n}}}$")
    axis.set(xticks=[], yticks=[])
figure.suptitle("Reach of each past hidden state, oldest first")
plt.show()

# %%
# The newest state passes one projection and one core, so it reaches two kernels far. The oldest three pass
# one projection and all three cores.
