"""Settings of train_vae: cryoDRGN's flags with cryoDRGN's defaults.

Owns: the fields, their help, and the sentences for flags that no longer change anything. Does not
own: what is done with them.
"""

from typing import Annotated, Any, Literal

import msgspec

from frazil.models.config import ModelConfig
from frazil.preprocess.settings import InputSettings
from frazil.settings import Settings, option
from frazil.store.manifest import Precision


class ModelSettings(Settings, frozen=True, kw_only=True):
    """Sizes of the networks."""

    zdim: Annotated[int, option("--zdim", metavar="Z", help="dimension of the latent", ge=1)]
    enc_layers: Annotated[
        int, option("--enc-layers", metavar="L", help="residual layers of the encoder", ge=0)
    ] = 3
    enc_dim: Annotated[int, option("--enc-dim", metavar="H", help="width of the encoder", ge=1)] = (
        1024
    )
    enc_mask: Annotated[
        int | None,
        option(
            "--enc-mask",
            metavar="R",
            unit="px",
            help="radius of the disc of frequencies that the encoder sees; default, and -1, the "
            "whole disc of radius D/2, which is all that is kept of an image",
            ge=-1,
        ),
    ] = None
    dec_layers: Annotated[
        int, option("--dec-layers", metavar="L", help="residual layers of the decoder", ge=0)
    ] = 3
    dec_dim: Annotated[int, option("--dec-dim", metavar="H", help="width of the decoder", ge=1)] = (
        1024
    )
    pe_type: Annotated[
        str, option("--pe-type", metavar="TYPE", help="positional features; gaussian only")
    ] = "gaussian"
    pe_dim: Annotated[
        int | None,
        option("--pe-dim", metavar="F", help="positional frequencies, a third; default: D/2", ge=1),
    ] = None
    feat_sigma: Annotated[
        float, option("--feat-sigma", help="width of the positional frequencies", gt=0)
    ] = 0.5
    activation: Annotated[
        Literal["relu", "leaky_relu"], option("--activation", help="activation of both networks")
    ] = "relu"
    decoder: Annotated[
        Literal["mlp", "basis"],
        option(
            "--decoder",
            help="coordinate network, or a sum of Fourier grids that begins at --init",
        ),
    ] = "mlp"
    basis_volumes: Annotated[
        int | None,
        option(
            "--basis-volumes",
            metavar="M",
            help="grids beside the mean of --decoder basis; default: the components of --init",
            ge=1,
            le=64,
        ),
    ] = None
    # Components of --init, which `warm.with_components` notes; 0 without one.
    init_components: int = 0


class TrainingSettings(Settings, frozen=True, kw_only=True):
    """How the networks are trained."""

    epochs: Annotated[
        int, option("-n", "--num-epochs", metavar="N", help="epochs in all", ge=1)
    ] = 20
    batch_size: Annotated[
        int, option("-b", "--batch-size", metavar="B", help="images per step", ge=1)
    ] = 16
    lr: Annotated[float, option("--lr", help="learning rate of Adam", gt=0)] = 1e-4
    wd: Annotated[float, option("--wd", help="weight decay of Adam", ge=0)] = 0.0
    beta: Annotated[
        float | None,
        option("--beta", help="weight of the divergence from the prior; default: 1/zdim", ge=0),
    ] = None
    seed: Annotated[
        int, option("--seed", metavar="S", help="seed of weights, noise and order", ge=0)
    ] = 0
    shuffle_seed: Annotated[
        int | None,
        option("--shuffle-seed", metavar="S", help="seed of the order; default: --seed", ge=0),
    ] = None
    load: Annotated[
        str | None,
        option(
            "--load",
            metavar="WEIGHTS",
            help="begin with the weights of this file; 'latest' goes on with this folder's run, "
            "which is done anyhow",
        ),
    ] = None
    init: Annotated[
        str | None,
        option(
            "--init",
            metavar="RUN",
            help="run of train_pca on these particles: latents and volumes begin there",
        ),
    ] = None
    checkpoint: Annotated[
        int, option("--checkpoint", metavar="N", help="write weights.N, z.N every N epochs", ge=1)
    ] = 1
    log_interval: Annotated[
        int, option("--log-interval", metavar="N", help="images between two log lines", ge=1)
    ] = 1000
    amp: Annotated[
        bool, option("--no-amp", help="no bfloat16, even where the processor has it")
    ] = True
    device: Annotated[str, option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N")] = (
        "auto"
    )
    z_pkl: Annotated[
        bool, option("--z-pkl", help="write the latents as cryoDRGN's z.N.pkl, too")
    ] = False


class DataSettings(InputSettings, frozen=True, kw_only=True):
    """Which particles are trained, from a store or from files, and how they are prepared."""

    box_px: Annotated[
        int | None,
        option("-D", "--box", unit="px", metavar="D", help="train at a smaller box, even", ge=4),
    ] = None
    norm: Annotated[
        tuple[float, float] | None,
        option(
            "--norm",
            metavar="X",
            help="SHIFT SCALE: train (F - SHIFT)/SCALE; the shift moves F(0) only, which is not "
            "kept, so it changes nothing; default: the exact RMS of |F|",
        ),
    ] = None
    uninvert_data: Annotated[
        bool, option("--uninvert-data", help="particles are dark already: do not change the sign")
    ] = False
    window: Annotated[bool, option("--no-window", help="turn the real-space window off")] = True
    window_r: Annotated[
        float,
        option("--window-r", metavar="R", help="where the window begins to fall", ge=0, le=0.98),
    ] = 0.85
    precision: Annotated[
        Precision, option("--precision", help="numbers kept per coefficient when packing")
    ] = "int8"
    cache: Annotated[
        str | None,
        option(
            "--cache",
            metavar="DIR",
            help="fast local disk for packed particles: the store that is packed (default: in the "
            "outdir), or a copy of what is read of a .frz",
        ),
    ] = None
    shuffler_size: Annotated[
        int,
        option("--shuffler-size", metavar="N", unit="particles", help="shuffled together", ge=0),
    ] = 8192
    memory: Annotated[
        str | None,
        option("--memory", metavar="SIZE", help="ceiling of buffers, e.g. 8G; default: automatic"),
    ] = None
    max_threads: Annotated[
        int | None, option("--max-threads", metavar="N", help="threads used for packing", ge=1)
    ] = None
    lazy: Annotated[
        bool, option("--lazy", help="train from the particle files themselves, pack nothing")
    ] = False
    while_packing: Annotated[
        bool,
        option("--while-packing", help="pack while the first epoch is trained from the files"),
    ] = False


class FormerSettings(Settings, frozen=True, kw_only=True):
    """Flags of cryoDRGN that change nothing here; each says so when it is given."""

    preprocessed: Annotated[bool, option("--preprocessed", help="no effect")] = False
    num_workers: Annotated[int | None, option("--num-workers", metavar="N", help="no effect")] = (
        None
    )
    multigpu: Annotated[bool, option("--multigpu", help="no effect yet: one device")] = False

    def remarks(self) -> list[str]:
        """Return one line for each flag that was given."""
        given = msgspec.structs.asdict(self)
        return [_REMARKS[name] for name, value in given.items() if value not in (False, None)]


_REMARKS = {
    "preprocessed": "--preprocessed has no effect: Fourier stacks are recognised by their name",
    "num_workers": "--num-workers has no effect: one thread reads ahead",
    "multigpu": "--multigpu has no effect: one device is used",
}


class VaeSettings(Settings, frozen=True, kw_only=True):
    """All that decides a run of the VAE."""

    model: ModelSettings
    training: TrainingSettings
    data: DataSettings

    @property
    def beta(self) -> float:
        """Weight of the divergence; 1/zdim unless it was given."""
        given = self.training.beta
        return 1 / self.model.zdim if given is None else given

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return all fields by part and name, as config.json gives them back."""
        fields: dict[str, dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(self))
        return fields

    def model_config(self) -> ModelConfig:
        """Return the sizes that `frazil.models` builds from."""
        return ModelConfig(**msgspec.structs.asdict(self.model))


# What may differ between a run and its continuation: how far, how often, where, how fast, and the
# names of files, whose content is compared instead (`start.data_digest`).
_FREE = {
    "model": set[str](),
    "training": {"epochs", "checkpoint", "log_interval", "device", "z_pkl", "load", "init"},
    "data": {
        "particles",
        "poses",
        "ctf",
        "ind",
        "datadir",
        "maps",
        "cache",
        "memory",
        "max_threads",
    },
}


def differing_names(now: VaeSettings, before: dict[str, Any]) -> list[str]:
    """Return the settings that forbid going on with a run, as "name (was X, is Y)".

    Parameters
    ----------
    before : "settings" of the run's config.json.
    """
    found = []
    for part, fields in now.to_json().items():
        # A setting that an older version did not have was what its default is.
        defaults = {f.name: f.default for f in msgspec.structs.fields(getattr(now, part))}
        earlier = before.get(part, {})
        for name, value in fields.items():
            was = earlier.get(name, defaults[name])
            if name not in _FREE[part] and was != value:
                found.append(f"{name} (was {was}, is {value})")
    return found
