"""Write volumes at points of a latent space: those of the model, or maps of the images near them.

RUN is a run folder (its last epoch, or --epoch N), or a weights.N.safetensors.

  frazil eval_vol 00_vae -o vol.mrc -z 0 0 0 0
  frazil eval_vol 00_vae -o path/ --z-start 0 -1 --z-end 1 1 -n 10
  frazil eval_vol 00_vae -o volumes/ --zfile 00_vae/analyze.20/kmeans20/centers.txt
  frazil eval_vol 00_pca -o maps/ --zfile points.txt --maps regression

With --maps regression every NAME.mrc is a map of the particles near its point, of any engine.
Beside it are NAME_half_a.mrc and NAME_half_b.mrc (of disjoint halves of the particles),
NAME_fsc.txt and NAME.json. RUN is a run folder then, or a store with --latents.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frazil.cli.flags import add_settings, read_settings
from frazil.errors import InputError, OutputExistsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of eval_vol."""
    from frazil.analysis.settings import VolumeSettings
    from frazil.engines.regression.settings import RegressionSettings

    # argparse takes -0.5 for a number but -1e-05 for a flag.
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    parser.add_argument("model", type=Path, metavar="RUN|WEIGHTS", help="run folder or weights")
    parser.add_argument("-c", "--config", type=Path, help="config.json of the weights, if apart")
    parser.add_argument("-o", "--out", type=Path, required=True, help="X.mrc for one z, or folder")
    parser.add_argument("--epoch", type=int, metavar="N", help="epoch of a run (default: last)")
    parser.add_argument("--overwrite", action="store_true", help="replace volumes that are there")
    parser.add_argument("--prefix", default="vol_", help="of names in a folder (default: vol_)")
    points = parser.add_argument_group("latent points, one of")
    which = points.add_mutually_exclusive_group(required=True)
    which.add_argument("-z", nargs="+", type=float, metavar="Z", help="one point")
    which.add_argument("--zfile", type=Path, help="text file, one point per line")
    which.add_argument("--z-start", nargs="+", type=float, metavar="Z", help="begin of a path")
    points.add_argument("--z-end", nargs="+", type=float, metavar="Z", help="end of the path")
    points.add_argument("-n", type=int, default=10, help="points on the path (default: 10)")
    add_settings(parser, VolumeSettings)
    add_settings(parser, RegressionSettings)


def run(args: argparse.Namespace) -> None:
    """Evaluate the model, or average the images near the points, and write."""
    from frazil.analysis import volumes
    from frazil.analysis.regression import beside, write_regression
    from frazil.analysis.settings import VolumeSettings
    from frazil.engines.load import load_model
    from frazil.engines.regression.settings import RegressionSettings, check_unused
    from frazil.engines.regression.source import open_source

    settings = read_settings(args, VolumeSettings)
    regression = read_settings(args, RegressionSettings)
    points, origin = _points(args)
    if regression.maps == "regression":
        if args.config is not None:
            raise InputError("-c: of use with --maps decoder only")
        paths = _paths(args, len(points), settings.first_index, beside)
        source = open_source(args.model, args.epoch, regression)
        many = args.out.suffix != ".mrc"
        write_regression(source, points, origin, paths, settings, regression, say, many)
    else:
        check_unused(regression)
        model, config = load_model(args.model, args.epoch, args.config)
        volumes.check_latent_points(points, model.config.zdim, origin)
        grid = volumes.TrainedGrid.from_config(config)
        paths = _paths(args, len(points), settings.first_index, lambda path: [])
        written = volumes.volumes_need(len(paths), grid, settings, paths[0].parent)
        say(written.line())
        written.check()
        if args.out.suffix == ".mrc":
            volumes.write_one_volume(model, points[0], grid, settings, args.out)
        else:
            volumes.write_volumes(model, points, grid, settings, args.out, args.prefix)
    say(f"wrote {len(paths)} volume(s): {args.out}")


def say(line: str) -> None:
    """Print a line of the log at once."""
    print(line, flush=True)


def _paths(
    args: argparse.Namespace, count: int, first_index: int, beside: Callable[[Path], list[Path]]
) -> list[Path]:
    """Return the volumes to write; refuses what is there, with the files beside each."""
    from frazil.analysis.volumes import volume_names

    single = args.out.suffix == ".mrc"
    if args.out.exists() and args.out.is_dir() == single:
        found, wanted = ("a folder", "X.mrc") if single else ("a file", "X.mrc or a folder")
        raise InputError(f"-o {args.out}: is {found}; give {wanted}")
    if single and count > 1:
        raise InputError(f"-o {args.out}: {count} volumes are asked for; give a folder")
    names = volume_names(count, first_index, args.prefix)
    paths = [args.out] if single else [args.out / name for name in names]
    there = [file for path in paths for file in (path, *beside(path)) if file.exists()]
    if there and not args.overwrite:
        raise OutputExistsError(f"{there[0]}: is there already; give --overwrite")
    return paths


def _points(args: argparse.Namespace) -> tuple[Any, str]:
    """Return the latent points (K, Z) asked for, and the flag they came from."""
    import numpy as np

    from frazil.analysis.volumes import latent_path, read_latent_points

    if args.z_start is None and args.z_end is not None:
        raise InputError("--z-end: give --z-start, too, and neither -z nor --zfile")
    if args.z is not None:
        return np.asarray([args.z], np.float32), "-z"
    if args.zfile is not None:
        return read_latent_points(args.zfile), f"--zfile {args.zfile}"
    if args.z_end is None:
        raise InputError("--z-start: give --z-end, too")
    return latent_path(args.z_start, args.z_end, args.n), "--z-start"
