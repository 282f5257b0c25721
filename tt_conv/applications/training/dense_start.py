"""A training that begins with a ConvLSTM and goes on with the ConvTT-LSTM that it is converted to.

From scratch a ConvTT-LSTM is limited by how its factors are trained, not by what they can represent. Factors that come
out of a network that has learned something already do not have that difficulty. Wang et al., "Pufferfish" (MLSys 2021),
and Khodak et al., "Initialization and regularization of factorized neural layers" (ICLR 2021), describe it for other
networks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tt_conv.applications.compression.conversion import to_conv_tt_lstm
from tt_conv.applications.compression.report import CompressionReport
from tt_conv.applications.training.epochs import CALIBRATION
from tt_conv.layers import ConvTTLSTMCell

CALIBRATION_SAMPLES, CALIBRATION_BATCH = 32, 8
# Adam's first steps have full size whatever the gradient is, and the factors begin where the conversion put them. On
# the task of benchmarks/video_prediction/frontier.py (width 32, three seeds) a warm-up of 1, 20 or 60 steps ended
# alike, so that its length is not critical there.
WARM_UP_STEPS = 20


class DenseStart:
    """What the first part of a training needs.

    Parameters
    ----------
    steps : int
        Optimizer steps with the ConvLSTM.
    dense : nn.Module
        The untrained ConvLSTM.
    target : nn.Module
        The ConvTT-LSTM that it becomes, with any weights.
    batches : callable
        Returns batches of the training's data, as :func:`~tt_conv.applications.compression.to_conv_tt_lstm` takes them.
    """

    def __init__(self, steps: int, dense: nn.Module, target: nn.Module, batches: Callable[[], Sequence[Any]]) -> None:
        self.steps, self.target, self.batches = steps, target, batches
        self.shapes = {name: parameter.shape for name, parameter in dense.named_parameters()}

    @property
    def dense_parameters(self) -> int:
        """Number of parameters of the ConvLSTM."""
        return sum(shape.numel() for shape in self.shapes.values())

    def convert(self, model: nn.Module) -> CompressionReport:
        """Give the target the weights that a trained ConvLSTM is converted to, and its mode, device and dtype."""
        cell = next(module for module in self.target.modules() if isinstance(module, ConvTTLSTMCell))
        train, like = cell.recurrent, next(model.parameters())
        converted, report = to_conv_tt_lstm(
            model,
            order=train.order,
            steps=train.steps,
            rank=train.rank,
            kernel_size=train.kernel_size,
            input_rank=cell.input_rank,
            input_kernel_size=cell.input_kernel_size,
            window=train.window,
            boundary=train.boundary,
            data=[_like_weights(batch, like) for batch in self.batches()],
        )
        self.target.to(like).train(model.training).load_state_dict(converted.state_dict())
        return report

    def warming_up(self, optimizer: torch.optim.Optimizer, step: int) -> AbstractContextManager[None]:
        """The context in which the optimizer takes a step: soon after the conversion the new parameters take less."""
        factor = (step - self.steps + 1) / WARM_UP_STEPS
        return _smaller_steps(optimizer, factor) if factor < 1 else nullcontext()

    def groups(self) -> list[list[nn.Parameter]]:
        """The target's parameters that were in the ConvLSTM, and those that are new."""
        groups: list[list[nn.Parameter]] = [[], []]
        for name, parameter in self.target.named_parameters():
            groups[survivor(name, parameter.shape, self.shapes) is None].append(parameter)
        return groups


def calibration_batches(samples: Any, inputs: Callable[[Sequence[Any]], Any], seed: int) -> list[Any]:
    """A few samples of a training in batches, as the network is called with them: the same for the same seed.

    Parameters
    ----------
    samples : Samples
        All of the training.
    inputs : callable
        Takes some samples and returns what the network is called with for them.
    seed : int
        Of the choice.
    """
    numbers = np.random.default_rng([seed, CALIBRATION]).permutation(len(samples))[:CALIBRATION_SAMPLES].tolist()
    chosen = [samples[number] for number in numbers]
    return [inputs(chosen[first : first + CALIBRATION_BATCH]) for first in range(0, len(chosen), CALIBRATION_BATCH)]


def survivor(name: str, shape: torch.Size, before: dict[str, torch.Size]) -> tuple[str, slice] | None:
    """Where a parameter of a converted network was before: in which parameter, and which of its input channels.

    Parameters
    ----------
    name : str
        Of the parameter of the converted network.
    shape : torch.Size
        Its shape.
    before : dict
        Shapes of the parameters of the ConvLSTM by name.

    Returns
    -------
    (str, slice), optional
        ``None`` for a parameter that is new.
    """
    if before.get(name) == shape:
        return name, slice(None)
    if name.endswith("recurrent.bias"):
        bias = name.removesuffix("recurrent.bias") + "conv.bias"
        return (bias, slice(None)) if before.get(bias) == shape else None
    if name.endswith("input_conv.weight"):
        # The kernel of a ConvLSTM's cell is [of the frame | of the hidden state] along its input channels.
        joint = name.removesuffix("input_conv.weight") + "conv.weight"
        whole = before.get(joint, torch.Size())
        return (joint, slice(shape[1])) if (*whole[:1], *whole[2:]) == (shape[0], *shape[2:]) else None
    return None


def carry_over(optimizer: torch.optim.Optimizer, before: nn.Module, after: nn.Module) -> None:
    """Let an optimizer go on with the network that another was converted to.

    Parameters that were in the network before keep what the optimizer knows of them: those of the same name and shape,
    the kernel of the frame, and the bias of a cell. All others begin anew in a second group of parameters with the same
    options, so that their step size can differ for a while.

    Parameters
    ----------
    optimizer : Optimizer
        Of all parameters of ``before``, in one group; of ``after`` from now on. Schedules that hold it go on.
    before, after : nn.Module
        A ConvLSTM, and what :func:`~tt_conv.applications.compression.to_conv_tt_lstm` made of it.

    Examples
    --------
    >>> from tt_conv.applications.compression import to_conv_tt_lstm
    >>> from tt_conv.layers import ConvLSTM
    >>> model = ConvLSTM(1, 4, 3)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> model(torch.rand(2, 5, 1, 8, 8))[0].square().mean().backward()
    >>> optimizer.step()
    >>> converted, report = to_conv_tt_lstm(model, order=2, steps=2, rank=2)
    >>> carry_over(optimizer, model, converted)
    >>> [len(group["params"]) for group in optimizer.param_groups], len(optimizer.state)
    ([2, 7], 2)
    """
    old = dict(before.named_parameters())
    shapes = {name: parameter.shape for name, parameter in old.items()}
    states: dict[Tensor, Any] = {}
    survivors, fresh = [], []
    for name, parameter in after.named_parameters():
        origin = survivor(name, parameter.shape, shapes)
        if origin is None:
            fresh.append(parameter)
            continue
        source, channels = old[origin[0]], origin[1]
        survivors.append(parameter)
        if source in optimizer.state:
            states[parameter] = {
                key: _carried_part(value, source, channels) for key, value in optimizer.state[source].items()
            }
    (group,) = optimizer.param_groups
    options = {key: value for key, value in group.items() if key != "params"}
    group["params"] = survivors
    optimizer.state.clear()
    optimizer.state.update(states)
    optimizer.add_param_group({**options, "params": fresh})


def _carried_part(value: Any, of: Tensor, channels: slice) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value[:, channels].clone() if value.shape == of.shape and value.ndim > 1 else value.clone()


@contextmanager
def _smaller_steps(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Let the optimizer's second group of parameters, the fresh ones, take smaller steps."""
    fresh = optimizer.param_groups[1]
    rate = fresh["lr"]
    fresh["lr"] = factor * rate
    try:
        yield
    finally:
        fresh["lr"] = rate


def _like_weights(batch: Any, like: Tensor) -> Any:
    """A batch on the device and in the dtype of the weights."""
    if isinstance(batch, tuple):
        return tuple(_like_weights(part, like) for part in batch)
    return batch.to(like) if isinstance(batch, Tensor) else batch
