"""Choosing particles: conditions, combinations of selections, and random draws.

Owns: which particles settings choose, the account of it, and the files. Does not own: columns
(`particle_set`), the language of conditions (`expression`), file formats (`frazil.io`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frazil.analysis.expression import Column, Words, evaluate
from frazil.analysis.particle_set import ParticleSet, open_set
from frazil.analysis.select_settings import SelectSettings
from frazil.errors import InputError
from frazil.io.atomic import write_npy_atomic, write_text_atomic
from frazil.io.pickles import write_pickle
from frazil.io.selection_file import Selection, is_selection, write_selection
from frazil.io.selections import random_rows
from frazil.runs.folder import make_folder

SUFFIXES = (".sel", ".pkl", ".npy", ".txt")
_MOST_STRATA = 50
_BINS = 10


def select(
    settings: SelectSettings,
    out: Path,
    rest: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Choose particles and write them; says how many of how many, and what was not known.

    Parameters
    ----------
    out : .sel for identities; .pkl (as cryoDRGN's), .npy or .txt for rows of the file or store.
    rest : where to write the particles that were not chosen.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : what is wrong with an input or an option;
        nothing is written then.
    """
    outputs = _outputs(settings, out, rest)
    there = open_set(
        Path(settings.source),
        settings.places(),
        settings.epoch,
        settings.columns,
        say,
    )
    passed = np.flatnonzero(conditions(settings, there))
    for name, lost in there.unknown.items():
        say(
            f"{name} is not known of {lost} of {there.count} particles: no comparison is true of "
            "them"
        )
    say(f"{there.origin}: {there.count} particles, {len(passed)} pass{_limits(settings)}")
    if not len(passed):
        raise InputError(f"{settings.source}: no particle is chosen; nothing was written")
    parts = drawn(settings, there, passed)
    if settings.count is not None or settings.fraction is not None:
        say(f"{len(parts[0])} of them drawn at random (seed {settings.seed})")
    if rest is not None:
        left = np.ones(there.count, np.bool_)
        left[parts[0]] = False
        parts.append(np.flatnonzero(left))
    for path, places in zip(outputs, parts, strict=True):
        rule = _rule(settings) + ("" if path != rest else "; those that were not chosen")
        _write(path, places, there, rule)
        say(f"{path}: {len(places)} particles" + _of_what(path, there))


def conditions(settings: SelectSettings, there: ParticleSet) -> NDArray[np.bool_]:
    """Return (n,) whether a particle passes --where, --and, --or and --not, in this order."""
    if settings.where is not None:
        passed = np.array(evaluate(settings.where, there, there.count))
    else:
        begins_full = bool(settings.also) or not settings.either
        passed = np.full(there.count, begins_full)
    for path in settings.also:
        passed &= there.selected(path)
    for path in settings.either:
        passed |= there.selected(path)
    for path in settings.never:
        passed &= ~there.selected(path)
    return passed


def drawn(
    settings: SelectSettings, there: ParticleSet, passed: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return the places that are drawn of those that passed, ascending: one list, or two halves.

    Without --stratify a seed gives the subset that cryoDRGN's select_random gives of as many rows.
    """
    chosen = passed
    strata = None if settings.stratify is None else _strata(settings.stratify, there, passed)
    if settings.count is not None or settings.fraction is not None:
        if strata is None:
            draw = random_rows(len(passed), settings.count, settings.fraction, settings.seed)
        else:
            wanted = settings.count or int(len(passed) * (settings.fraction or 0))
            draw = stratified(strata, wanted, settings.seed)
        chosen = passed[draw]
        strata = None if strata is None else strata[draw]
    if not settings.halves:
        return [chosen]
    if len(chosen) < 2:
        raise InputError(f"--halves: {len(chosen)} particle cannot be halved; choose more")
    strata = np.zeros(len(chosen), np.int64) if strata is None else strata
    first = np.zeros(len(chosen), np.bool_)
    first[stratified(strata, len(chosen) // 2, settings.seed)] = True
    return [chosen[first], chosen[~first]]


def stratified(strata: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` random places, ascending, with the same share of every stratum.

    Shares are whole numbers, by the largest remainder, so they differ from even ones by less than
    one particle.

    Parameters
    ----------
    strata : (n,) stratum of each particle, from 0.

    Raises
    ------
    InputError : more than there are, or none.
    """
    if not 1 <= count <= len(strata):
        raise InputError(f"-n {count}: must be from 1 to the {len(strata)} particles that pass")
    sizes = np.bincount(strata)
    exact = sizes * (count / len(strata))
    shares = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: count - int(shares.sum())]] += 1
    shuffled = np.random.RandomState(seed).permutation(len(strata))
    by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
    rank = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_stratum[rank < np.repeat(shares, sizes)])


def _strata(name: str, there: ParticleSet, passed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stratum of each particle that passed; unknown values are one of their own."""
    column: Column | None = there.get(name)
    if column is None:
        raise InputError(f"--stratify {name}: no such column; there are {', '.join(there.names())}")
    if isinstance(column, Words):
        return np.unique(column.codes[passed], return_inverse=True)[1]
    if column.ndim > 1:
        raise InputError(f"--stratify {name}: holds several numbers per particle")
    values = column[passed]
    distinct, strata = np.unique(values, return_inverse=True)
    if len(distinct) <= _MOST_STRATA:
        return strata
    known = np.isfinite(values)
    edges = np.quantile(values[known], np.arange(1, _BINS) / _BINS)
    return np.where(known, np.searchsorted(edges, values, side="right"), _BINS)


def _outputs(settings: SelectSettings, out: Path, rest: Path | None) -> list[Path]:
    """Return the files to write; their folder is made."""
    outputs = [out]
    if settings.halves:
        outputs = [out.with_name(f"{out.stem}_{half}{out.suffix}") for half in "ab"]
    if settings.halves and rest is not None:
        raise InputError(f"-s {rest}: not with --halves, which writes two files")
    draws = settings.halves or settings.count is not None or settings.fraction is not None
    if settings.stratify and not draws:
        raise InputError("--stratify: is for a random draw; give -n, --frac or --halves")
    if rest is not None:
        outputs.append(rest)
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise InputError(f"-s {rest}: is the file of -o; give it another name")
    for path in outputs:
        if path.suffix not in SUFFIXES:
            raise InputError(f"-o {path}: the name must end in {', '.join(SUFFIXES)}")
        make_folder(path.parent)
    return outputs


def _write(path: Path, places: NDArray[np.int64], there: ParticleSet, rule: str) -> None:
    """Write some of the particles of a set, as identities or as rows."""
    if not len(places):
        raise InputError(f"{path}: no particle is left for it")
    if is_selection(there.path) and not is_selection(path):
        raise InputError(
            f"-o {path}: rows of which file? {there.origin} knows identities only; give the file "
            "or store as SRC, and the selection with --and"
        )
    rows = there.file_rows(places)
    if is_selection(path):
        chosen = there.identities(False).take(rows)
        write_selection(path, Selection(chosen, rule, there.origin, there.total))
    elif path.suffix == ".pkl":
        write_pickle(path, rows)
    elif path.suffix == ".npy":
        write_npy_atomic(path, rows)
    else:
        write_text_atomic(path, "\n".join(map(str, rows.tolist())) + "\n")


def _of_what(path: Path, there: ParticleSet) -> str:
    """Return what the numbers in a file mean."""
    return "" if is_selection(path) else f", as rows of {there.path}"


def _limits(settings: SelectSettings) -> str:
    """Return the conditions as they are told."""
    rule = _rule(settings)
    return f" ({rule})" if rule != "all" else ""


def _rule(settings: SelectSettings) -> str:
    """Return what chose the particles, as it is kept in the file."""
    parts = [settings.where] if settings.where else []
    for word, paths in (("and", settings.also), ("or", settings.either), ("not", settings.never)):
        parts += [f"--{word} {path}" for path in paths]
    if settings.fraction is not None or settings.count is not None:
        parts.append(
            f"-n {settings.count}" if settings.count is not None else f"--frac {settings.fraction}"
        )
    if settings.halves:
        parts.append("--halves")
    if settings.stratify:
        parts.append(f"--stratify {settings.stratify}")
    if len(parts) and parts[-1].startswith(("-n", "--frac", "--halves", "--stratify")):
        parts.append(f"--seed {settings.seed}")
    return " ".join(parts) or "all"
