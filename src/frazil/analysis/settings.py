"""Settings of volumes and of an analysis: cryoDRGN's flags.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them.
"""

from typing import Annotated

from frazil.settings import Settings, option


class VolumeSettings(Settings, frozen=True, kw_only=True):
    """What is done to a volume before it is written."""

    pixel_size_ang: Annotated[
        float | None,
        option(
            "--Apix",
            unit="A/px",
            help="pixel size of the written volumes; default: that of the data and box",
            gt=0,
        ),
    ] = None
    flip: Annotated[bool, option("--flip", help="mirror along z: the other hand")] = False
    invert: Annotated[bool, option("--invert", help="invert the contrast")] = False
    box_px: Annotated[
        int | None,
        option(
            "-d",
            "--downsample",
            unit="px",
            metavar="D",
            help="write volumes of this smaller box (Fourier crop)",
            ge=4,
        ),
    ] = None
    low_pass_ang: Annotated[
        float | None,
        option("--low-pass", unit="A", metavar="RES", help="low-pass filter at this", gt=0),
    ] = None
    crop_px: Annotated[
        int | None,
        option(
            "--crop", unit="px", metavar="D", help="cut out the middle after all of the above", ge=2
        ),
    ] = None
    first_index: Annotated[
        int,
        option("--vol-start-index", metavar="N", help="number in the first volume's name", ge=0),
    ] = 1


class AnalyzeSettings(Settings, frozen=True, kw_only=True):
    """What an analysis makes."""

    components: Annotated[
        int, option("--pc", metavar="N", help="principal components to traverse", ge=0)
    ] = 2
    per_component: Annotated[
        int, option("--n-per-pc", metavar="N", help="volumes along each of them", ge=2)
    ] = 10
    clusters: Annotated[
        int, option("--ksample", metavar="K", help="k-means clusters, a volume for each", ge=1)
    ] = 20
    mixture: Annotated[
        bool, option("--no-mixture", help="k-means clusters, even where the run has a mixture")
    ] = True
    volumes: Annotated[bool, option("--skip-vol", help="make no volumes")] = True
    umap: Annotated[bool, option("--skip-umap", help="make no UMAP embedding")] = True
    seed: Annotated[
        int, option("--seed", metavar="S", help="seed of clusters, UMAP and thumbnails", ge=0)
    ] = 0
