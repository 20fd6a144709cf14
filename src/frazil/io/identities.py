"""Which particle a row is, whatever file or order it stands in.

Owns: what identifies a particle (cryoSPARC's uid, or stack and index in it, and which of several
rows over one image it is) and finding particles by it. Does not own: the table
(`frazil.io.particles`), nor files of identities (`frazil.io.selection_file`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

_INDEX_BITS = 40
MOST_IMAGES = 1 << _INDEX_BITS
"""An index in a stack is below this."""


@dataclass(frozen=True, eq=False)
class Identities:
    """Identities of n particles; what is not known is None.

    Attributes
    ----------
    uid : (n,) uint64, distinct.
    source, index : (n,) stack, as a place in `sources`, and 0-based image in that stack.
    sources : paths of the stacks.
    copy : (n,) which of the rows over one image a row is, in the order of the file that it was
        taken from; None where every image has one row.
    rotation : (n, 3, 3) pose, which tells whether the rows over one image are in that order.
    """

    uid: NDArray[np.uint64] | None = None
    source: NDArray[np.integer] | None = None
    index: NDArray[np.integer] | None = None
    sources: tuple[str, ...] = ()
    copy: NDArray[np.integer] | None = None
    rotation: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        known = self.uid if self.uid is not None else self.source
        return 0 if known is None else len(known)

    @classmethod
    def of(
        cls,
        rows: NDArray[np.void],
        sources: Sequence[str],
    ) -> "Identities":
        """Return the identities of rows of PARTICLE_DTYPE, or of fewer of its columns."""
        names = rows.dtype.names or ()
        uid = distinct_uids(np.array(rows["uid"])) if "uid" in names else None
        source = np.array(rows["source"])
        index = np.array(rows["index"]).astype(np.int64)
        copy = occurrences(_image_keys(source, index))
        if not copy.any():
            return cls(uid, source, index, tuple(sources))
        rotation = np.array(rows["rotation"]) if "rotation" in names else None
        return cls(uid, source, index, tuple(sources), copy, rotation)

    def take(self, rows: NDArray[np.int64]) -> "Identities":
        """Return the identities of some rows; only stacks that they use are kept."""
        source: NDArray[np.integer] | None = None
        sources: tuple[str, ...] = ()
        if self.source is not None:
            used, source = np.unique(self.source[rows], return_inverse=True)
            sources = tuple(self.sources[number] for number in used.tolist())
        return Identities(
            None if self.uid is None else self.uid[rows],
            source,
            None if self.index is None else self.index[rows],
            sources,
            None if self.copy is None else self.copy[rows],
            None if self.rotation is None else self.rotation[rows],
        )


Identify = Callable[[bool], Identities]
"""Gives the identities of a set. True asks for stacks and indices; else uids alone will do."""


@dataclass(frozen=True, eq=False)
class Found:
    """Where wanted particles are in a set.

    Attributes
    ----------
    rows : (m,) rows of the set, each with the place in `wanted` of its particle. Several rows may
        belong to one particle.
    wanted : (m,) places in the list of wanted particles.
    missing : places of wanted particles that the set does not have, ascending.
    by : "uid" or "image".
    notes : lines worth telling the user.
    """

    rows: NDArray[np.int64]
    wanted: NDArray[np.int64]
    missing: NDArray[np.int64]
    by: str
    notes: tuple[str, ...] = ()


def find(wanted: Identities, there: Identities, all_copies: bool = False) -> Found | None:
    """Return where particles are in a set, None when the two have no kind of identity in common.

    By uid where both sides have it, else by image: stack and index. A stack that has another folder
    now is found by the end of its path, when that is unique, and a note says so. Of several rows
    over one image the same one is found; or all, when the wanted list does not tell them apart.

    Parameters
    ----------
    all_copies : find every row over the image of a wanted particle.
    """
    if wanted.uid is not None and there.uid is not None and not all_copies:
        return _found(wanted.uid, there.uid, "uid")
    if wanted.source is None or there.source is None:
        return None
    code, notes = match_sources(wanted.sources, there.sources)
    mine = _image_keys(code[wanted.source], wanted.index)
    theirs = _image_keys(there.source, there.index)
    mine[code[wanted.source] < 0] = -1
    if all_copies:
        distinct, first = np.unique(mine, return_index=True)
        found = _found(distinct, theirs, "image", notes)
        return Found(found.rows, first[found.wanted], first[found.missing], "image", notes)
    if wanted.copy is not None:
        copies = int(max(wanted.copy.max(), 0 if there.copy is None else there.copy.max())) + 1
        mine = np.where(mine < 0, -1, mine * copies + wanted.copy)
        theirs = theirs * copies + (0 if there.copy is None else there.copy)
    found = _found(mine, theirs, "image", notes)
    if wanted.copy is None and there.copy is not None and len(found.rows) > len(wanted):
        told = f"{len(found.rows)} rows over {len(wanted)} images: all rows of an image are taken"
        return Found(found.rows, found.wanted, found.missing, "image", (*notes, told))
    return found


def turned(wanted: Identities, there: Identities, found: Found) -> NDArray[np.int64]:
    """Return the places in `found` whose pose is another one than it was (to 1e-3).

    Of rows over one image this means that they are in another order, or were refined again.
    """
    if wanted.rotation is None or there.rotation is None or found.by == "uid":
        return np.empty(0, np.int64)
    before, now = wanted.rotation[found.wanted], there.rotation[found.rows]
    with np.errstate(invalid="ignore"):
        other = (np.abs(before - now) > 1e-3).any(axis=(1, 2))  # False where unknown
    return np.flatnonzero(other)


def distinct_uids(uid: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
    """Return the uids (n,), None when they do not identify: unknown (0), or one occurs twice."""
    if not len(uid) or not uid.all():
        return None
    ordered = np.sort(uid)
    return None if (ordered[1:] == ordered[:-1]).any() else uid


def occurrences(keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return for each key (n,) how many equal ones stand before it."""
    if (keys[1:] > keys[:-1]).all():
        return np.zeros(len(keys), np.int32)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    fresh = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    start = np.repeat(fresh, np.diff(np.append(fresh, len(keys))))
    count = np.empty(len(keys), np.int32)
    count[order] = np.arange(len(keys)) - start
    return count


def match_sources(
    wanted: Sequence[str], there: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the place in `there` of each wanted stack, -1 of none, and what to tell of moved ones.

    The same path matches first; then the longest end of a path (its last folders and the name) that
    is only once on either side.
    """
    code = np.full(len(wanted) + 1, -1, np.int64)  # the last place is for an unknown stack
    place = {path: number for number, path in enumerate(there)}
    for number, path in enumerate(wanted):
        code[number] = place.get(path, -1)
    taken = set(code.tolist())
    left = {n: PurePath(wanted[n]).parts for n in range(len(wanted)) if code[n] < 0}
    free = {n: PurePath(path).parts for n, path in enumerate(there) if n not in taken}
    longest = max(map(len, left.values()), default=0)
    moved: list[tuple[str, str]] = []
    for depth in range(longest, 0, -1):
        mine, theirs = _by_end(left, depth), _by_end(free, depth)
        for end, numbers in mine.items():
            others = theirs.get(end, [])
            if not others:
                continue
            if len(numbers) == len(others) == 1:
                code[numbers[0]] = others[0]
                moved.append((wanted[numbers[0]], there[others[0]]))
            for number in numbers:  # found, or not to be told apart
                del left[number]
            for number in others:
                del free[number]
    if not moved:
        return code, ()
    return code, (
        f"{len(moved)} of {len(wanted)} stacks are in another folder, and are known by the end of "
        f"their path: {moved[0][0]} is {moved[0][1]}",
    )


def _by_end(parts: dict[int, tuple[str, ...]], depth: int) -> dict[tuple[str, ...], list[int]]:
    """Return the numbers of paths by their last `depth` parts."""
    ends: dict[tuple[str, ...], list[int]] = {}
    for number, path in parts.items():
        if len(path) >= depth:
            ends.setdefault(path[-depth:], []).append(number)
    return ends


def _image_keys(
    source: NDArray[np.integer], index: NDArray[np.integer] | None
) -> NDArray[np.int64]:
    """Return one number for each image (n,)."""
    keys = source.astype(np.int64) << _INDEX_BITS
    return keys if index is None else keys + index.astype(np.int64)


def _found(
    wanted: NDArray[np.integer], there: NDArray[np.integer], by: str, notes: tuple[str, ...] = ()
) -> Found:
    """Return every row of `there` whose key is among the distinct keys `wanted`; rows ascend."""
    order = np.argsort(wanted, kind="stable")
    ordered = wanted[order]
    place = np.minimum(np.searchsorted(ordered, there), max(0, len(ordered) - 1))
    rows = np.flatnonzero(ordered[place] == there) if len(ordered) else np.empty(0, np.int64)
    matched = order[place[rows]]
    seen = np.zeros(len(wanted), bool)
    seen[matched] = True
    return Found(rows.astype(np.int64), matched, np.flatnonzero(~seen), by, notes)
