"""The order of axes and the range of values: stated or detected."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.pixels import ValueRange, layout_of, ordered


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((30, 8, 12), "THW"),
        ((30, 8, 12, 3), "THWC"),
        ((30, 1, 8, 12), "TCHW"),
        ((5, 30, 8, 12), "NTHW"),
        ((20, 10000, 64, 64), "TNHW"),
        ((20, 1000, 1, 64, 64), "TNCHW"),
        ((20, 50, 64, 64), "NTHW"),
        ((5, 30, 8, 12, 3), "NTHWC"),
        ((5, 30, 3, 8, 12), "NTCHW"),
    ],
)
def test_detected_layouts(shape: tuple[int, ...], layout: str) -> None:
    found, reason = layout_of(shape, None, "a.npy")
    assert found == layout
    assert reason.startswith("detected")


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((8, 12), None, r"a\.npy: an array of shape \(8, 12\) is no video"),
        ((5, 30, 8, 12, 7), None, "none of 5 axes"),
        ((30, 3, 12, 3), None, "channels may be axis 1 or the last one"),
        ((30, 8, 12), "NTHW", r"is not NTHW"),
        ((30, 8, 12, 5), "THWC", "is not THWC with 1 or 3 channels"),
        ((30, 8, 12, 4), None, "looks like 4 channels: keep 1"),
    ],
)
def test_layouts_that_do_not_fit(shape: tuple[int, ...], layout: str | None, message: str) -> None:
    with pytest.raises(UnusableFile, match=message):
        layout_of(shape, layout, "a.npy")


def test_an_unknown_layout() -> None:
    with pytest.raises(ValueError, match="layout must be one of THW, "):
        layout_of((3, 4, 5), "HWT", "a.npy")


def test_a_stated_layout_wins() -> None:
    assert layout_of((20, 200, 8, 8), "NTHW", "a.npy") == ("NTHW", "as stated")


@pytest.mark.parametrize("layout", ["THW", "THWC", "TCHW", "TNHW", "NTCHW", "TNHWC"])
def test_axes_are_put_in_order(layout: str) -> None:
    sizes = {"N": 2, "T": 4, "H": 5, "W": 6, "C": 3}
    array = np.random.default_rng(0).random([sizes[letter] for letter in layout])
    expected = np.einsum(f"{layout}->{''.join(letter for letter in 'NTHWC' if letter in layout)}", array)
    shape = [sizes[letter] if letter in layout else 1 for letter in "NTHWC"]
    np.testing.assert_array_equal(ordered(array, layout), expected.reshape(shape))


def detected(values: NDArray, stated: tuple[float, float] | None = None) -> tuple[float, float]:
    found = ValueRange(stated)
    found.see(values[:, None, None], "a.npy")
    return found.of(values.dtype, "a.npy")[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 9], np.uint8), (0, 255)),
        (np.array([True, False]), (0, 1)),
        (np.array([0.0, 0.3]), (0, 1)),
        (np.array([0.0, 130.0], np.float32), (0, 255)),
        (np.array([0, 1], np.int64), (0, 1)),
        (np.array([-0.5, 0.5]), (-1, 1)),
        (np.array([0, 200], np.int64), (0, 255)),
        (np.array([0, 40000], np.uint16), (0, 65535)),
    ],
)
def test_detected_ranges(values: NDArray, expected: tuple[float, float]) -> None:
    assert detected(values) == expected


@pytest.mark.parametrize(
    ("values", "stated", "message"),
    [
        (
            [0.0, 300.0],
            None,
            r"a\.npy: values run from 0 to 300, .* such as value_range=\[0,300\]",
        ),
        ([-3.0, 0.5], None, "run from -3 to 0.5"),
        ([0.0, 2.9], None, r"value_range=\[0,2\.9\]"),  # rain in mm: nearly black as 0 to 255
        (np.array([0, 4000], np.uint16), None, r"value_range=\[0,4000\]"),  # 12 bits
        ([0.0, 2.0], (0.0, 1.0), "outside the stated 0 to 1"),
        ([0.0, np.nan], None, "1 values of part 1 along its first axis are not finite"),
        ([0.0, np.inf], (0.0, 1.0), "are not finite"),
        (["a", "b"], None, "expected numbers"),
    ],
)
def test_values_out_of_range(values: list, stated: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(UnusableFile, match=message):
        detected(np.array(values), stated)


def test_a_range_upside_down() -> None:
    with pytest.raises(ValueError, match="black below white"):
        ValueRange((1.0, 0.0))


def test_one_range_for_all_arrays_of_a_kind() -> None:
    found = ValueRange()
    for name, values in (("a.npy", [0.0, 0.8]), ("b.npy", [0.0, 90.0]), ("c.npy", np.array([0, 200], np.int64))):
        found.see(np.array(values)[:, None, None], name)
    assert found.of(np.dtype(float), "a.npy")[0] == (0, 255)
    assert found.of(np.dtype(np.int64), "c.npy")[0] == (0, 255)
    assert found.of(np.dtype(np.uint8), "d.npy")[0] == (0, 255)


def test_the_range_of_a_training() -> None:
    found = ValueRange(assumed=(0.0, 50.0))
    found.see(np.full((2, 2, 2), 0.7), "a.npy")
    assert found.of(np.dtype(float), "a.npy")[0] == (0, 50)
    with pytest.raises(UnusableFile, match="outside the training's 0 to 50"):
        found.see(np.full((2, 2, 2), 60.0), "a.npy")
