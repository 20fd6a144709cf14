"""The `frazil` program: finds the command, runs it, and turns errors into one line.

Owns: the table of commands and the exit codes (0 done, 2 wrong input or environment, 130
interrupted, 141 nobody reads the output). Does not own: any work; each command is a module of its
own, imported when asked.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from frazil import __version__
from frazil.errors import FrazilError

# name -> (module, help line)
COMMANDS = {
    "demo": ("demo", "simulate a small set, pack, train, and write volumes and a report"),
    "simulate": ("simulate", "write a particle set with known structures and poses"),
    "plan": ("plan", "say what packing and training will take, before anything is begun"),
    "import": ("import_particles", "say what is in a particle set, and write it as one file"),
    "preprocess": ("preprocess", "pack particles into a store, or into cryoDRGN's .ft.txt stacks"),
    "preflight": ("preflight", "check images, poses and CTF against each other before training"),
    "downsample": ("downsample", "Fourier-crop a stack or a volume"),
    "parse_pose_star": ("parse_pose_star", "write pose.pkl from a RELION .star file"),
    "parse_ctf_star": ("parse_ctf_star", "write ctf.pkl from a RELION .star file"),
    "parse_pose_csparc": ("parse_pose_csparc", "write pose.pkl from a cryoSPARC .cs file"),
    "parse_ctf_csparc": ("parse_ctf_csparc", "write ctf.pkl from a cryoSPARC .cs file"),
    "select_random": ("select_random", "write a random subset of particle indices"),
    "select": ("select", "choose particles by a condition on any column, by identity"),
    "export": ("export", "write a subset or new columns into the original .cs or .star"),
    "info": ("info", "say what is in a particle file, a store, a volume or a pickle"),
    "verify": ("verify", "check every byte of a store against its checksums"),
    "train_vae": ("train_vae", "train cryoDRGN's variational autoencoder"),
    "train_pca": ("train_pca", "fit principal volumes and latents in minutes, without a GPU"),
    "mixture": ("mixture", "tell discrete states apart in the latents of train_pca"),
    "eval_vol": ("eval_vol", "write volumes at points of the latent space"),
    "analyze": ("analyze", "embed and cluster latents, write volumes and a report"),
    "backproject_voxel": ("backproject_voxel", "write a consensus map with half maps and FSC"),
    "fsc": ("fsc", "Fourier shell correlation of two volumes"),
    "write_star": ("write_star", "write a RELION .star from particles, CTF, poses and a selection"),
    "filter_star": ("filter_star", "write chosen particles of a .star, all else byte for byte"),
    "filter_cs": ("filter_cs", "write chosen particles of a .cs, all columns"),
    "filter_pkl": ("filter_pkl", "write chosen rows of a pickle"),
    "concat_pkls": ("concat_pkls", "join the rows of several pickles"),
    "view_header": ("view_header", "print the header of a volume or stack"),
    "view_cs_header": ("view_cs_header", "print the columns and first row of a .cs"),
    "add_psize": ("add_psize", "set the pixel size in the header of a volume or stack"),
    "flip_hand": ("flip_hand", "mirror a volume to the other hand"),
    "invert_contrast": ("invert_contrast", "multiply a volume or stack by -1"),
    "phase_flip": ("phase_flip", "multiply particles by the sign of their CTF"),
    "translate_mrcs": ("translate_mrcs", "move particles by their shifts"),
    "gen_mask": ("gen_mask", "write a soft mask of a volume"),
}

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_THE_PATH = (
    errno.EACCES,
    errno.EEXIST,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EROFS,
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name not in COMMANDS:
        _top_parser().parse_args(arguments or ["--help"])
        return 2
    module = importlib.import_module(f"frazil.cli.{COMMANDS[name][0]}")
    parser = _Parser(
        prog=f"frazil {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    args = parser.parse_args(arguments[1:])
    try:
        module.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"frazil {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What is still buffered goes nowhere, or Python complains of it on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (FrazilError, OSError, MemoryError, UnicodeEncodeError) as error:
        message = _one_line(error)
        if message is None:
            raise
    else:
        return 0
    # Only now, when the traceback is gone, are all progress bars closed and the line is its own.
    print(f"frazil {name}: error: {message}", file=sys.stderr)
    return 2


def program() -> NoReturn:
    """Run the command of the command line, and leave at once with its exit code.

    All files are closed by then. Python's own way out would take torch's modules apart for a third
    of a second.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads, or the disk is full: said by now
            stream.flush()
    os._exit(code)


def _one_line(error: Exception) -> str | None:
    """Return what to say of an error that is the user's to mend; None for any other."""
    if isinstance(error, FrazilError):
        return str(error)
    if isinstance(error, MemoryError):
        reason = " ".join(str(error).split()) or "an array does not fit"
        return f"not enough memory ({reason}); use a machine with more"
    if isinstance(error, UnicodeEncodeError):
        text = ascii(error.object[:200])
        return f"{text}: cannot be written as {error.encoding}; rename the file"
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        where = f" at {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some and run again"
    if isinstance(error, OSError) and error.errno in _OF_THE_PATH:
        return f"{error.filename}: {str(error.strerror).lower()}"
    return None


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    parser = _Parser(
        prog="frazil",
        usage="frazil COMMAND [options]",
        description="Cryo-EM heterogeneous reconstruction for particle sets larger than memory.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nfrazil COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"frazil {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of these:")
    return parser


if __name__ == "__main__":
    program()
