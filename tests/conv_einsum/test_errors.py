"""Bad input: one family of exceptions, raised before any work, that says where and what."""

import re

import opt_einsum
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tt_conv.conv_einsum
from tests.oracle.conv_einsum_validity import judge
from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum.errors import ConvEinsumError


class Operations(TorchDispatchMode):
    """Writes down every tensor operation that runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


def refusal(equation, *shapes, **options):
    """Call with operands of these shapes; give back the message of the refusal."""
    operands = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    return refusal_of(equation, *operands, **options)


def refusal_of(equation, *operands, **options):
    with Operations() as operations, pytest.raises(ConvEinsumError) as caught:
        conv_einsum(equation, *operands, **options)
    assert not operations.seen, "work was done before the refusal"
    message = str(caught.value)
    assert quoted(equation) in message or equation in message, message
    return message


def mentions(message, *parts):
    """Each part stands in the message, as a whole word if it is a word."""
    for part in parts:
        pattern = re.escape(str(part))
        if str(part)[0].isalnum():
            pattern = rf"(?<!\w){pattern}(?!\w)"
        # The equation itself holds every letter, so it doesn't count.
        assert re.search(pattern, message), f"{part!r} is not in: {message}"


def quoted(equation):
    """The equation as a message shows it: with escapes for what cannot be printed."""
    return repr(equation)[1:-1]


def without(message, equation):
    return message.replace(equation, "")


def described(value):
    """An id for a test that does not change from run to run."""
    return str(value) if isinstance(value, (str, list, bool, int, float, dict)) else type(value).__name__


def test_one_family():
    assert issubclass(ConvEinsumError, ValueError)
    assert tt_conv.conv_einsum.__module__.startswith("tt_conv.conv_einsum")
    import importlib

    package = importlib.import_module("tt_conv.conv_einsum")
    assert package.ConvEinsumError is ConvEinsumError


MALFORMED = [
    "",
    " ",
    "->",
    ",",
    "|",
    "->|",
    "|h",
    "ih",
    "ih,->",
    ",ih->",
    "ih,oh-oh|h",
    "ih,oh>oh|h",
    "ih,oh->oh->oh|h",
    "ih->oh,oh|h",
    "ih,oh->oh,|h",
    "ih,oh|h->oh",
    "ih,oh->oh|h|h",
    "ih,oh->oh||h",
    "ih,oh->o1|h",
    "i1,o1->o1|1",
    "ih,oh->oh|h!",
    "i h,o.h->o h|h",
    "..ih,oh->oh|h",
    "....ih,oh->...oh|h",
    "...i...h,oh->...oh|h",
    "(ih),oh->oh|h",
    "i_h,oh->oh|h",
    "ih;oh->oh|h",
    "ih\noh->oh|h!",
    "ih,oh->oh|h\0",
    "ih,oh->oh|...",
    "ih,oh=>oh|h",
    "ih,oh→oh|h",
    "ih,,oh->oh|h",
    "ih,oh,->oh|h",
    "ih,oh->oh|h->",
]


@pytest.mark.parametrize("equation", MALFORMED)
def test_malformed_equations(equation):
    refusal(equation, (2, 5), (3, 2))


@pytest.mark.parametrize("equation", [None, 3, b"ij,jk->ik", ["ij", "jk"]])
def test_an_equation_that_is_not_text(equation):
    with pytest.raises((ConvEinsumError, TypeError)):
        conv_einsum(equation, torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_operand_count(count):
    equation = "bih,oih->boh|h"
    message = refusal(equation, *[(2, 2, 2)] * count)
    mentions(without(message, equation), 2, count)


def test_operands_that_are_not_tensors():
    with pytest.raises((ConvEinsumError, TypeError)):
        conv_einsum("ij,jk->ik", torch.ones(2, 2), [[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises((ConvEinsumError, TypeError)):
        conv_einsum("ij,jk->ik", torch.ones(2, 2), None)


def test_wrong_number_of_dimensions():
    equation = "bih,oih->boh|h"
    message = refusal(equation, (2, 3, 5), (4, 3, 3, 3))
    mentions(without(message, equation), 1, "oih", 3, 4)
    message = refusal("...bih,oih->...boh|h", (3, 5), (4, 3, 3))
    mentions(without(message, "...bih,oih->...boh|h"), 0, "...bih", 2)


def test_a_letter_of_the_output_that_no_operand_has():
    equation = "bih,oih->bxoh|h"
    mentions(without(refusal(equation, (2, 3, 5), (4, 3, 3)), equation), "x")


def test_a_letter_twice_in_one_operand():
    equation = "bih,oohi->boh|h"
    mentions(without(refusal(equation, (2, 3, 5), (4, 4, 3, 3)), equation), "o", 1)
    equation = "ii->i"  # a diagonal of unequal sides
    mentions(without(refusal(equation, (2, 3)), equation), "i", 0)


def test_a_letter_twice_in_the_output():
    equation = "bih,oih->bohb|h"
    mentions(without(refusal(equation, (2, 3, 5), (4, 3, 3)), equation), "b")


class TestConvolvedModes:
    def test_in_no_operand(self):
        equation = "bih,oih->boh|hw"
        mentions(without(refusal(equation, (2, 3, 5), (4, 3, 3)), equation), "w")

    def test_missing_from_the_output(self):
        equation = "bihw,oihw->boh|hw"
        mentions(without(refusal(equation, (2, 3, 5, 5), (4, 3, 3, 3)), equation), "w")

    def test_carried_by_one_operand_only(self):
        equation = "bihw,oih->bohw|hw"
        mentions(without(refusal(equation, (2, 3, 5, 5), (4, 3, 3)), equation), "w", 0)

    def test_of_a_single_operand(self):
        equation = "bh->bh|h"
        mentions(without(refusal(equation, (2, 5)), equation), "h")

    @pytest.mark.parametrize("option", ["stride", "padding", "dilation"])
    @pytest.mark.parametrize("mode", ["b", "x", "", "hw", "|", 0, None])
    def test_named_in_an_option_without_being_convolved(self, option, mode):
        equation = "bih,oih->boh|h"
        message = refusal(equation, (2, 3, 5), (4, 3, 3), **{option: {mode: 1}})
        mentions(without(message, equation), option)
        assert repr(mode) in message or str(mode) in message

    @pytest.mark.parametrize("option", [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"padding": "same"}])
    def test_an_option_without_any(self, option):
        equation = "ij,jk->ik"
        mentions(without(refusal(equation, (2, 3), (3, 4), **option), equation), *option)


class TestSizes:
    def test_that_disagree(self):
        equation = "bih,oih->boh|h"
        message = without(refusal(equation, (2, 3, 5), (4, 7, 3)), equation)
        mentions(message, "i", 0, 1, 3, 7)

    def test_that_disagree_in_an_ordinary_einsum(self):
        message = without(refusal("ij,jk,kl->il", (2, 3), (3, 4), (6, 5)), "ij,jk,kl->il")
        mentions(message, "k", 1, 2, 4, 6)

    def test_that_disagree_in_an_ellipsis(self):
        message = without(refusal("...ij,...jk->...ik", (5, 2, 3), (4, 3, 2)), "...ij,...jk->...ik")
        mentions(message, 0, 1, 5, 4)

    def test_batch_modes_of_a_convolution(self):
        message = without(refusal("bgh,goh->bgoh|h", (2, 3, 5), (2, 4, 3)), "bgh,goh->bgoh|h")
        mentions(message, "g", 0, 1, 3, 2)


class TestOptions:
    equation = "bih,oih->boh|h"
    shapes = ((2, 3, 6), (4, 3, 3))

    def refusal(self, **options):
        assert judge(self.equation, self.shapes, **options).refused
        (name,) = options if len(options) == 1 else ("padding",)
        message = without(refusal(self.equation, *self.shapes, **options), self.equation)
        mentions(message, name)
        return message

    @pytest.mark.parametrize("value", [0, -1, 1.5, "2", "same", None, True, (2,), (1, 1), [2], float("nan"), 2.0])
    @pytest.mark.parametrize("name", ["stride", "dilation"])
    def test_of_which_each_must_be_a_positive_integer(self, name, value):
        for option in (value, {"h": value}):
            message = self.refusal(**{name: option})
            mentions(message, repr(value))

    def test_a_dict_names_the_mode(self):
        mentions(self.refusal(stride={"h": 0}), "h", 0)

    @pytest.mark.parametrize("value", [-1, -7, "SAME", "circular", "", 0.5, None, True])
    def test_padding(self, value):
        for option in (value, {"h": value}):
            message = self.refusal(padding=option)
            mentions(message, repr(value))

    @pytest.mark.parametrize("value", [(1, -1), (-2, 0), (1,), (1, 2, 3), (), ("same", 1), (0.5, 1)])
    def test_padding_pairs(self, value):
        self.refusal(padding={"h": value})

    @pytest.mark.parametrize("value", [(1, 1), [1, 1], (0, 0)])
    def test_a_padding_pair_outside_a_dict(self, value):
        mentions(self.refusal(padding=value), repr(value), "pair", "mode")

    def test_same_with_a_stride(self):
        for stride in (2, {"h": 3}):
            for padding in ("same", {"h": "same"}):
                mentions(self.refusal(stride=stride, padding=padding), "same", "stride", "h")

    def test_same_with_a_stride_on_one_mode_only(self):
        equation = "bihw,oihw->bohw|hw"
        message = refusal(equation, (2, 3, 6, 6), (4, 3, 3, 3), stride={"w": 2}, padding="same")
        mentions(without(message, equation), "w", "same", "stride")

    @pytest.mark.parametrize("value", ["reflect", "replicate", "", None, "ZEROS", 0])
    def test_padding_mode(self, value):
        message = without(refusal(self.equation, *self.shapes, padding_mode=value), self.equation)
        mentions(message, "padding_mode", repr(value), "zeros", "circular")

    @pytest.mark.parametrize(
        ("good", "bad"),
        [
            ({"stride": 1}, {"stride": True}),
            ({"stride": {"h": 1}}, {"stride": {"h": 1.0}}),
            ({"padding": 0}, {"padding": False}),
            ({"padding": {"h": (1, 0)}}, {"padding": {"h": (True, 0.0)}}),
            ({"dilation": 2}, {"dilation": 2.0}),
            ({"memory_limit": 1000}, {"memory_limit": 1000.0}),
            ({"optimize": False}, {"optimize": 0}),
            ({"optimize": [(0, 1)]}, {"optimize": [(False, True)]}),
        ],
    )
    def test_what_equals_a_good_value_is_not_taken_from_a_cache(self, good, bad):
        conv_einsum(self.equation, *map(torch.ones, self.shapes), **good)
        refusal(self.equation, *self.shapes, **bad)
        operands = [torch.ones(shape) for shape in self.shapes]
        refusal_of(self.equation, *operands, **bad)

    def test_an_unknown_option_is_a_type_error(self):
        with pytest.raises(TypeError):
            conv_einsum(self.equation, *map(torch.ones, self.shapes), strides=1)


class TestEmptyResults:
    def test_the_kernel_stands_first(self):
        message = without(refusal("oih,bih->boh|h", (4, 3, 3), (2, 3, 6)), "oih,bih->boh|h")
        mentions(message, "h", 0, 3, 6)
        assert "order" in message or "first" in message, "the usual cause, `W, x` for `x, W`, is not named"

    def test_kernels_reach_beyond_the_feature_together(self):
        refusal("h,h,h->h|h", (4,), (3,), (3,))

    def test_dilation(self):
        refusal("h,h->h|h", (4,), (3,), dilation=2)

    def test_in_one_mode_of_two(self):
        message = without(refusal("hw,hw->hw|hw", (4, 4), (2, 5)), "hw,hw->hw|hw")
        mentions(message, "w", 4, 5)

    def test_circular(self):
        refusal("h,h->h|h", (2,), (5,), padding=1, padding_mode="circular")


class TestTensors:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (torch.float32, torch.float64),
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float16),
            (torch.complex64, torch.float32),
            (torch.float32, torch.complex128),
        ],
    )
    def test_mixed_dtypes(self, first, second):
        x, w = torch.ones(2, 3, 5, dtype=first), torch.ones(4, 3, 3, dtype=second)
        message = refusal_of("bih,oih->boh|h", x, w)
        mentions(message, str(first).removeprefix("torch."), str(second).removeprefix("torch."), 0, 1)

    def test_mixed_devices(self):
        x, w = torch.ones(2, 3, 5), torch.ones(4, 3, 3, device="meta")
        mentions(refusal_of("bih,oih->boh|h", x, w), "cpu", "meta", 0, 1)

    @pytest.mark.parametrize("operands", [3, 4])
    def test_mixed_far_down_the_list(self, operands):
        tensors = [torch.ones(2, 2) for _ in range(operands)]
        tensors[-1] = tensors[-1].double()
        equation = ",".join(["ij", "jk", "kl", "lm"][:operands]) + "->i"
        mentions(refusal_of(equation, *tensors), "float32", "float64", operands - 1)

    def test_mixed_dtypes_of_an_expression(self):
        expression = conv_einsum_expression("bih,oih->boh|h", (2, 3, 5), (4, 3, 3))
        with pytest.raises(ConvEinsumError, match="float64"):
            expression(torch.ones(2, 3, 5), torch.ones(4, 3, 3, dtype=torch.float64))


class TestOptimize:
    equation = "bih,rih,or->boh|h"
    shapes = ((2, 3, 5), (2, 3, 3), (4, 2))

    @pytest.mark.parametrize(
        "optimize",
        [
            "fastest",
            "",
            [],
            [(0, 1)],
            [(0, 1), (0, 1), (0, 1)],
            [(0, 3), (0, 1)],
            [(0, 1), (0, 2)],
            [(0, 0), (0, 1)],
            [(-4, 0), (0, 1)],
            [(0, 1.5), (0, 1)],
            [(0, "1"), (0, 1)],
            ["01", "01"],
            [0, 1],
            [(0,), (0,), (0,)],
            [(), (0, 1)],
            [None, (0, 1)],
            3,
            3.5,
            object(),
            {"h": (0, 1)},
        ],
        ids=described,
    )
    def test_that_is_no_optimizer_and_no_path(self, optimize):
        message = refusal(self.equation, *self.shapes, optimize=optimize)
        assert "optimize" in message or "path" in message, message
        if isinstance(optimize, str):
            mentions(message, repr(optimize))

    @pytest.mark.parametrize(
        "optimize",
        ["auto", "optimal", "dp", "greedy", "branch-2", "random-greedy", "measure", False, [(1, 2), (0, 1)]],
        ids=str,
    )
    @pytest.mark.parametrize("limit", [1, 10, 2 * 4 * 3 - 1])
    def test_a_memory_limit_that_no_path_fits(self, optimize, limit):
        """The result alone has 2 * 4 * 3 elements."""
        message = refusal(self.equation, *self.shapes, optimize=optimize, memory_limit=limit)
        mentions(message, "memory_limit", limit)

    @pytest.mark.parametrize(
        "optimize",
        [
            *("auto", "optimal", "dp", "greedy", "branch-2", "random-greedy", False, [(1, 2), (0, 1)]),
            opt_einsum.RandomGreedy(),
            opt_einsum.DynamicProgramming(),
        ],
        ids=described,
    )
    def test_a_memory_limit_that_the_result_fits_but_no_path(self, optimize):
        message = refusal("ij,jk,kl->il", (1, 9), (9, 9), (9, 1), optimize=optimize, memory_limit=8)
        mentions(message, "memory_limit", 8)

    @pytest.mark.parametrize("limit", [0, -5, "much", 1.5, "max_output", True])
    def test_a_memory_limit_that_is_none(self, limit):
        mentions(refusal(self.equation, *self.shapes, memory_limit=limit), "memory_limit")


class TestExpressionsAndPaths:
    equation = "bih,oih->boh|h"

    def test_plan_like_the_call(self):
        """What the call refuses, planning refuses too."""
        for call in (conv_einsum_expression, conv_einsum_path):
            options = {"shapes": True} if call is conv_einsum_path else {}
            with pytest.raises(ConvEinsumError, match=re.escape(self.equation)):
                call(self.equation, (2, 3, 5), (4, 7, 3), **options)
            with pytest.raises(ConvEinsumError, match="stride"):
                call(self.equation, (2, 3, 5), (4, 3, 3), stride=0, **options)
            with pytest.raises(ConvEinsumError):
                call(self.equation, (2, 3, 5), **options)
            with pytest.raises(ConvEinsumError):
                call("bih,oih->bo|h", (2, 3, 5), (4, 3, 3), **options)
            with pytest.raises(ConvEinsumError):
                call(self.equation, (2, 3, -5), (4, 3, 3), **options)

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_an_expression_called_with_too_few_or_too_many(self, count):
        expression = conv_einsum_expression(self.equation, (2, 3, 5), (4, 3, 3))
        with pytest.raises(ConvEinsumError, match=re.escape(self.equation)) as caught:
            expression(*[torch.ones(2, 3, 5)] * count)
        mentions(without(str(caught.value), self.equation), 2, count)

    def test_an_expression_called_with_another_shape(self):
        expression = conv_einsum_expression(self.equation, (2, 3, 5), (4, 3, 3))
        with pytest.raises(ConvEinsumError, match=re.escape(self.equation)):
            expression(torch.ones(2, 4, 5), torch.ones(4, 3, 3))
        with pytest.raises(ConvEinsumError, match=re.escape(self.equation)):
            expression(torch.ones(2, 3), torch.ones(4, 3, 3))

    @pytest.mark.parametrize("constants", [[2], [-3], [0.5], ["0"]])
    def test_constants_that_are_no_operands(self, constants):
        with pytest.raises(ConvEinsumError, match="constants"):
            conv_einsum_expression(self.equation, (2, 3, 5), torch.ones(4, 3, 3), constants=constants)

    def test_a_constant_without_a_tensor(self):
        with pytest.raises(ConvEinsumError, match="constant"):
            conv_einsum_expression(self.equation, (2, 3, 5), (4, 3, 3), constants=[1])

    @pytest.mark.parametrize("reuse", [0, -1, 1.5, "2"])
    def test_reuse(self, reuse):
        with pytest.raises(ConvEinsumError, match="reuse"):
            conv_einsum_expression(self.equation, (2, 3, 5), (4, 3, 3), reuse=reuse)
        with pytest.raises(ConvEinsumError, match="reuse"):
            conv_einsum_path(self.equation, (2, 3, 5), (4, 3, 3), shapes=True, reuse=reuse)


def test_the_first_bad_thing_is_not_hidden_by_the_last():
    """Operands on the meta device do no work either, and are refused alike."""
    operands = torch.ones(2, 3, 5, device="meta"), torch.ones(4, 7, 3, device="meta")
    with pytest.raises(ConvEinsumError, match="7"):
        conv_einsum("bih,oih->boh|h", *operands)


@pytest.mark.parametrize("equation", [3, None, b"ij,jk->ik"])
def test_an_equation_that_is_no_string(equation: object) -> None:
    with pytest.raises(ConvEinsumError, match="the equation must be a string"):
        conv_einsum(equation, torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize("options", [{"stride": 2**70}, {"dilation": 2**40}, {"padding": 10**12}])
def test_numbers_that_pytorch_cannot_take(options: dict) -> None:
    with pytest.raises(ConvEinsumError, match="must be at most"):
        conv_einsum("bihw,oihw->bohw|hw", torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3), **options)


def test_bind_takes_a_mapping() -> None:
    expression = conv_einsum_expression("ij,jk->ik", (2, 2), (2, 2))
    with pytest.raises(ConvEinsumError, match="bind takes a mapping"):
        expression.bind(torch.ones(2, 2))


def test_expressions_cannot_ask_shapes_for_their_gradients() -> None:
    with pytest.raises(ConvEinsumError, match="train must be True, False or operand numbers"):
        conv_einsum_expression("ij,jk->ik", (2, 3), (3, 4), train=None)
