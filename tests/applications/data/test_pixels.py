"""The order of axes and the range of values: stated or detected."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.pixels import ValueRange, layout_of, ordered
from tt_conv.applications.video_prediction.data import OwnVideos


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
    for layout in ("HWC", "NTHWX", "TTHW", "THW "):
        with pytest.raises(ValueError, match=r"layout must name T .frames., H and W"):
            layout_of((3, 4, 5), layout, "a.npy")


@pytest.mark.parametrize(
    "layout", ["".join(order) for axes in ("THW", "NTHW", "TCHW", "NTCHW") for order in itertools.permutations(axes)]
)
def test_every_order_can_be_stated(tmp_path: Path, layout: str) -> None:
    sizes = {"N": 2, "T": 4, "H": 5, "W": 6, "C": 3}
    array = np.random.default_rng(0).random([sizes[letter] for letter in layout])
    np.save(tmp_path / "a.npy", array)
    data = OwnVideos(tmp_path / "a.npy", 4, "all", layout=layout, value_range=(0, 1))
    frames = np.einsum(f"{layout}->{''.join(letter for letter in 'NTCHW' if letter in layout)}", array)
    expected = frames.reshape(sizes["N"] if "N" in layout else 1, 4, -1, 5, 6)
    np.testing.assert_allclose(np.stack([sequence.numpy() for sequence in data]), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "shape",
    [
        (8, 384, 384, 49),  # radar: [N, H, W, T]
        (8, 32, 32, 20),
        (5, 16, 24, 12),
        (64, 64, 20),  # [H, W, T]
        (8, 12, 5),
        (64, 64, 64),
        (64, 64, 20, 3),  # [H, W, T, C]
        (4, 64, 64, 20, 3),
        (120, 160, 3, 50),  # [H, W, C, T]
        (3, 16, 112, 112),  # [C, T, H, W]
        (8, 3, 16, 112, 112),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnusableFile, match="layout"):
        layout_of(shape, None, "a.npy")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((6, 20, 24, 32), "NTHW"), ((100, 20, 64, 64), "NTHW"), ((9, 8, 12), "THW"), ((4, 30, 24, 32), "NTHW")],
)
def test_the_usual_order_is_not_asked_for(shape: tuple[int, ...], layout: str) -> None:
    assert layout_of(shape, None, "a.npy")[0] == layout


FIELD = np.random.default_rng(0).uniform(0, 300, (4, 8, 8))


@pytest.mark.parametrize("mark", [-9999, -999, -99999, 1e20, 9.96921e36, -8888, 9999])
@pytest.mark.parametrize("value_range", [None, (0, 300)])
def test_marks_for_missing_values_are_named(mark: float, value_range: tuple[float, float] | None) -> None:
    array = FIELD.copy()
    array[1, 2:4, 3] = mark
    with pytest.raises(UnusableFile) as caught:
        ValueRange(value_range).see(array, "a.npy")
    assert f"{mark:g} (2 times) looks like a mark for missing values: the others run from" in str(caught.value)
    assert "replace it by a value that means nothing there" in str(caught.value)
    assert "clip" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "mark", "white"), [(np.uint16, 65535, 4000), (np.int16, -32768, 300), (np.float32, -1, 1)]
)
def test_marks_within_usual_ranges(dtype: type, mark: float, white: float) -> None:
    array = (FIELD / 300 * white).astype(dtype)
    array[0, 0, 0] = mark
    with pytest.raises(UnusableFile, match="looks like a mark for missing values"):
        ValueRange().see(array, "a.npy")
    ValueRange((min(mark, 0), max(mark, white))).see(array, "a.npy")  # stated: it is a value


@pytest.mark.parametrize("value", [5.0, -3.0, 1000.0, -9999.0])
def test_constant_arrays_tell_no_range(value: float) -> None:
    values = ValueRange()
    values.see(np.full((3, 8, 8), value), "a.npy")
    with pytest.raises(UnusableFile, match=rf"all values are {value:g}, which tells no range: .* black below white$"):
        values.of(np.dtype(float), "a.npy")


def test_no_advice_that_ruins_data() -> None:
    array = FIELD.copy()
    array[0, 0, 0], array[1, 0, 0] = np.inf, np.nan
    with pytest.raises(UnusableFile, match="replace them by a value that means nothing there") as caught:
        ValueRange((0, 300)).see(array, "a.npy")
    assert "nan_to_num" not in str(caught.value)


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
