"""The table, and the command that prints it."""

import subprocess
import sys

import pytest

from tt_conv import conv_einsum_path
from tt_conv.applications.commands.explain import explain_equation, words_of_explain
from tt_conv.applications.commands.main import main

CP = "bihw,or,ir,hr,wr->bohw|hw"


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["explain", *words])
    return capsys.readouterr().out


def test_the_table_says_what_the_numbers_say() -> None:
    shapes = [(8, 64, 32, 32), (128, 16), (64, 16), (3, 16), (3, 16)]
    _, info = conv_einsum_path(CP, *shapes, shapes=True, padding="same", train=True)
    table = str(info)
    # 8 * 32 * 32 positions; 64 * 16, 3 * 16, 3 * 16, 16 * 128 products at each.
    assert info.opt_cost == 8192 * 16 * (64 + 3 + 3 + 128)
    assert info.training_cost == 3 * info.opt_cost
    assert info.largest_intermediate == 8192 * 128
    assert info.steps[0].bytes == 4 * (8192 * 64 + 64 * 16 + 8192 * 16)
    for number in (info.opt_cost, info.training_cost, info.largest_intermediate, info.steps[0].bytes):
        assert f"{number:,}" in table
    assert f"{info.naive_cost:.3e}" in table
    assert info.speedup == info.naive_cost / info.opt_cost
    for step in info.steps:
        assert step.operation in table
        assert f"{step.macs:,}" in table
        assert f"{step.elements:,}" in table
    assert table.count("1x1 conv2d") == 2
    assert not any(line.endswith(" ") for line in table.splitlines())
    assert max(map(len, table.splitlines())) < 100


def test_bytes_follow_the_type() -> None:
    import torch

    shapes = [(2, 3), (3, 4)]
    for dtype, size in ((torch.float64, 8), (torch.bfloat16, 2)):
        _, info = conv_einsum_path("ij,jk->ik", *(torch.ones(s, dtype=dtype) for s in shapes))
        assert info.steps[0].bytes == size * (6 + 12 + 8)


def test_explain_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = [(2, 3, 9, 9), (4, 2), (3, 2), (3, 2), (3, 2)]
    sizes = [",".join(map(str, shape)) for shape in shapes]
    for options, words in (
        ({"padding": "same"}, ["--padding", "same"]),
        ({"padding": {"h": (1, 2), "w": "full"}, "stride": {"h": 2}}, ["--padding=h=1:2,w=full", "--stride=h=2"]),
        ({"dilation": 2, "padding_mode": "circular"}, ["--dilation", "2", "--padding_mode", "circular"]),
        ({"optimize": False, "train": True}, ["--optimize", "left-to-right", "--train", "true"]),
        ({"constants": [1, 2, 3, 4]}, ["--constants", "1,2,3,4"]),
        ({"reuse": 9, "memory_limit": 10**6}, ["--reuse", "9", "--memory_limit", "1000000"]),
    ):
        expected = str(conv_einsum_path(CP, *shapes, shapes=True, **options)[1])
        assert explain(capsys, CP, "--sizes", *sizes, *words) == expected + "\n"
        assert explain(capsys, "--equation", CP, *words, "--sizes", " ".join(sizes)) == expected + "\n"


def test_words() -> None:
    assert words_of_explain(["a->a", "--sizes", "2", "3x4", "--stride", "2"]) == [
        "--equation=a->a",
        "--sizes",
        "2 3x4",
        "--stride",
        "2",
    ]
    assert words_of_explain(["->"]) == ["--equation=->"]
    assert words_of_explain(["--help"]) == ["--help"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ij,jk->ik", "--sizes", "2,3", "4,5"], "operands 0 and 1 disagree on mode 'j': sizes 3 and 4"),
        (["ij,jk->ix", "--sizes", "2,3", "3,5"], "character 9: 'x'"),
        (["ij,jk->ik"], "there are no sizes"),
        (["ij,jk->ik", "--sizes", "2,3", "3,b"], "sizes: 'b' is not a whole number"),
        (["ij,jk->ik", "--sizes", "2,3", "3,4", "--stride", "2"], "convolves no mode"),
        (["ih,oh->ioh|h", "--sizes", "2,9", "3,4", "--stride", "x"], "stride: 'x'"),
        (["ih,oh->ioh|h", "--sizes", "2,9", "3,4", "--padding", "some"], "'some'"),
        (["ij,jk->ik", "--sizes", "2,3", "3,4", "--optimize", "fast"], "optimize='fast'"),
        (["ij,jk->ik", "--sizes", "2,3", "3,4", "--constants", "7"], "constants"),
        (["ij,jk->ik", "--sizes", "2,3", "3,4", "--optimize", "[(0, 1"], "is no path"),
        (["ij,jk->ik", "--sizes", "2,3", "3,4", "--optimize", "[(0, 5)]"], "distinct positions from 0 to 1"),
        (["ij,jk,kl->il", "--sizes", *["1000000,1000000"] * 3, "--optimize", "measure"], "give smaller sizes"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["explain", *words])
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1


def test_help_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from tt_conv.applications.commands.main import main\n"
        "try: main(['explain', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--sizes" in result.stdout
    assert result.stdout.splitlines()[-1] == "False"


def test_a_mode_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names a mode twice"):
        explain_equation("bihw,oihw->bohw|hw", "1,2,8,8 3,2,3,3", stride="h=1,h=2")


@pytest.mark.parametrize("sizes", ["(2,3) (3,4)", "2x3 [3,4]", "(2, 3) (3, 4)", "[2,3],[3,4]", "2,3;3,4"])
def test_shapes_may_be_copied_from_anywhere(sizes: str) -> None:
    assert explain_equation("ij,jk->ik", sizes) == explain_equation("ij,jk->ik", "2,3 3,4")


def test_a_path_may_be_given() -> None:
    _, info = conv_einsum_path("ij,jk,kl->il", (2, 3), (3, 4), (4, 5), shapes=True, optimize=[(1, 2), (0, 1)])
    assert explain_equation("ij,jk,kl->il", "2,3 3,4 4,5", optimize="[(1, 2), (0, 1)]") == str(info)


def test_the_memory_limit_may_be_the_largest_input(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "ij,jk->ik", "--sizes", "(2, 3)", "(3, 4)", "--memory_limit", "max_input"])
    assert capsys.readouterr().out.rstrip() == explain_equation("ij,jk->ik", "2,3 3,4").rstrip()
