r"""
The order of evaluation of a factorized convolution
===================================================

One equation, many orders of evaluation. Here every order in which a CP-factorized convolution can be evaluated is
counted, and the one that the planner chooses is compared with the rest, for several ranks.
"""

# %%
# A convolution from 64 to 128 channels whose 3x3 kernel is a sum of ``r`` outer products.
import matplotlib.pyplot as plt
import torch

from tt_conv import conv_einsum, conv_einsum_path

EQUATION = "bihw,or,ir,hr,wr->bohw|hw"


def shapes(rank: int) -> list[tuple[int, ...]]:
    return [(8, 64, 16, 16), (128, rank), (64, rank), (3, rank), (3, rank)]


path, info = conv_einsum_path(EQUATION, *shapes(16), shapes=True, padding="same")
print(info)


# %%
# A path names positions in the current list of operands; the result of a step goes to the end. So every path can be
# written down, and handed to the planner.
def every_path(operands: int) -> list[list[tuple[int, int]]]:
    if operands == 1:
        return [[]]
    pairs = [(i, j) for i in range(operands) for j in range(i + 1, operands)]
    return [[pair, *rest] for pair in pairs for rest in every_path(operands - 1)]


ranks = [4, 8, 16, 32, 64, 128, 256]
dense = 128 * 64 * 3 * 3 * 8 * 16 * 16
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for rank in ranks:
    costs = {
        conv_einsum_path(EQUATION, *shapes(rank), shapes=True, padding="same", optimize=candidate)[1].opt_cost
        for candidate in every_path(5)
    }
    axis.plot([rank] * len(costs), sorted(costs), "_", color="0.6", markersize=14)
best = [conv_einsum_path(EQUATION, *shapes(rank), shapes=True, padding="same")[1].opt_cost for rank in ranks]
left = [conv_einsum_path(EQUATION, *shapes(rank), shapes=True, padding="same")[1].naive_cost for rank in ranks]
axis.plot(ranks, left, "s--", color="tab:orange", label="left to right")
axis.plot(ranks, best, "o-", color="tab:blue", label="chosen")
axis.axhline(dense, color="black", linewidth=1, linestyle=":", label="dense convolution")
axis.set(xscale="log", yscale="log", xlabel="rank", ylabel="multiply-adds", title="Every order of evaluation")
axis.legend()
plt.show()

# %%
# Whatever the order, the values are the same.
operands = [torch.randn(shape, dtype=torch.float64) for shape in shapes(8)]
chosen = conv_einsum(EQUATION, *operands, padding="same")
other = conv_einsum(EQUATION, *operands, padding="same", optimize=False)
print(f"largest difference: {(chosen - other).abs().max():.1e}")
