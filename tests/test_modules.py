"""Every public module behaves as PyTorch's own layers do."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType

import pytest
import torch
from torch import nn

from tests.modules import MODULES, example, loss_of, output_of
from tt_conv.runtime.kept import Kept

ROOT = Path(__file__).parents[1]

every_module = pytest.mark.parametrize("name", MODULES)


def _through_torch_save(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_module
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), _through_torch_save])
def test_copies_give_the_same_and_share_nothing(name: str, copied: Callable[[nn.Module], nn.Module]) -> None:
    module, inputs = example(name)
    expected = output_of(module, inputs).detach()
    other = copied(module)
    assert type(other) is type(module)
    assert torch.equal(output_of(other, inputs), expected)
    loss_of(other, inputs).backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert {p.data_ptr() for p in other.parameters()}.isdisjoint(p.data_ptr() for p in module.parameters())


@every_module
def test_the_state_dict_loads_strictly_into_another(name: str) -> None:
    module, inputs = example(name)
    other, _ = example(name)
    assert not torch.equal(output_of(other, inputs), output_of(module, inputs))
    other.load_state_dict(module.state_dict())
    assert torch.equal(output_of(other, inputs), output_of(module, inputs))


@every_module
def test_all_of_the_state_are_parameters_with_plain_names(name: str) -> None:
    module, _ = example(name)
    parameters = dict(module.named_parameters())
    assert parameters.keys() == module.state_dict().keys()
    assert len({id(parameter) for parameter in parameters.values()}) == len(parameters)
    # What a training leaves out of weight decay by its name is what it should.
    biases = {key for key in parameters if "bias" in key}
    assert all(parameters[key].ndim == 1 for key in biases)
    assert all(parameter.ndim > 1 for key, parameter in parameters.items() if key not in biases | {"factors.weights"})


@every_module
def test_every_parameter_gets_a_gradient(name: str) -> None:
    module, inputs = example(name)
    loss_of(module, inputs).backward()
    assert [key for key, parameter in module.named_parameters() if parameter.grad is None] == []


def _tensors_beside_parameters(value: object, seen: set[int]) -> list[torch.Tensor]:
    """Return the tensors that an object holds, except parameters and what the one rule for kept weights watches."""
    if id(value) in seen or isinstance(value, nn.Parameter | Kept):
        return []
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif isinstance(value, partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, FunctionType):
        parts = [cell.cell_contents for cell in value.__closure__ or ()]
    elif isinstance(value, MethodType):
        parts = [value.__self__]
    else:
        slots = [getattr(value, name, None) for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [*getattr(value, "__dict__", {}).values(), *slots]
    return [tensor for part in parts for tensor in _tensors_beside_parameters(part, seen)]


@every_module
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_nothing_derived_from_weights_outlives_a_call_but_by_the_one_rule(
    name: str, training: bool, gradients: bool
) -> None:
    module, inputs = example(name)
    module.train(training)
    with torch.set_grad_enabled(gradients):
        for _ in range(2):
            output_of(module, inputs)
    assert _tensors_beside_parameters(module, set()) == []


@every_module
def test_to_a_dtype_and_a_device(name: str) -> None:
    module, inputs = example(name)
    expected = output_of(module, inputs).detach()
    module.to(torch.float64)
    double = output_of(module, inputs.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, atol=1e-5, rtol=1e-4)
    module.to("meta")
    assert output_of(module, inputs.double().to("meta")).device.type == "meta"
    make, _ = MODULES[name]
    assert {(p.dtype, p.device.type) for p in make(dtype=torch.float64, device="meta").parameters()} == {
        (torch.float64, "meta")
    }


@every_module
def test_weight_decay_shrinks_every_parameter(name: str) -> None:
    module, inputs = example(name)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    (0 * loss_of(module, inputs)).backward()
    optimizer.step()
    for parameter, start in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), 0.95 * start)
    assert not torch.equal(output_of(module, inputs), output_of(example(name)[0], inputs))


@every_module
def test_repr_tells_the_arguments(name: str) -> None:
    module, inputs = example(name)
    channels = {"FramePredictor": "(1", "ConvTTLSTM": "ConvTTLSTMCell(", "ConvLSTM": "ConvLSTMCell("}
    text = repr(module)
    assert text.startswith(type(module).__name__)
    assert channels.get(type(module).__name__, "") in text.replace("\n", "").replace("  ", "")
    assert f"{inputs.shape[-3]}, " in text
    assert "skip_stride=1" in text or "kernel_size=(3, 3)" in text or "kernel_size=(5, 5)" in text


@every_module
def test_hooks_of_the_module_are_called(name: str) -> None:
    module, inputs = example(name)
    calls = []
    module.register_forward_pre_hook(lambda *_: calls.append("before"))
    module.register_forward_hook(lambda *_: calls.append("after"))
    module.register_full_backward_hook(lambda *_: calls.append("backward"))
    loss_of(module, inputs.requires_grad_()).backward()
    assert calls == ["before", "after", "backward"]


# A walk through a sequence prepares its parts once instead of calling them; with hooks they are called for every frame.
PARTS = {
    ("ConvLSTM", "cell"): 4,
    ("ConvLSTM", "cell.conv"): 4,
    ("ConvTTLSTM", "cell"): 4,
    ("ConvTTLSTM", "cell.input_conv"): 4,
    ("ConvTTLSTM", "cell.recurrent"): 4,
    ("ConvTTLSTM, fixed window", "cell.input_conv"): 4,
    ("ConvTTLSTM, fixed window", "cell.recurrent"): 4,
    ("ConvTTLSTMCell", "recurrent"): 1,
    ("FramePredictor of ConvLSTM", "blocks.1.0"): 4,
    ("FramePredictor of ConvTT-LSTM", "blocks.0.0.recurrent"): 4,
    ("FramePredictor of ConvTT-LSTM", "output"): 4,
}


@pytest.mark.parametrize(("name", "part"), PARTS)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # the zero state takes no gradient
def test_hooks_of_the_parts_are_called_for_every_frame(name: str, part: str) -> None:
    module, inputs = example(name)
    expected = output_of(module, inputs.requires_grad_())
    expected.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    forward, backward = [], []
    module.get_submodule(part).register_forward_hook(lambda *_: forward.append(1))
    module.get_submodule(part).register_full_backward_hook(lambda *_: backward.append(1))
    watched = output_of(module, inputs)
    torch.testing.assert_close(watched, expected)
    watched.square().sum().backward()
    torch.testing.assert_close([parameter.grad for parameter in module.parameters()], gradients)
    assert (len(forward), len(backward)) == (PARTS[name, part], PARTS[name, part])


def test_a_hook_of_a_part_changes_what_it_computes() -> None:
    module, inputs = example("ConvTTLSTM")
    module.cell.register_forward_hook(lambda module, arguments, output: (0 * output[0], output[1]))
    assert not output_of(module, inputs).any()


@every_module
def test_eval_mode_and_frozen_parameters(name: str) -> None:
    module, inputs = example(name)
    expected = output_of(module, inputs)
    module.eval().requires_grad_(False)
    output = output_of(module, inputs)
    assert not output.requires_grad
    torch.testing.assert_close(output, expected.detach())


def test_data_parallel_training_equals_one_process_and_uses_every_parameter(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "two_processes.py")]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        finished = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for printed, errors in finished:
        assert printed.splitlines() == [f"{name} equal" for name in MODULES], errors
