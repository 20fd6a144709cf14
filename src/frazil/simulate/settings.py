"""Settings of a simulation.

Owns: `SimulateSettings`, from which the flags of `frazil simulate` come. Imports nothing heavy, so
that its help is quick. Does not own: what is done with them.
"""

from typing import Annotated, Literal

from frazil.settings import Settings, option

Coarse = Literal["residue", "atom"]
NoiseKind = Literal["white", "coloured"]


class SimulateSettings(Settings, frozen=True, kw_only=True):
    """What to simulate; the flags of `frazil simulate`."""

    num: Annotated[int, option("-n", "--num", help="number of images", ge=1)] = 1000
    box_px: Annotated[int, option("-D", "--box", help="box side, even", unit="px", ge=8)] = 64
    apix_ang: Annotated[
        float | None,
        option(
            "--apix",
            "--Apix",
            help="pixel size; by default the molecule spans two thirds of the box",
            unit="A/px",
            gt=0,
        ),
    ] = None
    snr: Annotated[
        float,
        option(
            "--snr",
            help="variance of the clean images over that of the noise, whole box; inf: no noise",
            gt=0,
        ),
    ] = 0.1
    structure: Annotated[
        str | None,
        option("--structure", help="PDB or mmCIF file (default: the built-in molecule)"),
    ] = None
    molecule: Annotated[
        Literal["arm", "assembly"],
        option("--molecule", help="built-in molecule: one with a moving arm, or a large assembly"),
    ] = "arm"
    coarse: Annotated[Coarse, option("--coarse", help="one Gaussian per residue or per atom")] = (
        "residue"
    )
    moving: Annotated[
        str | None,
        option(
            "--moving",
            "--moving-chains",
            "--moving-selection",
            help="moving part in gemmi's selection syntax, e.g. H,L/1-228 "
            "(default: the part with the fewest contacts to the rest)",
        ),
    ] = None
    motion: Annotated[
        Literal["hinge", "linker", "composition", "mixture", "none"],
        option(
            "--motion",
            help="what differs between particles: one angle, three angles, parts that are there or "
            "not, the molecule altogether, or nothing",
        ),
    ] = "hinge"
    swing_deg: Annotated[
        float,
        option("--swing", help="full range of each angle; 360: a circle", unit="deg", gt=0, le=360),
    ] = 360.0
    states: Annotated[
        int | None,
        option("--states", help="number of discrete states (angles: continuous by default)", ge=1),
    ] = None
    state_weights: Annotated[
        tuple[float, ...], option("--state-weights", help="relative occupancy of each state", ge=0)
    ] = ()
    sigma_ang: Annotated[
        float | None,
        option(
            "--sigma",
            help="width of the Gaussians (default: 1 px, at least 2 A)",
            unit="A",
            gt=0,
        ),
    ] = None
    shift_px: Annotated[
        float, option("--shift-px", help="deviation of the shifts in x and y", unit="px", ge=0)
    ] = 1.0
    pose_error_deg: Annotated[
        float,
        option(
            "--pose-error-deg",
            help="RMS angle by which the rotations in the files are wrong",
            unit="deg",
            ge=0,
        ),
    ] = 0.0
    shift_error_px: Annotated[
        float,
        option(
            "--shift-error-px",
            help="deviation in x and y by which the shifts in the files are wrong",
            unit="px",
            ge=0,
        ),
    ] = 0.0
    preferred: Annotated[
        float,
        option(
            "--preferred",
            metavar="K",
            help="preferred views along z, density exp(K cos^2 tilt); 0: all views alike",
            ge=0,
            le=100,
        ),
    ] = 0.0
    contrast_std: Annotated[
        float, option("--contrast-std", help="deviation of the log contrast of images", ge=0)
    ] = 0.0
    noise: Annotated[NoiseKind, option("--noise", help="spectrum of the noise")] = "white"
    group_noise: Annotated[
        tuple[float, ...],
        option(
            "--group-noise",
            help="relative deviation of the noise of each optics group; one number: one group",
            gt=0,
        ),
    ] = ()
    outliers: Annotated[
        float, option("--outliers", help="fraction of empty, ice and junk images", ge=0, le=1)
    ] = 0.0
    stacks: Annotated[
        int, option("--stacks", help="number of .mrcs files to spread the images over", ge=1)
    ] = 1
    ctf: Annotated[bool, option("--no-ctf", help="images without a CTF")] = True
    defocus_um: Annotated[
        tuple[float, float], option("--defocus-um", help="range of underfocus", unit="um", ge=0)
    ] = (1.0, 2.5)
    astigmatism_ang: Annotated[
        float, option("--astigmatism", help="mean of defocus U - V", unit="A", ge=0)
    ] = 200.0
    voltage_kv: Annotated[float, option("--kv", help="voltage", unit="kV", gt=0)] = 300.0
    cs_mm: Annotated[float, option("--cs", help="spherical aberration", unit="mm", ge=0)] = 2.7
    amplitude_contrast: Annotated[float, option("-w", help="amplitude contrast", ge=0, le=1)] = 0.1
    seed: Annotated[int, option("--seed", help="random seed", ge=0)] = 0
    shuffle_star: Annotated[
        bool, option("--shuffle-star", help="write the rows of the .star in random order")
    ] = False
    volumes: Annotated[
        int, option("--volumes", help="number of true volumes along the hinge motion", ge=1)
    ] = 10
    overwrite: Annotated[bool, option("--overwrite", help="replace a complete data set")] = False
