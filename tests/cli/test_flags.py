"""Flags made from settings: what the command line takes, says and refuses."""

import argparse
import errno
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from frazil.cli.flags import add_settings, read_settings
from frazil.cli.main import COMMANDS, main
from frazil.errors import InputError
from frazil.settings import Settings, option


class Example(Settings):
    """A struct with one field of every kind."""

    box_px: Annotated[int, option("-D", help="new box", unit="px", ge=2)]
    epochs: Annotated[int, option("-n", "--num-epochs", help="epochs", ge=1)] = 20
    rank: Annotated[int, option("--rank", help="first rank")] = 0
    scale: Annotated[float, option("--scale", help="scale", gt=0, le=10)] = 1.0
    window: Annotated[bool, option("--no-window", help="leave out the window")] = True
    lazy: Annotated[bool, option("--lazy", help="pack first")] = False
    radii: Annotated[tuple[float, ...], option("--radii", help="radii, 85 % of the box")] = (
        0.85,
        0.99,
    )
    order: Annotated[Literal["window-first", "crop-first"], option("--order", help="order")] = (
        "window-first"
    )
    subset: Annotated[Path | None, option("--ind", help="rows to keep", metavar="PKL")] = None
    maps: Annotated[tuple[str, ...], option("--map", help="old=new", repeat=True)] = ()
    internal: int = 3


class WithPositional(Settings):
    """A struct whose first field is a positional argument."""

    particles: Annotated[Path, option("particles", help="particle file")]
    count: Annotated[int, option("-n", help="how many")] = 5


class WithMap(Settings):
    """A struct whose repeated flag may come before the positional argument."""

    particles: Annotated[str, option("particles", help="particle file")]
    maps: Annotated[tuple[str, ...], option("--map", help="old=new", repeat=True)] = ()


def parser_of(settings: type[Settings] = Example) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="frazil test", allow_abbrev=False)
    add_settings(parser, settings)
    return parser


def read(*words: str) -> Example:
    return read_settings(parser_of().parse_args(words), Example)


def test_what_is_not_given_keeps_its_default():
    assert read("-D", "64") == Example(box_px=64)


def test_every_kind_of_value_is_read():
    words = "-D 64 --num-epochs 3 --rank 2 --scale 2.5 --radii 0.5 0.75 1 --order crop-first"
    given = read(*words.split(), "--ind", "rows.pkl", "--no-window", "--lazy")
    assert given == Example(
        box_px=64,
        epochs=3,
        rank=2,
        scale=2.5,
        radii=(0.5, 0.75, 1.0),
        order="crop-first",
        subset=Path("rows.pkl"),
        window=False,
        lazy=True,
    )


def test_short_and_long_flags_are_the_same():
    assert read("-D", "64", "-n", "3") == read("-D", "64", "--num-epochs", "3")


def test_a_bool_that_is_true_by_default_has_a_negative_flag():
    assert read("-D", "64").window
    assert not read("-D", "64", "--no-window").window


def test_a_repeated_flag_takes_one_value_each_time():
    assert read("-D", "64", "--map", "a=b", "--map", "c=d").maps == ("a=b", "c=d")
    assert parser_of(WithMap).parse_args(["--map", "a=b", "p.star"]).particles == "p.star"


def test_a_positional_argument_has_the_type_of_its_field():
    args = parser_of(WithPositional).parse_args(["stack.mrcs", "-n", "2"])
    assert read_settings(args, WithPositional) == WithPositional(
        particles=Path("stack.mrcs"), count=2
    )


@pytest.mark.parametrize(
    ("words", "flag", "bound"),
    [
        (["-D", "1"], "-D", "2"),
        (["-D", "64", "-n", "0"], "-n", "1"),
        (["-D", "64", "--num-epochs", "0"], "-n", "1"),
        (["-D", "64", "--scale", "0"], "--scale", "0"),
        (["-D", "64", "--scale", "11"], "--scale", "10"),
    ],
)
def test_a_value_out_of_range_names_the_flag_and_the_bound(words, flag, bound):
    with pytest.raises(InputError) as caught:
        read(*words)
    message = str(caught.value)
    assert message.startswith(f"{flag} ")
    assert bound in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-D", "64", "--nonsense"], "--nonsense"),
        (["-D", "64", "--internal", "4"], "--internal"),
        (["-D", "64", "--num-epoch", "4"], "--num-epoch"),
        (["-D", "sixty"], "-D"),
        (["-D", "64", "--order", "never"], "crop-first"),
        (["-D", "64", "--radii"], "--radii"),
        (["-D"], "-D"),
        ([], "-D"),
    ],
)
def test_what_cannot_be_parsed_exits_with_2_and_says_what(words, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        parser_of().parse_args(words)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def help_of(flag: str) -> str:
    """Return the part of the help text that belongs to one flag, on one line."""
    action = next(a for a in parser_of()._actions if flag in a.option_strings)
    formatter = argparse.HelpFormatter("frazil test")
    return " ".join(formatter._expand_help(action).split())


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("-D", "new box (px)"),
        ("-n", "epochs (default: 20)"),
        ("--rank", "first rank (default: 0)"),
        ("--scale", "scale (default: 1.0)"),
        ("--radii", "radii, 85 % of the box (default: 0.85 0.99)"),
        ("--order", "order (default: window-first)"),
        ("--no-window", "leave out the window"),
        ("--lazy", "pack first"),
        ("--ind", "rows to keep"),
    ],
)
def test_help_shows_unit_and_default(flag, text):
    assert help_of(flag) == text


def test_help_can_be_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        parser_of().parse_args(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "{window-first,crop-first}" in text
    assert "--ind PKL" in text


def test_the_program_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name, (_, help_line) in COMMANDS.items():
        assert f"  {name} " in text
        assert help_line in text


def test_no_command_at_all_shows_the_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["no_such_command"], ["--no-such-flag"]])
def test_an_unknown_command_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("; see frazil --help")
    assert "\n" not in error


@pytest.mark.parametrize(
    "words", ["select_random 10", "select_random 10 -n x -o i.pkl", "select_random 1 -o i.pkl -q"]
)
def test_wrong_arguments_of_a_command_are_one_line(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("frazil select_random: error: ")
    assert error.endswith("; see frazil select_random --help")
    assert "\n" not in error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 72.8 TiB"), "not enough memory (Unable to allocate 72.8"),
        (OSError(errno.EDQUOT, "quota", "a.pkl"), "no space left on the disk at a.pkl"),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "no"),
            "'a\\udcff': cannot be written as utf-8",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aa"), "aa: file name too long"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, said, monkeypatch, capsys):
    def fail(args: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr("frazil.cli.select_random.run", fail)
    assert main(["select_random", "10", "-n", "2", "-o", "i.pkl"]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line
    assert "\n" not in line


def test_output_that_nobody_reads_ends_the_program_without_a_word(tmp_path):
    command = [sys.executable, "-m", "frazil.cli.main", "select_random", "10", "-n", "2", "-o"]
    with subprocess.Popen(
        [*command, str(tmp_path / "i.pkl")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # as `| head` does
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


class Pair(Settings, frozen=True, kw_only=True):
    """A flag that takes exactly two values, before a positional argument."""

    stack: Annotated[str, option("stack", help="stack")]
    norm: Annotated[tuple[float, float] | None, option("--norm", help="shift and scale")] = None


def test_a_flag_of_two_values_leaves_the_positional_argument_alone():
    parser = argparse.ArgumentParser()
    add_settings(parser, Pair)
    args = parser.parse_args(["--norm", "0", "2.5", "a.mrcs"])
    assert read_settings(args, Pair) == Pair(stack="a.mrcs", norm=(0.0, 2.5))
