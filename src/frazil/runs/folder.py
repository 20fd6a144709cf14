"""A run folder and the names in it.

Owns: config.json, the names of weights, latents and rows, and which files belong to a run. Does
not own: the content of checkpoints (`checkpoint`) and of the journal (`journal`).
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.atomic import write_npy_atomic, write_text_atomic

CONFIG_NAME = "config.json"
_OWN_FILES = re.compile(
    r"config\.json|metrics\.jsonl|rows\.npy|(checkpoint|pass)\.safetensors"
    r"|weights\.\d+\.safetensors|z\.\d+\.(npy|pkl)"
    # Of train_pca: what another run may not write again, and would be taken for its own.
    r"|component_\d+\.mrc|contrast\.npy|mixture\.(npz|json)|reliability\.(json|txt)"
)
_WEIGHTS = re.compile(r"weights\.(\d+)\.safetensors")


class Run:
    """One training run: its folder and the content of its config.json.

    Epochs count from 1. Latents are in the order of `rows()`.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], overwrite: bool = False) -> "Run":
        """Return a new run in folder `path`, which is made if it is not there.

        Parameters
        ----------
        config : what config.json will hold.
        overwrite : remove the files of an earlier run in this folder; other files stay.

        Raises
        ------
        InputError : the path is a file, or the folder holds a run and overwrite is False.
        """
        path = Path(path)
        make_folder(path)
        if is_run(path) and not overwrite:
            raise InputError(f"{path}: holds a run already; choose another folder or --overwrite")
        former = [file for file in path.iterdir() if _OWN_FILES.fullmatch(file.name)]
        if former and not overwrite:
            raise InputError(
                f"{former[0]}: would be removed, but its run has no {CONFIG_NAME}; choose another "
                "folder, or --overwrite"
            )
        for file in former:
            file.unlink()
        run = cls(path, config)
        run.write_config()
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Return the run of folder `path`.

        Raises
        ------
        MissingFileError : no such folder, or no config.json in it.
        CorruptDataError : config.json is not JSON.
        """
        path = Path(path)
        config_path = path / CONFIG_NAME
        if not config_path.is_file():
            raise MissingFileError(f"{path}: is not a run folder (it holds no {CONFIG_NAME})")
        return cls(path, read_config(config_path))

    @property
    def is_lazy(self) -> bool:
        """Whether "store" in config.json is a particle file, which was trained without packing."""
        settings = self.config.get("settings", {})
        return bool(settings.get("data", {}).get("lazy", False))

    @property
    def checkpoint_path(self) -> Path:
        """The latest whole state, from which training goes on."""
        return self.path / "checkpoint.safetensors"

    @property
    def journal_path(self) -> Path:
        """metrics.jsonl, one JSON object per line."""
        return self.path / "metrics.jsonl"

    def weights_path(self, epoch: int) -> Path:
        """The weights after an epoch."""
        return self.path / f"weights.{epoch}.safetensors"

    def latents_path(self, epoch: int, suffix: str = "npy") -> Path:
        """The latents of an epoch; suffix "pkl" is cryoDRGN's form."""
        return self.path / f"z.{epoch}.{suffix}"

    def latents(self, epoch: int) -> NDArray[np.float32]:
        """Return (n, Z) latent means of an epoch, in the order of `rows()`.

        Raises
        ------
        MissingFileError : no latents were written for this epoch.
        """
        return _load(self.latents_path(epoch), self)

    def rows(self) -> NDArray[np.int64]:
        """Return (n,) rows of the input that the latents belong to."""
        return _load(self.path / "rows.npy", self)

    def write_rows(self, rows: NDArray[np.int64]) -> None:
        """Write rows.npy."""
        write_npy_atomic(self.path / "rows.npy", rows)

    def write_config(self) -> None:
        """Write config.json."""
        text = json.dumps(self.config, indent=2, ensure_ascii=False) + "\n"
        write_text_atomic(self.path / CONFIG_NAME, text)

    def epochs(self) -> list[int]:
        """Return the epochs whose weights are there, in order."""
        found = (_WEIGHTS.fullmatch(file.name) for file in self.path.iterdir())
        return sorted(int(match.group(1)) for match in found if match)

    @property
    def last_epoch(self) -> int:
        """The last epoch whose weights are there.

        Raises
        ------
        MissingFileError : there are none yet.
        """
        epochs = self.epochs()
        if not epochs:
            raise MissingFileError(f"{self.path}: holds no weights.N.safetensors yet")
        return epochs[-1]


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises
    ------
    InputError : the path is a file.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; give another folder")
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold folder `path`, which is made if it is not there, against other processes that train.

    The kernel lets go when the process ends, however it ends; no file is left behind. A file
    system without locks is used without one.

    Raises
    ------
    InputError : another process holds it, or the path is a file.
    """
    make_folder(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InputError(
                    f"{path}: another process is training in it; wait for its end, or give "
                    "another folder"
                ) from error
        yield
    finally:
        os.close(descriptor)


def is_run(path: Path) -> bool:
    """Return whether the folder holds a run."""
    return (Path(path) / CONFIG_NAME).is_file()


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a config.json.

    Raises
    ------
    MissingFileError, CorruptDataError : not there, or not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a config.json of a run is wanted")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptDataError(f"{path}: is not JSON ({error}); restore or remove it") from error
    if not isinstance(config, dict):
        raise CorruptDataError(f"{path}: is not the configuration of a run")
    return config


def _load(path: Path, run: Run) -> NDArray[Any]:
    if not path.is_file():
        epochs = ", ".join(map(str, run.epochs())) or "none"
        raise MissingFileError(f"{path}: no such file; epochs with weights: {epochs}")
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptDataError(f"{path}: is not a whole .npy file ({error})") from error
    return array
