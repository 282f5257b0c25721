"""One of two processes that train modules with DistributedDataParallel; run by test_modules.py.

    python tests/two_processes.py RANK FILE

It prints a line per module: its name, and whether the parameters are equal to those of one process that saw both halves
of the batch.
"""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.modules import MODULES, example, loss_of


def trained(module: nn.Module, batch: Tensor) -> list[Tensor]:
    """Return the parameters after two steps of SGD."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(module, batch).backward()
        optimizer.step()
    return [parameter.detach() for parameter in module.parameters()]


def main(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for name in MODULES:
        torch.manual_seed(0)
        module, batch = example(name, batch=2)
        alone = trained(copy.deepcopy(module), batch)
        # By default a parameter without a gradient is an error in the next step.
        together = trained(DistributedDataParallel(module), batch[rank : rank + 1])
        equal = all(torch.allclose(one, two, atol=1e-6) for one, two in zip(alone, together, strict=True))
        print(name, "equal" if equal else "different", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
