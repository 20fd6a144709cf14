"""Conformations: from a coordinate per particle to the positions and weights of its points.

Owns: the motions of a rigid part about a hinge or on a linker, compositional states, mixtures, and
the automatic choice of the moving part. Does not own: reading structures (`structures`), images of
them (`images`).
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from frazil.errors import InputError
from frazil.simulate.structures import Molecule, spread_points

Array = NDArray[np.float64]


class Motion(Protocol):
    """What a simulation asks of a motion."""

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Return random coordinates, (count,) or (count, C)."""

    def grid(self, count: int) -> Array:
        """Return K coordinates that span the motion; K = count unless they are discrete."""

    def place(self, coordinates: Array) -> tuple[Array, Array]:
        """Return positions (B or 1, A, 3) in Angstrom and weights (B or 1, A)."""

    def describe(self) -> dict[str, Any]:
        """Return what the coordinate means and what it moves, as plain values for JSON."""


@dataclass(frozen=True)
class HingeMotion:
    """A rigid part that turns about an axis through a hinge; the coordinate is the angle, degrees.

    Attributes
    ----------
    molecule : the reference conformation, which is the one at angle 0.
    moving : (A,) bool, points of the moving part.
    hinge_ang : (3,) point that stays fixed, Angstrom, in the molecule's frame.
    axis : (3,) unit vector; a positive angle is right-handed about it.
    swing_deg : the range of angles, -swing/2 to swing/2; 360 is the full circle.
    states : number of equally spaced angles, or None for a continuous motion.
    """

    molecule: Molecule
    moving: NDArray[np.bool_]
    hinge_ang: Array
    axis: Array
    swing_deg: float = 360.0
    states: int | None = None

    def grid(self, count: int) -> Array:
        """Return angles (K,) in degrees, evenly spaced; a full circle leaves out its end point."""
        count = count if self.states is None else self.states
        half = self.swing_deg / 2
        if count == 1:
            return np.zeros(1)
        return np.linspace(-half, half, count, endpoint=self.swing_deg < 360.0)

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Return angles (count,) in degrees, uniform over the range or over the states."""
        uniform = rng.random(count)
        if self.states is not None:
            return self.grid(self.states)[(uniform * self.states).astype(np.int64)]
        return np.asarray(self.swing_deg * (uniform - 0.5))

    def place(self, coordinates: Array) -> tuple[Array, Array]:
        """Return positions (B, A, 3) in Angstrom and weights (1, A) at the given angles (B,).

        References
        ----------
        Rodrigues' formula: x -> x cos a + (u x x) sin a + u (u.x)(1 - cos a).
        """
        angle = np.radians(coordinates)[:, None, None]  # (B, 1, 1)
        arm = self.molecule.positions[self.moving] - self.hinge_ang  # (M, 3)
        along = np.outer(arm @ self.axis, self.axis)
        turned = along + (arm - along) * np.cos(angle) + np.cross(self.axis, arm) * np.sin(angle)
        positions = np.repeat(self.molecule.positions[None], len(coordinates), axis=0)
        positions[:, self.moving] = turned + self.hinge_ang
        return positions, self.molecule.weights[None]

    def describe(self) -> dict[str, Any]:
        """Return the moving points per domain, the hinge and the axis."""
        names, domain = self.molecule.domain_names, self.molecule.domain
        counts = np.bincount(domain[self.moving], minlength=len(names))
        return {
            "coordinate": "angle_deg",
            "moving_points": {n: int(c) for n, c in zip(names, counts, strict=True) if c},
            "hinge_ang": self.hinge_ang.tolist(),
            "axis": self.axis.tolist(),
        }


@dataclass(frozen=True)
class LinkerMotion:
    """A rigid part on a loose linker; the coordinates are three independent angles, degrees.

    The part is turned about its own long axis (third angle), then about the axis that is orthogonal
    to that and to the hinge's (second), then about the hinge's axis (first).

    Attributes
    ----------
    hinge : where, about what and how far the part swings; its states number the conformations.
    """

    hinge: HingeMotion

    def grid(self, count: int) -> Array:
        """Return angles (K, 3) in degrees, evenly spread over the cube of their ranges."""
        count = count if self.hinge.states is None else self.hinge.states
        return np.asarray(self.hinge.swing_deg * (spread_points(count) - 0.5))

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Return angles (count, 3) in degrees, uniform over the cube or over the states."""
        if self.hinge.states is not None:
            states = self.hinge.states
            return self.grid(states)[(rng.random(count) * states).astype(np.int64)]
        return np.asarray(self.hinge.swing_deg * (rng.random((count, 3)) - 0.5))

    def place(self, coordinates: Array) -> tuple[Array, Array]:
        """Return positions (B, A, 3) in Angstrom and weights (1, A) at the given angles (B, 3)."""
        hinge = self.hinge
        molecule, moving = hinge.molecule, hinge.moving
        along = _long_axis(molecule, moving, hinge.hinge_ang)
        frame = np.stack([hinge.axis, np.cross(along, hinge.axis), along])  # orthonormal rows
        turn = Rotation.from_euler("XYZ", coordinates, degrees=True).as_matrix()
        matrix = frame.T @ turn @ frame  # (B, 3, 3)
        arm = molecule.positions[moving] - hinge.hinge_ang  # (M, 3)
        positions = np.repeat(molecule.positions[None], len(coordinates), axis=0)
        positions[:, moving] = arm @ matrix.transpose(0, 2, 1) + hinge.hinge_ang
        return positions, molecule.weights[None]

    def describe(self) -> dict[str, Any]:
        """Return the moving points per domain, the hinge and the first axis."""
        return self.hinge.describe() | {"coordinate": "three_angles_deg"}


@dataclass(frozen=True)
class CompositionMotion:
    """Discrete states in which optional domains are present or absent; coordinate = state number.

    One state with everything present is the homogeneous case; states of one domain each are a
    mixture.

    Attributes
    ----------
    molecule : all domains together.
    present : (K, domains) bool, domains present in each state.
    probabilities : (K,) occupancy of each state, summing to 1.
    """

    molecule: Molecule
    present: NDArray[np.bool_]
    probabilities: Array

    def grid(self, count: int) -> Array:
        """Return the state numbers (K,), whatever `count` is."""
        return np.arange(len(self.present), dtype=np.float64)

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Return state numbers (count,) as floats."""
        edges = np.cumsum(self.probabilities)[:-1]
        return np.searchsorted(edges, rng.random(count), side="right").astype(np.float64)

    def place(self, coordinates: Array) -> tuple[Array, Array]:
        """Return positions (1, A, 3) in Angstrom and weights (B, A) of the given states (B,)."""
        shown = self.present[coordinates.astype(np.int64)][:, self.molecule.domain]  # (B, A)
        return self.molecule.positions[None], self.molecule.weights * shown

    def describe(self) -> dict[str, Any]:
        """Return the domains of each state and how probable it is."""
        names = self.molecule.domain_names
        return {
            "coordinate": "state",
            "present": [
                [name for name, there in zip(names, state, strict=True) if there]
                for state in self.present
            ],
            "probabilities": self.probabilities.tolist(),
        }


def homogeneous(molecule: Molecule) -> CompositionMotion:
    """Return the motion of a molecule that does not move."""
    everything = np.ones((1, len(molecule.domain_names)), dtype=np.bool_)
    return CompositionMotion(molecule, everything, np.ones(1))


def hinge_motion(
    molecule: Molecule, swing_deg: float = 360.0, states: int | None = None
) -> HingeMotion:
    """Return the hinge motion of a molecule's moving part, or of an automatic choice of it.

    The hinge lies in the middle of the contact between the two parts. The axis is orthogonal to
    the arm (hinge to centre of the moving part); of those, the one about which the arm meets the
    fixed part least.

    Raises
    ------
    InputError
        molecule too small to be cut in two.
    """
    moving = molecule.moving if molecule.moving.any() else weakest_cut(molecule.positions)
    positions, weights = molecule.positions, molecule.weights
    fixed_tree = cKDTree(positions[~moving])
    distance, partner = fixed_tree.query(positions[moving])
    near = distance <= distance.min() + 2.0
    pairs = (positions[moving][near] + positions[~moving][partner[near]]) / 2
    hinge = pairs.mean(axis=0)
    arm = _long_axis(molecule, moving, hinge)
    body = weights[~moving] @ positions[~moving] / weights[~moving].sum() - hinge
    axes = _orthogonal_axes(arm, body)
    motions = [HingeMotion(molecule, moving, hinge, axis, swing_deg, states) for axis in axes]
    return min(motions, key=lambda motion: _collisions(motion, fixed_tree))


def _orthogonal_axes(arm: Array, body: Array, count: int = 18) -> list[Array]:
    """Return unit vectors orthogonal to the unit vector `arm`, the one nearest to `body` first."""
    first = body - (body @ arm) * arm
    if np.linalg.norm(first) < 1e-3 * np.linalg.norm(body):
        first = np.cross(arm, np.eye(3)[np.argmin(np.abs(arm))])
    first = _unit(first)
    second = np.cross(arm, first)
    return [first * np.cos(a) + second * np.sin(a) for a in np.arange(count) * np.pi / count]


def _collisions(motion: HingeMotion, fixed: cKDTree, close_ang: float = 4.0) -> int:
    """Return how many points of the moving part come close to the fixed part, over 12 angles."""
    moving = np.flatnonzero(motion.moving)
    some = moving[:: 1 + len(moving) // 500]
    positions, _ = motion.place(replace(motion, states=None).grid(12))
    distance, _ = fixed.query(positions[:, some], distance_upper_bound=close_ang)
    return int(np.isfinite(distance).sum())


def composition_motion(
    molecule: Molecule,
    states: int | None = None,
    probabilities: tuple[float, ...] | None = None,
) -> CompositionMotion:
    """Return compositional states over a molecule's optional domains.

    Optional are the domains other than the moving arm that weigh at least 2 % of the core
    (domain 0). State 0 has everything; then one optional domain is missing, then two, and so on.

    Parameters
    ----------
    molecule : its domains are the parts.
    states : number of states; the default is one more than there are optional domains.
    probabilities : relative occupancy of each state; equal when None.

    Raises
    ------
    InputError
        more states than the optional domains allow, or occupancies that do not fit.
    """
    mass = np.bincount(molecule.domain, molecule.weights, minlength=len(molecule.domain_names))
    arm = np.bincount(molecule.domain, molecule.moving, minlength=len(mass)) > 0
    optional = [d for d in range(1, len(mass)) if mass[d] >= 0.02 * mass[0] and not arm[d]]
    count = len(optional) + 1 if states is None else states
    missing = [
        subset for size in range(len(optional) + 1) for subset in combinations(optional, size)
    ]
    if count > len(missing):
        raise InputError(
            f"--states {count}: {len(optional)} optional domains give at most {len(missing)} states"
        )
    present = np.ones((count, len(mass)), dtype=np.bool_)
    for state in range(count):
        present[state, list(missing[state])] = False
    return CompositionMotion(molecule, present, _occupancies(count, probabilities))


def mixture_motion(
    species: Molecule, probabilities: tuple[float, ...] | None = None
) -> CompositionMotion:
    """Return the mixture of the domains of `species`, of which each particle shows one.

    Raises
    ------
    InputError
        occupancies that do not fit.
    """
    count = len(species.domain_names)
    present = np.eye(count, dtype=np.bool_)
    return CompositionMotion(species, present, _occupancies(count, probabilities))


def _occupancies(count: int, probabilities: tuple[float, ...] | None) -> Array:
    """Return (count,) probabilities that sum to 1; equal ones when None."""
    weights = np.ones(count) if probabilities is None else np.array(probabilities)
    if len(weights) != count or weights.min() < 0 or weights.sum() <= 0:
        raise InputError(
            f"--state-weights: {count} states need {count} occupancies >= 0, "
            f"got {' '.join(str(w) for w in weights)}"
        )
    return np.asarray(weights / weights.sum())


def weakest_cut(positions: Array, smallest: float = 0.1) -> NDArray[np.bool_]:
    """Return the smaller side (A,) bool of the cut through the fewest contacts.

    The points, in the order of the second eigenvector of their contact graph, are cut where the
    number of contacts across, relative to those of the smaller side, is least.

    Parameters
    ----------
    positions : (A, 3), Angstrom.
    smallest : least fraction of the points on either side.

    References
    ----------
    Shi & Malik (2000), normalised cut; Fiedler (1973).
    """
    count = len(positions)
    if count < 20:
        raise InputError(f"{count} points are too few to find a hinge; name the part with --moving")
    contacts = _contacts(positions)
    degree = np.asarray(contacts.sum(axis=1)).ravel()
    scale = sparse.diags(degree**-0.5)
    laplacian = (sparse.identity(count) - scale @ contacts @ scale).tocsc()
    start = positions @ np.array([1.0, 0.7, 0.4])
    _, vectors = eigsh(laplacian, k=2, sigma=-1e-3, v0=start)
    order = np.argsort(scale @ vectors[:, 1], kind="stable")
    ordered = sparse.triu(contacts[order][:, order])
    opened = np.asarray(ordered.sum(axis=1)).ravel() - np.asarray(ordered.sum(axis=0)).ravel()
    inside = np.cumsum(degree[order])
    share = np.minimum(inside, inside[-1] - inside) + 1e-9
    low = int(smallest * count)
    cost = (np.cumsum(opened) / share)[low : count - low]
    side = np.zeros(count, dtype=np.bool_)
    side[order[: low + int(np.argmin(cost)) + 1]] = True
    return side if side.sum() <= count / 2 else ~side


def _contacts(positions: Array) -> sparse.csr_matrix:
    """Return the (A, A) contact matrix at the shortest distance, from 8 A on, that connects all."""
    tree = cKDTree(positions)
    cutoff_ang = 8.0
    while True:
        pairs = tree.query_pairs(cutoff_ang, output_type="ndarray")
        entries = (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1]))
        half = sparse.coo_matrix(entries, shape=(len(positions), len(positions))).tocsr()
        contacts = half + half.T
        parts, _ = sparse.csgraph.connected_components(contacts, directed=False)
        if parts == 1:
            return contacts
        cutoff_ang *= 1.25


def _long_axis(molecule: Molecule, moving: NDArray[np.bool_], hinge_ang: Array) -> Array:
    """Return the unit vector from the hinge to the centre of the moving part."""
    weights, positions = molecule.weights[moving], molecule.positions[moving]
    return _unit(weights @ positions / weights.sum() - hinge_ang)


def _unit(vector: Array) -> Array:
    """Return the vector divided by its length."""
    return np.asarray(vector / np.linalg.norm(vector))
