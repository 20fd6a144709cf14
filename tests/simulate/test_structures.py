"""Structure files become centred, weighted points; the built-in molecule has no symmetry."""

from pathlib import Path

import gemmi
import numpy as np
import pytest
from scipy.spatial import cKDTree

from frazil.errors import InputError, MissingFileError
from frazil.simulate.structures import (
    Molecule,
    built_in_assembly,
    built_in_molecule,
    built_in_species,
    read_structure,
)


def make_structure(chains: str = "AB", residues: int = 12) -> gemmi.Structure:
    """Return alanine chains with a hydrogen on each residue, and one water."""
    structure = gemmi.Structure()
    model = gemmi.Model("1")
    rng = np.random.default_rng(0)
    for c, name in enumerate(chains):
        chain = gemmi.Chain(name)
        for r in range(residues + c):
            residue = gemmi.Residue()
            residue.name, residue.seqid = "ALA", gemmi.SeqId(r + 1, " ")
            for atom_name, element in (("N", "N"), ("CA", "C"), ("C", "C"), ("O", "O"), ("H", "H")):
                atom = gemmi.Atom()
                atom.name, atom.element = atom_name, gemmi.Element(element)
                x, y, z = np.array([3.8 * r, 15.0 * c, 0.0]) + rng.normal(0, 1, 3)
                atom.pos = gemmi.Position(x, y, z)
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    water = gemmi.Residue()
    water.name, water.seqid = "HOH", gemmi.SeqId(900, " ")
    oxygen = gemmi.Atom()
    oxygen.name, oxygen.element, oxygen.pos = "O", gemmi.Element("O"), gemmi.Position(500, 0, 0)
    water.add_atom(oxygen)
    model["A"].add_residue(water)
    structure.add_model(model)
    structure.setup_entities()
    structure.assign_serial_numbers()
    return structure


@pytest.fixture(params=["pdb", "cif"])
def structure_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"made.{request.param}"
    if request.param == "pdb":
        make_structure().write_pdb(str(path))
    else:
        make_structure().make_mmcif_document().write_file(str(path))
    return path


def test_atoms_are_kept_but_for_hydrogens_and_water(structure_file: Path) -> None:
    molecule = read_structure(structure_file, "atom")
    assert len(molecule.positions) == 25 * 4
    assert molecule.weights.sum() == 25 * (7 + 6 + 6 + 8)
    assert np.abs(molecule.weights @ molecule.positions).max() < 1e-6


def test_one_point_per_residue_keeps_weight_and_centre(structure_file: Path) -> None:
    fine = read_structure(structure_file, "atom")
    coarse = read_structure(structure_file, "residue")
    assert len(coarse.positions) == 25
    assert coarse.weights.sum() == pytest.approx(fine.weights.sum())
    first = fine.weights[:4] @ fine.positions[:4] / fine.weights[:4].sum()
    assert np.allclose(coarse.positions[0], first, atol=1e-6)


def test_domains_are_chains_with_the_heaviest_first(structure_file: Path) -> None:
    molecule = read_structure(structure_file)
    assert molecule.domain_names == ("B", "A")
    assert np.bincount(molecule.domain).tolist() == [13, 12]


@pytest.mark.parametrize(("selection", "count"), [("A", 12), ("B/3-7", 5), ("A,B/1-2", 4)])
def test_selection_marks_the_moving_part(structure_file: Path, selection: str, count: int) -> None:
    molecule = read_structure(structure_file, "residue", selection)
    assert molecule.moving.sum() == count
    assert read_structure(structure_file, "atom", selection).moving.sum() == 4 * count


@pytest.mark.parametrize("selection", ["Z", "A,B", "A//(("])
def test_selection_of_nothing_or_everything_is_refused_with_the_flag(
    structure_file: Path, selection: str
) -> None:
    with pytest.raises(InputError, match=r"--moving"):
        read_structure(structure_file, "residue", selection)


def test_unusable_structure_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.pdb"):
        read_structure(tmp_path / "absent.pdb")
    for suffix in ("pdb", "cif"):
        (tmp_path / f"text.{suffix}").write_text("this is no structure\n")
        with pytest.raises(InputError, match=rf"text\.{suffix}"):
            read_structure(tmp_path / f"text.{suffix}")


def test_built_in_molecule_has_the_size_and_parts_it_says() -> None:
    molecule = built_in_molecule()
    spread = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=2).max()
    assert 110 < spread < 130
    assert 300 < len(molecule.positions) < 500
    assert np.abs(molecule.weights @ molecule.positions).max() < 1e-6
    assert len(molecule.domain_names) == molecule.domain.max() + 1 == 5


def test_built_in_assembly_has_a_body_and_five_lighter_parts() -> None:
    molecule = built_in_assembly()
    share = np.bincount(molecule.domain, molecule.weights)
    assert len(share) == len(molecule.domain_names) == 6
    assert np.all(share[1:] < 0.2 * share[0]) and np.all(share[1:] > 0.04 * share[0])
    assert np.abs(molecule.weights @ molecule.positions).max() < 1e-6
    assert not molecule.moving.any()


def test_built_in_species_are_centred_and_differ_in_shape_and_weight() -> None:
    species = built_in_species(5)
    assert len(species.domain_names) == 5
    widths = []
    for domain in range(5):
        mine = species.domain == domain
        points, weights = species.positions[mine], species.weights[mine]
        assert np.abs(weights @ points).max() < 1e-6
        widths.append(np.sqrt(np.linalg.eigvalsh(np.cov(points.T))))
    assert len(set(np.bincount(species.domain).tolist())) == 5
    apart = np.abs(np.array(widths)[:, None] - np.array(widths)).max(2)
    assert apart[~np.eye(5, dtype=bool)].min() > 1.0
    fewer = built_in_species(3)
    assert np.array_equal(fewer.positions, species.positions[species.domain < 3])


@pytest.mark.parametrize("molecule", [built_in_molecule(), built_in_assembly()])
def test_built_in_molecules_differ_from_their_mirror_images(molecule: Molecule) -> None:
    points = molecule.positions
    _, axes = np.linalg.eigh(points.T @ points)
    points = points @ axes

    def misfit(other: np.ndarray) -> float:
        """Return the least mean distance to `points` over the four turns of principal axes."""
        turns = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
        tree = cKDTree(points)
        return min(tree.query(other * turn)[0].mean() for turn in turns)

    assert misfit(points) < 1e-9
    assert misfit(points * [-1, 1, 1]) > 3.0
