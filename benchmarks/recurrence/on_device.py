"""The recurrence engine on a device.

Outputs, states and gradients in float64 against the same layer on the CPU, which the tests hold against the formulas;
low precision and compiled steps against full precision; calls replayed as CUDA graphs against calls as usual, with
shapes that change, weights that learn, and frames that come one by one.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.guarded import NEEDS_CUDA, guarded
from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor

LAYERS: dict[str, Callable[[], ConvLSTM | ConvTTLSTM]] = {
    "ConvLSTM": lambda: ConvLSTM(3, 6, 3),
    "ConvTT-LSTM": lambda: ConvTTLSTM(3, 6, 5),
    "ConvTT-LSTM, lags": lambda: ConvTTLSTM(3, 6, 3, order=2, steps=4, rank=3),
    "ConvTT-LSTM, input_rank": lambda: ConvTTLSTM(3, 6, 3, rank=4, input_rank=2),
    "ConvTT-LSTM, fixed window": lambda: ConvTTLSTM(3, 6, 3, order=2, window="fixed"),
    "ConvTT-LSTM, zeros": lambda: ConvTTLSTM(3, 6, 3, boundary="zeros"),
    "ConvTT-LSTM, circular": lambda: ConvTTLSTM(3, 6, 3, boundary="circular"),
    "ConvTT-LSTM, 1-d": lambda: ConvTTLSTM(3, 6, 3, dim=1),
    "ConvTT-LSTM, 3-d": lambda: ConvTTLSTM(3, 6, 3, dim=3, rank=2),
}
SIDE = 12
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per check and layer."""
    checks: list[tuple[str, Callable[..., dict]]] = [("float64", _float64)]
    checks += [(name, partial(_half, dtype=dtype)) for name, dtype in HALF.items()]
    checks += [("graphs", _graphs)]
    for check, measure in checks:
        for name, make in LAYERS.items():
            case = f"{check}, {name}"
            if wanted(case):
                yield guarded(case, partial(measure, make, device))
    whole: dict[str, Callable[[torch.device], dict]] = {
        "graphs, a predictor that learns": _graphs_of_a_predictor,
        "graphs, frames one by one": _graphs_of_a_stream,
        "a compiled step": _compiled,
    }
    for case, measure in whole.items():
        if wanted(case):
            yield guarded(case, partial(measure, device))


def frames_for(layer: ConvLSTM | ConvTTLSTM, time: int, device: torch.device, side: int = SIDE) -> Tensor:
    """Return the same frames on every device."""
    generator = torch.Generator().manual_seed(time)
    size = (side,) * layer.cell.dim
    return torch.randn(2, time, layer.cell.in_channels, *size, generator=generator).to(device)


def values_of(layer: nn.Module, *segments: Tensor) -> list[Tensor]:
    """Return outputs, final state and the gradients of the parameters over segments that hand over their state."""
    state, outputs = None, []
    for segment in segments:
        output, state = layer(segment, state)
        outputs.append(output)
    loss = sum((output.double().sin().sum() for output in outputs), torch.zeros((), device=segments[0].device))
    assert state is not None
    gradients = torch.autograd.grad(loss + state[-1].double().square().sum(), list(layer.parameters()))
    return [value.detach().double().cpu() for value in (*outputs, *state, *gradients)]


def largest_difference(values: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference over the largest value, tensor by tensor."""
    pairs = zip(values, expected, strict=True)
    return max(((v - e).abs().max() / e.abs().max().clamp_min(1e-3)).item() for v, e in pairs)


def _judged(difference: float, tolerance: float) -> dict[str, Any]:
    return {"largest relative difference": difference, "ok": difference <= tolerance}


def _seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()


def _float64(make: Callable[[], ConvLSTM | ConvTTLSTM], device: torch.device) -> dict:
    layer = _seeded(make).double()
    segments = [frames_for(layer, time, torch.device("cpu")).double() for time in (4, 3)]
    expected = values_of(layer, *segments)
    found = values_of(deepcopy(layer).to(device), *(segment.to(device) for segment in segments))
    return _judged(largest_difference(found, expected), 1e-8)


def _half(make: Callable[[], ConvLSTM | ConvTTLSTM], device: torch.device, dtype: torch.dtype) -> dict:
    layer = _seeded(make).to(device)
    segments = [frames_for(layer, time, device) for time in (4, 3)]
    expected = values_of(deepcopy(layer).double(), *(segment.double() for segment in segments))
    with torch.autocast(device.type, dtype):
        found = values_of(layer, *segments)
    return _judged(largest_difference(found, expected), 0.1)


def _graphs(make: Callable[[], ConvLSTM | ConvTTLSTM], device: torch.device) -> dict:
    if device.type != "cuda":
        return {"skipped": NEEDS_CUDA}
    layer = _seeded(make).double().to(device)
    replayed = deepcopy(layer)
    replayed.use_cuda_graphs()
    worst = 0.0
    for turn in range(3):
        for time, side in ((4, SIDE), (2, SIDE), (4, SIDE - 5)):
            segments = [(turn + 1) * frames_for(layer, time, device, side).double() for _ in range(2)]
            worst = max(worst, largest_difference(values_of(replayed, *segments), values_of(layer, *segments)))
        with torch.no_grad():
            for module in (layer, replayed):
                for parameter in module.parameters():
                    parameter.mul_(0.9)
            segment = frames_for(layer, 4, device).double()
            pair = [[value.cpu() for value in module(segment)[1]] for module in (replayed, layer)]
            worst = max(worst, largest_difference(*pair))
    return _judged(worst, 1e-10)


def _predictor() -> FramePredictor:
    return _seeded(lambda: FramePredictor(1, (6, 8), (1, 2), kernel_size=3, skip_stride=1, rank=4))


def _graphs_of_a_predictor(device: torch.device) -> dict:
    if device.type != "cuda":
        return {"skipped": NEEDS_CUDA}
    models = [_predictor().to(device) for _ in range(2)]
    models[1].use_cuda_graphs()
    scalers = [torch.amp.GradScaler("cuda", init_scale=2.0**30) for _ in models]
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-2) for model in models]
    frames = torch.rand(2, 7, 1, SIDE, SIDE, device=device)
    losses: list[list[float]] = [[], []]
    for _ in range(30):
        for n, (model, optimizer, scaler) in enumerate(zip(models, optimizers, scalers, strict=True)):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16):
                predictions = model(frames[:, :4], 3)
            loss = (predictions.float() - frames[:, 1:]).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses[n].append(loss.item())
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    return {
        "first loss": losses[1][0],
        "last loss": losses[1][-1],
        "losses apart": apart,
        "ok": losses[1][-1] < 0.9 * losses[1][0] and apart < 0.05 * losses[0][0],
    }


def _graphs_of_a_stream(device: torch.device) -> dict:
    if device.type != "cuda":
        return {"skipped": NEEDS_CUDA}
    model = _predictor().double().eval().to(device)
    frames = torch.rand(2, 6, 1, SIDE, SIDE, device=device, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(frames, 1)
        model.use_cuda_graphs()
        states, streamed = None, []
        for frame in frames.unbind(1):
            prediction, states = model.step(frame, states)
            streamed.append(prediction)
    return _judged(largest_difference([torch.stack(streamed, dim=1).cpu()], [expected.cpu()]), 1e-10)


def _compiled(device: torch.device) -> dict:
    layer = _seeded(LAYERS["ConvTT-LSTM"]).double().to(device)
    segment = frames_for(layer, 6, device).double()
    expected = values_of(layer, segment)
    layer.compile()
    return _judged(largest_difference(values_of(layer, segment), expected), 1e-8)
