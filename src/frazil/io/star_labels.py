"""What the columns of a particle STAR file are called, in RELION's and in cisTEM's files.

Owns: the labels of each dialect and how its shifts run, and which dialect a file is of (by its
columns, whatever its name and version). Does not own: units and joins (`frazil.io.star`).

References
----------
cisTEM: https://github.com/timothygrant80/cisTEM, `src/core/cistem_parameters.cpp` (labels),
`src/gui/ImportRefinementPackageWizard.cpp` and `ExportRefinementPackageWizard.cpp` (phi, theta and
psi are RELION's rot, tilt and psi; a shift in A is RELION's origin times -1, in both directions),
`src/core/cistem_star_file_reader.cpp` (the phase shift is read as degrees) and
`src/core/ctf.cpp` (it is used in radians; the writer does not convert back).
"""

from dataclasses import dataclass

from frazil.io.star_format import PARTICLE_LABELS, StarFile, StarTable


@dataclass(frozen=True)
class Dialect:
    """The labels of one program.

    Attributes
    ----------
    image : the column that says which image a row is of.
    angles : rot, tilt and psi, ZYZ, degrees.
    ctf : column of the particle table -> label.
    shifts_ang, shifts_px : x and y; times `shift_sign` they centre the particle.
    pixel_sizes : in the order in which they count; two labels are magnification and detector um.
    """

    program: str
    image: str
    angles: tuple[str, str, str]
    ctf: dict[str, str]
    shifts_ang: tuple[str, str]
    shifts_px: tuple[str, str] | None
    shift_sign: int
    pixel_sizes: tuple[tuple[str, ...], ...]
    half_set: str
    groups: tuple[str, ...]

    @property
    def shift_pairs(self) -> tuple[tuple[str, str], ...]:
        """Shifts in A, then shifts in pixels."""
        return (self.shifts_ang,) if self.shifts_px is None else (self.shifts_ang, self.shifts_px)


RELION = Dialect(
    program="RELION",
    image=PARTICLE_LABELS[0],
    angles=("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"),
    ctf={
        "defocus_u_ang": "_rlnDefocusU",
        "defocus_v_ang": "_rlnDefocusV",
        "astigmatism_deg": "_rlnDefocusAngle",
        "voltage_kv": "_rlnVoltage",
        "cs_mm": "_rlnSphericalAberration",
        "amplitude_contrast": "_rlnAmplitudeContrast",
        "phase_shift_deg": "_rlnPhaseShift",
    },
    shifts_ang=("_rlnOriginXAngst", "_rlnOriginYAngst"),
    shifts_px=("_rlnOriginX", "_rlnOriginY"),
    shift_sign=1,
    pixel_sizes=(
        ("_rlnImagePixelSize",),
        ("_rlnMagnification", "_rlnDetectorPixelSize"),
        ("_rlnPixelSize",),
    ),
    half_set="_rlnRandomSubset",
    groups=("_rlnGroupName", "_rlnTomoParticleName"),
)
CISTEM = Dialect(
    program="cisTEM",
    image=PARTICLE_LABELS[1],
    angles=("_cisTEMAnglePhi", "_cisTEMAngleTheta", "_cisTEMAnglePsi"),
    ctf={
        "defocus_u_ang": "_cisTEMDefocus1",
        "defocus_v_ang": "_cisTEMDefocus2",
        "astigmatism_deg": "_cisTEMDefocusAngle",
        "voltage_kv": "_cisTEMMicroscopeVoltagekV",
        "cs_mm": "_cisTEMMicroscopeCsMM",
        "amplitude_contrast": "_cisTEMAmplitudeContrast",
        "phase_shift_deg": "_cisTEMPhaseShift",
    },
    shifts_ang=("_cisTEMXShift", "_cisTEMYShift"),
    shifts_px=None,
    shift_sign=-1,
    pixel_sizes=(("_cisTEMPixelSize",),),
    half_set="_cisTEMAssignedSubset",
    groups=("_cisTEMParticleGroup", "_cisTEMOriginalImageFilename"),
)
CISTEM_STACK = "_cisTEMStackFilename"
CISTEM_ACTIVITY = "_cisTEMImageActivity"


def dialect_of(particles: StarTable) -> Dialect:
    """Return the dialect of a table of particles, by its columns."""
    return RELION if RELION.image in particles else CISTEM


def states(star: StarFile, label: str) -> bool:
    """Return whether the particles or the optics groups of a STAR file have a column."""
    return label in star.particles or (star.optics is not None and label in star.optics)


def states_pixel_size(star: StarFile) -> bool:
    """Return whether a STAR file says the pixel size anywhere."""
    sizes = dialect_of(star.particles).pixel_sizes
    return any(all(states(star, label) for label in labels) for labels in sizes)


def pixel_size_labels(star: StarFile) -> str:
    """Return the columns that would say the pixel size, for messages."""
    sizes = dialect_of(star.particles).pixel_sizes
    return ", or ".join(" with ".join(labels) for labels in sizes[:2])


def version_of(star: StarFile) -> str:
    """Return the dialect in words: RELION 3.0, RELION 3.1 or later, RELION 5 tomo, cisTEM."""
    if dialect_of(star.particles) is CISTEM:
        return "cisTEM"
    if any(name.startswith("_rlnTomo") for name in star.particles.names):
        return "RELION tilt series"
    return "RELION 3.1 or later" if star.optics is not None else "RELION 3.0 or older"


def split_image_name(name: str) -> tuple[int, str]:
    """Return (0-based index, stack) of an image name "000012@stack.mrcs"; a bare name is image 0.

    Raises
    ------
    ValueError : the index is not a number from 1 on.
    """
    number, at, stack = name.partition("@")
    if not at:
        return 0, name
    index = int(number) - 1
    if not 0 <= index < 1 << 62 or not stack:
        raise ValueError(name)
    return index, stack
