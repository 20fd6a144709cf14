"""Folders of cryoSPARC jobs as cryoSPARC writes them, made of one table of known particles.

The fields and their types are those of cryosparc-tools' documented datasets and of files found in
the wild; the names of files are those that the jobs give. Every passthrough is written in an order
of its own, so a join by row number shows.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frazil.io.cryosparc import write_cs

Array = np.ndarray[Any, Any]
BOX_PX = 16
BLOB = [
    ("blob/path", "S40"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
    ("blob/import_sig", "<u8"),
]
CTF = [
    ("ctf/type", "S9"),
    ("ctf/exp_group_id", "<u4"),
    *((f"ctf/{name}", "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A")),
    *((f"ctf/{name}", "<f4") for name in ("df_angle_rad", "phase_shift_rad", "scale")),
    ("ctf/scale_const", "<f4"),
    *((f"ctf/{name}", "<f4", (2,)) for name in ("shift_A", "tilt_A", "trefoil_A")),
    *((f"ctf/{name}", "<f4", (4,)) for name in ("tetra_A", "anisomag")),
    ("ctf/bfactor", "<f4"),
]
_SCORES = ("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "alpha")
_MORE = ("alpha_min", "weight", "pose_ess", "shift_ess", "class_posterior")
ALIGNMENTS2D = [
    ("alignments2D/split", "<u4"),
    ("alignments2D/shift", "<f4", (2,)),
    ("alignments2D/pose", "<f4"),
    ("alignments2D/psize_A", "<f4"),
    *((f"alignments2D/{name}", "<f4") for name in _SCORES),
    ("alignments2D/class", "<u4"),
    ("alignments2D/class_ess", "<f4"),
]
LOCATION = [
    ("location/micrograph_uid", "<u8"),
    ("location/exp_group_id", "<u4"),
    ("location/micrograph_path", "S60"),
    ("location/micrograph_shape", "<u4", (2,)),
    ("location/center_x_frac", "<f4"),
    ("location/center_y_frac", "<f4"),
]
PICK_STATS = [("pick_stats/ncc_score", "<f4"), ("pick_stats/power", "<f4")]
EXPANSION = [("sym_expand/src_uid", "<u8"), ("sym_expand/idx", "<u4")]


def alignments(prefix: str) -> list[Any]:
    """Return the fields of 3D alignments."""
    return [
        (f"{prefix}/split", "<u4"),
        (f"{prefix}/shift", "<f4", (2,)),
        (f"{prefix}/pose", "<f4", (3,)),
        (f"{prefix}/psize_A", "<f4"),
        *((f"{prefix}/{name}", "<f4") for name in (*_SCORES, *_MORE)),
        (f"{prefix}/class", "<u4"),
        (f"{prefix}/class_ess", "<f4"),
    ]


def multi(classes: int) -> list[Any]:
    """Return the fields of 3D alignments that hold every class."""
    return [
        ("alignments3D_multi/split", "<u4"),
        ("alignments3D_multi/shift", "<f4", (classes, 2)),
        ("alignments3D_multi/pose", "<f4", (classes, 3)),
        ("alignments3D_multi/psize_A", "<f4"),
        ("alignments3D_multi/class_posterior", "<f4", (classes,)),
    ]


def particles(fields: Sequence[Any], n: int = 12, seed: int = 0) -> Array:
    """Return n particles (dark, 2 A/px; alignments at 3 A/px) in stacks J2/extract/{a,b,c}.mrc."""
    rng = np.random.default_rng(seed)
    array = np.zeros(n, [("uid", "<u8"), *fields])
    array["uid"] = rng.permutation(np.arange(1, n + 1, dtype=np.uint64) << 52) + np.uint64(seed)
    for name in array.dtype.names[1:]:
        if array[name].dtype.kind == "f":
            array[name] = rng.uniform(0.5, 2, array[name].shape)
        if name.endswith("/psize_A"):
            array[name] = 2 if name == "blob/psize_A" else 3
        if name.endswith("/split"):
            array[name] = np.arange(n) % 2
    there = set(array.dtype.names)
    if "blob/path" in there:
        array["blob/path"] = [f"J2/extract/{'abc'[row % 3]}.mrc".encode() for row in range(n)]
        array["blob/idx"] = np.arange(n) // 3
        array["blob/shape"], array["blob/sign"] = BOX_PX, -1
    if "ctf/df1_A" in there:
        array["ctf/type"], array["ctf/accel_kv"], array["ctf/cs_mm"] = b"patch", 300, 2.7
        array["ctf/exp_group_id"] = 7 + np.arange(n) % 2
        for name in ("shift_A", "tilt_A", "trefoil_A", "tetra_A", "anisomag", "bfactor"):
            array[f"ctf/{name}"] = 0
    return array


def fields_of(array: Array, *prefixes: str) -> Array:
    """Return uid and the fields "prefix/..." of an array."""
    names = ["uid", *(n for n in array.dtype.names if n.split("/")[0] in prefixes)]
    out = np.zeros(len(array), [(name, array.dtype[name]) for name in names])
    for name in names:
        out[name] = array[name]
    return out


def shuffled(array: Array, seed: int = 1) -> Array:
    """Return the rows in another order."""
    return array[np.random.default_rng(seed).permutation(len(array))]


def write_csg(
    path: Path, files: dict[str, Path], title: str = "All particles", **items: int
) -> Path:
    """Write a .csg that names the file of each result, as cryoSPARC does (">": beside it)."""
    lines = [
        "created: 2024-04-22 20:09:39.123456",
        "group:",
        f"  description: {title} that were processed, including alignments, and the rest of a long",
        "    description that goes on in a second line",
        f"  name: {path.stem.partition('_')[2]}",
        f"  title: {title}",
        "  type: particle",
        "results:",
    ]
    for result, file in files.items():
        count = items.get(result, len(np.load(file, mmap_mode="r", max_header_size=1 << 30)))
        lines += [
            f"  {result}:",
            f"    metafile: '>{file.name}'",
            f"    num_items: {count}",
            f"    type: particle.{result}",
        ]
    path.write_text("\n".join([*lines, "version: v4.4.1", ""]))
    return path


def _write(folder: Path, name: str, array: Array) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_cs(folder / name, array)
    return folder / name


def refinement(folder: Path, kept: tuple[str, ...] = ("alignments3D", "blob", "ctf")) -> Array:
    """A refinement of six iterations; fields that are not `kept` pass through."""
    whole = particles([*BLOB, *CTF, *alignments("alignments3D"), *ALIGNMENTS2D, *LOCATION])
    main = fields_of(whole, *kept)
    early = main.copy()
    early["alignments3D/shift"] = -9
    for iteration in range(5):
        _write(folder, f"J24_{iteration:03d}_particles.cs", early)
    files = dict.fromkeys(kept, _write(folder, "J24_005_particles.cs", main))
    _write(folder, "J24_005_volume_map.cs", np.zeros(1, [("uid", "<u8"), ("map/path", "S9")]))
    rest = [p for p in ("blob", "ctf", "alignments2D", "location") if p not in kept]
    through = _write(folder, "J24_passthrough_particles.cs", shuffled(fields_of(whole, *rest)))
    write_csg(folder / "J24_particles.csg", files | dict.fromkeys(rest, through))
    return whole


def non_uniform(folder: Path) -> Array:
    """Non-uniform refinement with CTF refinement: images pass through."""
    return refinement(folder, ("alignments3D", "ctf"))


def local(folder: Path) -> Array:
    """Local refinement: only the alignments are new."""
    return refinement(folder, ("alignments3D",))


def heterogeneous(folder: Path) -> Array:
    """Heterogeneous refinement of three classes; returns those of class 1."""
    whole = particles([*BLOB, *CTF, *alignments("alignments3D"), *multi(3), *LOCATION])
    files = {
        "alignments3D_multi": _write(
            folder, "J24_00062_particles.cs", fields_of(whole, "alignments3D_multi")
        )
    }
    through = _write(
        folder,
        "J24_passthrough_particles_all_classes.cs",
        shuffled(fields_of(whole, "blob", "ctf", "location")),
    )
    write_csg(
        folder / "J24_particles_all_classes.csg",
        files | dict.fromkeys(("blob", "ctf", "location"), through),
    )
    for number in range(3):
        chosen = whole[number::3]
        path = _write(
            folder, f"J24_class_{number:02d}_00062_particles.cs", fields_of(chosen, "alignments3D")
        )
        rest = _write(
            folder,
            f"J24_passthrough_particles_class_{number}.cs",
            shuffled(fields_of(chosen, "blob", "ctf", "location")),
        )
        files = {"alignments3D": path} | dict.fromkeys(("blob", "ctf", "location"), rest)
        write_csg(folder / f"J24_particles_class_{number}.csg", files)
    return whole[1::3]


def ab_initio(folder: Path) -> Array:
    """Ab initio of two classes, with the poses of each; returns those of class 1."""
    poses = [*alignments("alignments_class_0"), *alignments("alignments_class_1")]
    whole = particles([*BLOB, *CTF, *poses, *LOCATION])
    for number in range(2):
        chosen = whole[number::2]
        main = fields_of(chosen, "blob", "ctf", "alignments_class_0", "alignments_class_1")
        _write(folder, f"J24_class_{number:02d}_00100_particles.cs", main[:2])
        path = _write(folder, f"J24_class_{number:02d}_final_particles.cs", main)
        rest = _write(
            folder,
            f"J24_passthrough_particles_class_{number}.cs",
            shuffled(fields_of(chosen, "location")),
        )
        files = dict.fromkeys(("blob", "ctf"), path) | {"location": rest}
        write_csg(folder / f"J24_particles_class_{number}.csg", files)
    unused = _write(folder, "J24_passthrough_particles_unused.cs", fields_of(whole[:2], "location"))
    write_csg(folder / "J24_particles_unused.csg", {"location": unused})
    return _as_alignments3d(whole[1::2], "alignments_class_1")


def _as_alignments3d(array: Array, prefix: str) -> Array:
    """Return the array with the poses of a class called alignments3D."""
    out = np.zeros(
        len(array), [(n.replace(prefix, "alignments3D"), array.dtype[n]) for n in array.dtype.names]
    )
    for name, new in zip(array.dtype.names, out.dtype.names, strict=True):
        out[new] = array[name]
    return out


def classification3d(folder: Path, classes: int = 100) -> Array:
    """3D classification of 100 classes: alignments pass through, a posterior for each class."""
    wide = [(f"alignments_class3D_{k}/{name}", "<f4") for k in range(classes) for name in _MORE]
    whole = particles([*BLOB, *CTF, *alignments("alignments3D"), *wide])
    main = fields_of(whole, "ctf", *(f"alignments_class3D_{k}" for k in range(classes)))
    path = _write(folder, "J24_00012_particles.cs", main)
    rest = ("blob", "alignments3D")
    through = _write(
        folder, "J24_passthrough_particles_all_classes.cs", shuffled(fields_of(whole, *rest))
    )
    write_csg(
        folder / "J24_particles_all_classes.csg", {"ctf": path} | dict.fromkeys(rest, through)
    )
    return whole


def symmetry_expansion(folder: Path) -> Array:
    """Symmetry expansion (C3) of four particles: twelve rows over four images."""
    whole = particles([*BLOB, *CTF, *alignments("alignments3D"), *EXPANSION, *LOCATION])
    for name in ("blob/path", "blob/idx"):
        whole[name] = np.repeat(whole[name][:4], 3)
    whole["sym_expand/src_uid"] = np.repeat(whole["uid"][:4] + np.uint64(99), 3)
    whole["sym_expand/idx"] = np.arange(12) % 3
    path = _write(folder, "particles_expanded.cs", fields_of(whole, "alignments3D", "sym_expand"))
    rest = ("blob", "ctf", "location")
    through = _write(folder, "J24_passthrough_particles.cs", shuffled(fields_of(whole, *rest)))
    write_csg(
        folder / "J24_particles.csg",
        dict.fromkeys(("alignments3D", "sym_expand"), path) | dict.fromkeys(rest, through),
    )
    return whole


def restack(folder: Path, name: str = "restacked_particles.cs") -> Array:
    """Restack: new images; poses and CTF pass through."""
    whole = particles([*BLOB, *CTF, *alignments("alignments3D"), *LOCATION])
    path = _write(folder, name, fields_of(whole, "blob"))
    rest = ("ctf", "alignments3D", "location")
    through = _write(folder, "J24_passthrough_particles.cs", shuffled(fields_of(whole, *rest)))
    write_csg(folder / "J24_particles.csg", {"blob": path} | dict.fromkeys(rest, through))
    return whole


def subtraction(folder: Path) -> Array:
    """Particle subtraction: new images; poses and CTF pass through."""
    return restack(folder, "subtracted_particles.cs")


def imported(folder: Path) -> Array:
    """Import particles with metadata: one file."""
    whole = particles([*BLOB, *CTF, *alignments("alignments3D")])
    path = _write(folder, "imported_particles.cs", whole)
    write_csg(
        folder / "J24_imported_particles.csg", dict.fromkeys(("blob", "ctf", "alignments3D"), path)
    )
    return whole


def classification2d(folder: Path) -> Array:
    """2D classification: no 3D poses."""
    whole = particles([*BLOB, *CTF, *ALIGNMENTS2D, *LOCATION])
    path = _write(folder, "J24_020_particles.cs", fields_of(whole, "blob", "ctf", "alignments2D"))
    through = _write(folder, "J24_passthrough_particles.cs", shuffled(fields_of(whole, "location")))
    write_csg(
        folder / "J24_particles.csg",
        dict.fromkeys(("blob", "ctf", "alignments2D"), path) | {"location": through},
    )
    return whole


def selection2d(folder: Path) -> Array:
    """Select 2D: the selected particles, beside those excluded."""
    whole = particles([*BLOB, *CTF, *ALIGNMENTS2D, *LOCATION, *PICK_STATS])
    for name, part in (("selected", whole[:8]), ("excluded", whole[8:])):
        path = _write(folder, f"particles_{name}.cs", fields_of(part, "blob", "alignments2D"))
        rest = ("ctf", "location", "pick_stats")
        through = _write(
            folder, f"J24_passthrough_particles_{name}.cs", shuffled(fields_of(part, *rest))
        )
        write_csg(
            folder / f"J24_particles_{name}.csg",
            dict.fromkeys(("blob", "alignments2D"), path) | dict.fromkeys(rest, through),
        )
    return whole[:8]


JOBS_3D: dict[str, tuple[Callable[[Path], Array], int | None]] = {
    "homogeneous": (refinement, None),
    "non-uniform": (non_uniform, None),
    "local": (local, None),
    "heterogeneous": (heterogeneous, 1),
    "ab-initio": (ab_initio, 1),
    "3D-classification": (classification3d, None),
    "symmetry-expansion": (symmetry_expansion, None),
    "restack": (restack, None),
    "subtraction": (subtraction, None),
    "import": (imported, None),
}
"""Of each job: what writes its folder and returns its particles, and the class to ask for."""
JOBS_2D = {"2D-classification": classification2d, "2D-selection": selection2d}
