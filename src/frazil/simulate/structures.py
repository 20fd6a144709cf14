"""Molecules as weighted points: read from PDB or mmCIF, or built in.

Owns: `Molecule`, its construction from a structure file (gemmi) and the built-in pseudo-atomic
molecules. Does not own: how the points move (`motions`) or become images (`images`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError, MissingFileError
from frazil.simulate.settings import Coarse

# Centre, half axes (Angstrom), points, domain.
Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float], int, int]


@dataclass(frozen=True)
class Molecule:
    """Weighted points of one molecule in its reference conformation.

    Attributes
    ----------
    positions : (A, 3) float64, Angstrom, (x, y, z), centre of mass at the origin.
    weights : (A,) float64, scattering weight of each point (electrons).
    domain : (A,) int64, part that each point belongs to; 0 is the core, always present.
    domain_names : name of each part.
    moving : (A,) bool, points chosen as the moving part of a hinge; all False when not chosen.
    """

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]
    domain: NDArray[np.int64]
    domain_names: tuple[str, ...]
    moving: NDArray[np.bool_]

    @property
    def radius_ang(self) -> float:
        """Largest distance of a point from the centre of mass, Angstrom."""
        return float(np.linalg.norm(self.positions, axis=1).max())


def read_structure(
    path: Path, coarse: Coarse = "residue", selection: str | None = None
) -> Molecule:
    """Return the molecule of the first model of a PDB or mmCIF file.

    Waters, hydrogens and alternative conformations are dropped. Atomic numbers times occupancy
    are the weights. Domains are the chains, heaviest first.

    Parameters
    ----------
    path : structure file, may be gzipped.
    coarse : "residue" gives one point per residue (its centre of mass and summed weight),
        "atom" one point per atom.
    selection : moving part in gemmi's selection syntax, e.g. "H,L/1-228" (chains H and L,
        residues 1 to 228) or "L" (a whole chain).

    Raises
    ------
    MissingFileError, InputError
        no such file; not a structure; no atoms; a selection that is malformed, empty or everything.
    """
    model = _first_model(path)
    chosen = _selected_atoms(model, selection, path)
    points: list[list[float]] = []
    owners: list[tuple[int, int]] = []  # (chain number, residue number) of each atom
    chains = []
    residues = 0
    for chain in model:
        chains.append(chain.name)
        for residue in chain:
            for atom in residue:
                weight = atom.element.atomic_number * atom.occ
                if weight > 0:
                    picked = float((chain.name, str(residue.seqid), atom.serial) in chosen)
                    points.append([*atom.pos.tolist(), weight, picked])
                    owners.append((len(chains) - 1, residues))
            residues += 1
    if not points:
        raise InputError(f"{path}: no atoms after dropping waters and hydrogens; give a structure")
    table = np.array(points)
    owner = np.array(owners, dtype=np.int64)
    if coarse == "residue":
        table, owner = _one_point_per_residue(table, owner)
    return _molecule_by_chain(table, owner[:, 0], tuple(chains))


def built_in_molecule() -> Molecule:
    """Return the built-in molecule: a two-domain body, a hooked arm and three optional blobs.

    About 420 points, 120 A across, without any symmetry, so that a mirror image is told apart.
    Domain 0 is the body, 1 the arm (the moving part: it swings about an axis that is clear of the
    body over a full circle), 2 to 4 the blobs of the compositional case. The points are
    a low-discrepancy sequence, the same on every machine.
    """
    ellipsoids: tuple[Ellipsoid, ...] = (
        ((0.0, 0.0, -18.0), (17.0, 22.0, 28.0), 150, 0),
        ((14.0, 20.0, -40.0), (20.0, 12.0, 12.0), 60, 0),
        ((0.0, 0.0, 13.0), (7.0, 7.0, 6.0), 14, 0),
        ((24.0, 0.0, 27.0), (26.0, 7.0, 7.0), 70, 1),
        ((47.0, 9.0, 32.0), (7.0, 13.0, 8.0), 34, 1),
        ((-25.0, 8.0, -24.0), (10.0, 9.0, 15.0), 36, 2),
        ((2.0, -29.0, -16.0), (14.0, 9.0, 9.0), 32, 3),
        ((-8.0, 2.0, -54.0), (9.0, 13.0, 9.0), 30, 4),
    )
    names = ("body", "arm", "blob-1", "blob-2", "blob-3")
    return _of_ellipsoids(ellipsoids, names, moving=1)


def built_in_assembly() -> Molecule:
    """Return a large assembly: a body of three lobes and five optional parts, without symmetry.

    About 1,000 points, 130 A across. Domain 0 is the body, 1 to 5 are the parts, each 4 to 16 % of
    its weight. No part is chosen as the moving one.
    """
    ellipsoids: tuple[Ellipsoid, ...] = (
        ((0.0, 0.0, 0.0), (36.0, 30.0, 40.0), 420, 0),
        ((22.0, -26.0, 22.0), (26.0, 18.0, 18.0), 150, 0),
        ((-18.0, 22.0, -32.0), (18.0, 22.0, 16.0), 110, 0),
        ((48.0, 16.0, 4.0), (16.0, 18.0, 22.0), 108, 1),
        ((-44.0, -14.0, 16.0), (14.0, 20.0, 14.0), 70, 2),
        ((4.0, 42.0, 18.0), (20.0, 14.0, 12.0), 56, 3),
        ((8.0, -32.0, -34.0), (12.0, 12.0, 20.0), 46, 4),
        ((-14.0, -6.0, 54.0), (11.0, 15.0, 11.0), 30, 5),
    )
    names = ("body", "part-1", "part-2", "part-3", "part-4", "part-5")
    return _of_ellipsoids(ellipsoids, names)


def built_in_species(count: int) -> Molecule:
    """Return different molecules in one place: species s is domain s, centred on its own.

    Each is a bent chain of four to seven ellipsoids, a point per 290 A^3: 150 to 500 points and
    70 to 130 A across. The chains are the same on every call.
    """
    species = [
        _bent_chain(np.random.default_rng((2024, number)), number) for number in range(count)
    ]
    positions = np.concatenate([one.positions for one in species])
    names = tuple(f"species-{number + 1}" for number in range(count))
    return Molecule(
        positions,
        np.concatenate([one.weights for one in species]),
        np.concatenate([one.domain for one in species]),
        names,
        np.zeros(len(positions), dtype=np.bool_),
    )


def _first_model(path: Path) -> gemmi.Model:
    """Return the first model of a structure file, cleaned."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such structure file; give a .pdb or .cif file")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a PDB or mmCIF structure ({reason})") from error
    if len(structure) == 0:
        raise InputError(f"{path}: holds no model; give a PDB or mmCIF file with atoms")
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_waters()
    structure.remove_empty_chains()
    return structure[0]


def _selected_atoms(
    model: gemmi.Model, selection: str | None, path: Path
) -> set[tuple[str, str, int]]:
    """Return (chain, residue, serial) of the atoms that a gemmi selection picks."""
    if selection is None:
        return set()
    try:
        parsed = gemmi.Selection(selection)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--moving {selection!r}: not in gemmi's selection syntax; write e.g. 'H,L/1-228'"
        ) from error
    chosen = {
        (chain.name, str(residue.seqid), atom.serial)
        for chain in parsed.chains(model)
        for residue in parsed.residues(chain)
        for atom in parsed.atoms(residue)
    }
    if not 0 < len(chosen) < model.count_atom_sites():
        names = ",".join(chain.name for chain in model)
        found = "every atom" if chosen else "no atom"
        raise InputError(f"--moving {selection!r}: {found} of {path}, whose chains are {names}")
    return chosen


def _one_point_per_residue(
    table: NDArray[np.float64], owner: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (x, y, z, weight, chosen) and owner of one point per residue, weights summed."""
    _, first, residue = np.unique(owner[:, 1], return_index=True, return_inverse=True)
    weight = np.bincount(residue, table[:, 3])
    mean = [np.bincount(residue, table[:, i] * table[:, 3]) / weight for i in (0, 1, 2, 4)]
    coarse = np.stack([*mean[:3], weight, np.round(mean[3])], axis=1)
    return coarse, owner[first]


def _molecule_by_chain(
    table: NDArray[np.float64], chain: NDArray[np.int64], names: tuple[str, ...]
) -> Molecule:
    """Return the centred molecule whose domains are the chains, heaviest first."""
    mass = np.bincount(chain, table[:, 3], minlength=len(names))
    order = np.argsort(-mass, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    weights = table[:, 3].copy()
    return Molecule(
        _centred(table[:, :3], weights),
        weights,
        rank[chain].astype(np.int64),
        tuple(names[i] for i in order),
        table[:, 4] > 0.5,
    )


def _centred(positions: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions (A, 3) with their centre of mass at the origin."""
    centred: NDArray[np.float64] = positions - weights @ positions / weights.sum()
    return centred


def spread_points(count: int) -> NDArray[np.float64]:
    """Return `count` evenly spread points (count, 3) of the unit cube.

    References
    ----------
    Roberts (2018), the R3 low-discrepancy sequence: multiples of the powers of 1/g, g^4 = g + 1.
    """
    g = 1.2207440846057596
    steps = np.arange(1, count + 1)[:, None] * np.array([1 / g, 1 / g**2, 1 / g**3])
    points: NDArray[np.float64] = steps % 1.0
    return points


def _of_ellipsoids(
    ellipsoids: Sequence[Ellipsoid], names: tuple[str, ...], moving: int = -1
) -> Molecule:
    """Return the centred molecule of ellipsoids, of which domain `moving` is the moving part."""
    positions = np.concatenate([_fill_ellipsoid(c, h, n) for c, h, n, _ in ellipsoids])
    domain = np.concatenate([np.full(n, d, dtype=np.int64) for _, _, n, d in ellipsoids])
    weights = np.full(len(positions), 55.0)  # electrons of a mean residue
    return Molecule(_centred(positions, weights), weights, domain, names, domain == moving)


def _bent_chain(rng: np.random.Generator, domain: int) -> Molecule:
    """Return a molecule of four to seven ellipsoids, each next to the one before."""
    ellipsoids: list[Ellipsoid] = []
    centre, reach = np.zeros(3), 0.0
    for _ in range(rng.integers(4, 8)):
        half_axes = rng.uniform(9.0, 24.0, 3)
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        centre = centre + direction * 0.8 * (reach + half_axes.mean())
        reach = float(half_axes.mean())
        points = round(4.19 * half_axes.prod() / 290.0)
        x, y, z = centre.tolist()
        a, b, c = half_axes.tolist()
        ellipsoids.append(((x, y, z), (a, b, c), points, domain))
    return _of_ellipsoids(ellipsoids, ())


def _fill_ellipsoid(
    centre: tuple[float, float, float], half_axes: tuple[float, float, float], count: int
) -> NDArray[np.float64]:
    """Return `count` evenly spread points (count, 3) inside an axis-aligned ellipsoid."""
    cube = 2.0 * spread_points(4 * count) - 1.0
    ball = cube[(cube**2).sum(axis=1) <= 1.0][:count]
    points: NDArray[np.float64] = np.array(centre) + ball * np.array(half_axes)
    return points
