"""Columns of a run: what is known of each particle that has a latent.

Owns: latents, their precision, clusters and embeddings by name, and columns of the user's own
files. Does not own: the files' formats (`frazil.runs`, `frazil.io`), columns of the particles
(`frazil.analysis.table_columns`).
"""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.analysis.expression import Column
from frazil.analysis.latents import load_latents
from frazil.analysis.table_columns import as_column, coded
from frazil.engines.pca.mixture_files import ARRAYS
from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.pickles import read_all_pickles, read_pickle
from frazil.runs.folder import Run

_NUMBERED = re.compile(r"(z|logvar|precision|deviation|umap|responsibility)(\d+)")
_CLUSTERS = re.compile(r"(kmeans|mixture)\d+")


class RunColumns:
    """Columns of an epoch of a run, each (n,), in the order of its latents.

    z0 .. : latent means. logvar0 .. : their log variances (of z.N.pkl). precision0 .. and
    deviation0 .. : of train_pca, the diagonal of each particle's precision matrix, and the
    deviation that it leaves the latent. contrast: of train_pca. mixture, responsibility0 .. : of
    frazil mixture. kmeansK, mixtureM: labels of analyze, from 0; cluster is the one there is.
    umap0, umap1.
    """

    def __init__(self, run: Run, epoch: int | None = None) -> None:
        self.run = run
        self.latents = load_latents(run, epoch)

    def __len__(self) -> int:
        return len(self.latents.rows)

    def names(self) -> list[str]:
        """Return the names of the columns there are."""
        names = [f"z{k}" for k in range(self.latents.z.shape[1])]
        for base, values in self._wide.items():
            names += [f"{base}{k}" for k in range(values.shape[1])]
        return [*names, *self._single, *self._labels, *(["cluster"] if self._labels else [])]

    def get(self, name: str) -> Column | None:
        """Return a column (n,); None when there is none of this name."""
        if name == "cluster":
            return self._cluster()
        if name in self._labels:
            return self._array(self._labels[name])
        if name in self._single:
            return self._single[name]
        found = _NUMBERED.fullmatch(name)
        values = {"z": self.latents.z, **self._wide}.get(found[1]) if found else None
        if found is None or values is None or int(found[2]) >= values.shape[1]:
            return None
        return values[:, int(found[2])]

    @cached_property
    def _folder(self) -> Path:
        return self.run.path / f"analyze.{self.latents.epoch}"

    @cached_property
    def _labels(self) -> dict[str, Path]:
        """Labels by the name of their folder."""
        found = sorted(self._folder.glob("*/labels.npy"))
        return {p.parent.name: p for p in found if _CLUSTERS.fullmatch(p.parent.name)}

    @cached_property
    def _wide(self) -> dict[str, NDArray[Any]]:
        """Columns of several numbers, without the latents."""
        wide = {}
        pickle = self.run.latents_path(self.latents.epoch, "pkl")
        if pickle.is_file():
            parts = read_all_pickles(pickle)
            if len(parts) > 1:
                wide["logvar"] = self._checked(np.asarray(parts[1]), pickle)
        precisions = self.run.path / "precisions.npy"
        if precisions.is_file():
            matrices = self._array(precisions)
            wide["precision"] = np.diagonal(matrices, axis1=1, axis2=2)
            left = np.linalg.inv(matrices.astype(np.float64))
            wide["deviation"] = np.sqrt(np.diagonal(left, axis1=1, axis2=2))
        if (self._folder / "umap.npy").is_file():
            wide["umap"] = self._array(self._folder / "umap.npy")
        if self._mixture is not None:
            wide["responsibility"] = self._mixture[1]
        return wide

    @cached_property
    def _single(self) -> dict[str, NDArray[Any]]:
        """Columns of one number."""
        single = {}
        if (self.run.path / "contrast.npy").is_file():
            single["contrast"] = self._array(self.run.path / "contrast.npy")
        if self._mixture is not None:
            single["mixture"] = self._mixture[0]
        return single

    @cached_property
    def _mixture(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Labels (n,) and responsibilities (n, M) of the run's mixture."""
        path = self.run.path / ARRAYS
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                return (
                    self._checked(file["labels"], path),
                    self._checked(file["responsibilities"], path),
                )
        except (ValueError, KeyError, EOFError, OSError) as error:
            raise CorruptDataError(f"{path}: {error}; run frazil mixture again") from error

    def _cluster(self) -> Column | None:
        """Return the labels when there is one kind of clusters."""
        if len(self._labels) > 1:
            raise InputError(
                f"{self._folder}: holds {', '.join(self._labels)}; name one of them, not cluster"
            )
        return next((self._array(path) for path in self._labels.values()), None)

    def _array(self, path: Path) -> NDArray[Any]:
        """Return an array of n rows that the run holds."""
        return self._checked(load_array(path), path)

    def _checked(self, values: NDArray[Any], path: Path) -> NDArray[Any]:
        if values.ndim == 0 or len(values) != len(self):
            raise CorruptDataError(
                f"{path}: of shape {values.shape}, but epoch {self.latents.epoch} has {len(self)} "
                "latents; run the command that writes it again"
            )
        return values


class GivenColumns:
    """Columns of the user's own files, NAME=FILE: .npy, .pkl (its first object) or .txt.

    A file of k numbers per row gives NAME0 .. , too.

    Parameters
    ----------
    count : rows that each file must have.
    of_what : whose rows those are, for messages.
    """

    def __init__(self, given: Sequence[str], count: int, of_what: str) -> None:
        self._columns: dict[str, Column] = {}
        for text in given:
            name, equals, file = text.partition("=")
            if not (name and equals and file):
                raise InputError(f"--column {text}: NAME=FILE is wanted, e.g. score=score.npy")
            column = _read_column(Path(file))
            length = len(column) if isinstance(column, np.ndarray) else len(column.codes)
            if length != count:
                raise InputError(
                    f"--column {text}: {length} rows, but {of_what} has {count}; one value per "
                    "particle is wanted, in its order"
                )
            self._columns[name] = column
            if isinstance(column, np.ndarray) and column.ndim == 2:
                for k in range(column.shape[1]):
                    self._columns[f"{name}{k}"] = column[:, k]

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return list(self._columns)

    def get(self, name: str) -> Column | None:
        """Return a column; None when there is none of this name."""
        return self._columns.get(name)


def load_array(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file; CorruptDataError when it is none."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptDataError(f"{path}: is not a whole .npy file ({error})") from error
    return array


def _read_column(path: Path) -> Column:
    """Return the values in a file, whatever their number."""
    if path.suffix == ".pkl":
        values = np.asarray(read_pickle(path))
    elif path.suffix == ".npy":
        values = load_array(path)
    elif path.suffix == ".txt":
        return _text_column(path)
    else:
        raise InputError(f"--column {path}: a .npy, .pkl or .txt file is wanted")
    if values.ndim not in (1, 2) or values.dtype.kind not in "biufSU":
        raise InputError(
            f"--column {path}: one value per particle is wanted, found {values.dtype} "
            f"of shape {values.shape}"
        )
    return as_column(values)


def _text_column(path: Path) -> Column:
    """Return the lines of a text file: numbers where all are, else texts."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    lines = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    try:
        rows = np.array([[float(word) for word in line.split()] for line in lines])
    except ValueError:
        return coded(lines)
    return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
