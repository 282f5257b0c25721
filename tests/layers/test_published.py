"""What does not fit is refused, whole, with the names."""

import pytest
import torch

from tt_conv.layers import ConvTTLSTMCell, FramePredictor, load_published_state_dict


def weights() -> dict[str, torch.Tensor]:
    """Weights of a ConvTT-LSTM cell 1 -> 2 with kernel 3, order 2, steps 2, rank 3."""
    return {
        "layers_.0.weight": torch.randn(3, 2, 3, 3),
        "layers_.0.bias": torch.randn(3),
        "layers_.1.weight": torch.randn(3, 2, 3, 3),
        "layers_.1.bias": torch.randn(3),
        "layers.0.weight": torch.randn(3, 3, 3, 3),
        "layers.0.bias": torch.randn(3),
        "layers.1.weight": torch.randn(8, 4, 3, 3),
        "layers.1.bias": torch.randn(8),
    }


def make() -> ConvTTLSTMCell:
    return ConvTTLSTMCell(1, 2, 3, order=2, rank=3)


def test_a_prefix_of_data_parallel_training_is_accepted() -> None:
    plain, prefixed = make(), make()
    values = weights()
    load_published_state_dict(plain, values)
    load_published_state_dict(prefixed, {f"module.{name}": value for name, value in values.items()})
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), prefixed.parameters(), strict=True))
    assert torch.equal(plain.input_conv.weight, values["layers.1.weight"][:, :1])
    assert torch.equal(plain.recurrent.cores[1], values["layers.1.weight"][:, 1:])


def test_what_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    cell = make()
    before = [parameter.clone() for parameter in cell.parameters()]
    values = weights() | {"layers.7.weight": torch.zeros(1), "layers_.1.weight": torch.zeros(3, 5, 3, 3)}
    del values["layers.0.bias"]
    with pytest.raises(ValueError, match=r"missing: layers\.0\.bias") as caught:
        load_published_state_dict(cell, values)
    assert "not in this ConvTTLSTMCell: layers.7.weight" in str(caught.value)
    assert "layers_.1.weight: expected shape (3, 2, 3, 3), got (3, 5, 3, 3)" in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, cell.parameters(), strict=True))


def test_a_network_of_another_architecture_is_refused() -> None:
    model = FramePredictor(1, (4,), (1,), kernel_size=3)
    with pytest.raises(ValueError, match=r"missing: layers\.b0l0\.layers\.0\.bias"):
        load_published_state_dict(model, {"layers.b0l0.conv.weight": torch.zeros(16, 5, 3, 3)})


@pytest.mark.parametrize("bad", [None, "weights.pt", [1], {1: torch.zeros(1)}])
def test_what_is_no_state_dict_is_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="state_dict must"):
        load_published_state_dict(make(), bad)


def test_values_that_are_no_tensors_are_refused_before_anything_is_loaded() -> None:
    cell = make()
    before = [parameter.clone() for parameter in cell.parameters()]
    with pytest.raises(TypeError, match="'layers_\\.1\\.bias': ndarray"):
        load_published_state_dict(cell, weights() | {"layers_.1.bias": weights()["layers_.1.bias"].numpy()})
    assert all(torch.equal(a, b) for a, b in zip(before, cell.parameters(), strict=True))


def test_a_foreign_module_is_refused() -> None:
    with pytest.raises(TypeError, match="got Conv2d"):
        load_published_state_dict(torch.nn.Conv2d(1, 1, 1), {})


def test_a_cell_without_a_published_counterpart_is_refused() -> None:
    with pytest.raises(TypeError, match="input_rank=2 has no published counterpart"):
        load_published_state_dict(ConvTTLSTMCell(1, 2, 3, order=2, rank=3, input_rank=2), weights())
    with pytest.raises(TypeError, match=r"input_kernel_size=\(5, 5\) has no published counterpart"):
        load_published_state_dict(ConvTTLSTMCell(1, 2, 3, order=2, rank=3, input_kernel_size=5), weights())
