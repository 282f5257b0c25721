"""How long an operation takes on a device, modelled: a call, bytes over bandwidth, multiply-adds over a rate."""

import math
from dataclasses import dataclass

VECTOR_WIDTH = 16
"""Output channels that a convolution computes at once; fewer take as long. Floats in an AVX-512 register."""

DEPTHWISE = 10
"""A multiply-add of a convolution channel by channel takes so many times as long as one of a dense convolution.

Of ``benchmarks/recurrence`` on a CPU, for chains of factorized kernels.
"""


@dataclass(frozen=True)
class Machine:
    """The rates of one kind of device.

    Parameters
    ----------
    macs_per_second : float
        Multiply-adds of convolutions and matrix products.
    bytes_per_second : float
        Read and written.
    call_seconds : float
        What calling one operation takes, whatever its size.
    """

    macs_per_second: float
    bytes_per_second: float
    call_seconds: float

    def seconds(self, macs: float, traffic: float, calls: float = 1) -> float:
        """Return how long operations should take that need so many multiply-adds and bytes in all."""
        return calls * self.call_seconds + traffic / self.bytes_per_second + macs / self.macs_per_second

    @property
    def macs_per_byte(self) -> float:
        """Multiply-adds that could be done while one byte is read or written."""
        return self.macs_per_second / self.bytes_per_second

    def convolution_seconds(
        self, positions: int, in_channels: int, out_channels: int, taps: int, groups: int, itemsize: int
    ) -> float:
        """Return how long a convolution should take.

        Parameters
        ----------
        positions : int
            Spatial positions times samples.
        in_channels, out_channels : int
        taps : int
            Elements of the kernel per pair of channels.
        groups : int
        itemsize : int
            Bytes of one element.
        """
        if groups > 1:
            macs = DEPTHWISE * out_channels * (in_channels // groups) * taps
        else:
            macs = math.ceil(out_channels / VECTOR_WIDTH) * VECTOR_WIDTH * in_channels * taps
        return self.seconds(positions * macs, positions * (in_channels + out_channels) * itemsize)


# 24 to 64 multiply-adds per byte choose the same Conv-TT programs, and 32 the faster ones (benchmarks/conv_tt).
_CPU = Machine(1e11, 1e11 / 32, 1e-5)
_ACCELERATOR = Machine(1e13, 1e12, 1e-5)


def machine_of(device_type: str) -> Machine:
    """Return the model of a type of device, such as "cpu"; of accelerators all alike."""
    return _CPU if device_type == "cpu" else _ACCELERATOR
