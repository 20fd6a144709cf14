"""The soft mask of a volume.

Owns: the work of gen_mask: threshold, growth and edge in Angstrom, checks, and the pictures. Does
not own: the mask's shape (`frazil.geometry.masks`), nor solvent masks of fits (`engines.pca.mask`).
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.geometry.masks import TOP_PERCENTILE, default_threshold, soft_mask
from frazil.io.mrc import MrcHeader, read_header
from frazil.io.mrc_edit import section_blocks, write_like
from frazil.io.outputs import check_output
from frazil.io.tool_settings import MaskSettings

Volume = NDArray[np.float32]


def write_mask(settings: MaskSettings) -> tuple[list[str], Volume, Volume]:
    """Write the mask that the settings ask for; return what to say of it, the volume and the mask.

    The mask has the volume's header: origin, axes and pixel size (that of the settings where they
    give one).

    Raises
    ------
    InputError : no pixel size, voxels that are not finite, or a threshold that nothing reaches.
    """
    source, out = Path(settings.volume), Path(settings.out)
    check_output(out, (".mrc",), [source])
    header = read_header(source)
    pixel_size_ang = settings.pixel_size_ang or header.pixel_size_ang
    if not pixel_size_ang:
        raise InputError(f"{source}: no pixel size in its header; give --Apix")
    volume = np.concatenate(list(section_blocks(header)))
    threshold, how = _threshold(settings, volume, header)
    inside = volume >= threshold
    if not inside.any() or inside.all():
        raise InputError(
            f"{source}: {'every' if inside.any() else 'no'} voxel is {threshold:.6g} or more "
            f"(values from {volume.min():.6g} to {volume.max():.6g}); give another --threshold"
        )
    mask = soft_mask(
        inside, settings.dilate_ang / pixel_size_ang, settings.edge_ang / pixel_size_ang
    )
    write_like(header, out, [mask], settings.pixel_size_ang)
    lines = [
        f"threshold {threshold:.6g} ({how}): {inside.mean():.2%} of the voxels",
        f"grown by {settings.dilate_ang:g} A, cosine edge of {settings.edge_ang:g} A, at "
        f"{pixel_size_ang:.6g} A/px",
        f"{out}: {(mask > 0.5).mean():.2%} of the voxels above 0.5",
    ]
    if _at_border(mask):
        lines.append("warning: the mask reaches the border of the box; give a smaller --dilate")
    return lines, volume, mask


def mask_figure(volume: Volume, mask: Volume) -> Figure:
    """Return the three central slices of a volume with the mask's 0.5 (solid) and 0.01 contours."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    for axis, axes in enumerate(figure.subplots(1, 3)):
        middle = volume.shape[axis] // 2
        axes.imshow(volume.take(middle, axis), cmap="gray", origin="lower")
        section = mask.take(middle, axis)
        for level, style in ((0.01, "dotted"), (0.5, "solid")):
            if section.min() < level < section.max():
                axes.contour(section, levels=[level], colors="tab:orange", linestyles=style)
        axes.set_title(f"{'zyx'[axis]} = {middle}")
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _threshold(settings: MaskSettings, volume: Volume, header: MrcHeader) -> tuple[float, str]:
    """Return the threshold, and where it comes from."""
    finite = np.isfinite(volume)
    if not finite.all():
        place = np.unravel_index(int(np.argmin(finite)), volume.shape)
        raise InputError(
            f"{header.path}: voxel {tuple(int(p) for p in place)} (section, row, column) is not a "
            f"number ({int((~finite).sum())} voxels); repair the volume first"
        )
    if settings.threshold is not None:
        return settings.threshold, "--threshold"
    return default_threshold(volume), f"half of the {TOP_PERCENTILE} percentile"


def _at_border(mask: Volume) -> bool:
    """Return whether the mask is above 0.01 in a face of the box."""
    faces = (face for axis in range(3) for face in (mask.take(0, axis), mask.take(-1, axis)))
    return any(bool((face > 0.01).any()) for face in faces)
