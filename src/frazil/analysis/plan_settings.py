"""Settings of plan, beside those of preprocess.

Owns: the fields and their help. Does not own: the figures (`plan`).
"""

from typing import Annotated, Literal

from frazil.models.config import ModelConfig
from frazil.settings import Settings, option


class PlanSettings(Settings, frozen=True, kw_only=True):
    """Where the store will be, and how it will be trained on."""

    out: Annotated[
        str | None,
        option("-o", metavar="OUT", help="folder or X.frz to be written; without it, here"),
    ] = None
    shuffler_size: Annotated[
        int,
        option("--shuffler-size", metavar="N", unit="particles", help="shuffled together", ge=1),
    ] = 8192
    engine: Annotated[
        Literal["vae", "pca"], option("--engine", help="train_vae or train_pca is measured")
    ] = "vae"
    zdim: Annotated[
        int | None,
        option("--zdim", metavar="Z", help="measure an engine with this many latents", ge=1, le=32),
    ] = None
    batch_size: Annotated[
        int, option("-b", "--batch-size", metavar="B", help="images per step", ge=1)
    ] = 16
    enc_layers: Annotated[
        int, option("--enc-layers", metavar="L", help="residual layers of the encoder", ge=0)
    ] = 3
    enc_dim: Annotated[int, option("--enc-dim", metavar="H", help="width of the encoder", ge=1)] = (
        1024
    )
    dec_layers: Annotated[
        int, option("--dec-layers", metavar="L", help="residual layers of the decoder", ge=0)
    ] = 3
    dec_dim: Annotated[int, option("--dec-dim", metavar="H", help="width of the decoder", ge=1)] = (
        1024
    )
    device: Annotated[str, option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N")] = (
        "auto"
    )

    def model_config(self, zdim: int) -> ModelConfig:
        """Return the sizes of the network that is measured."""
        return ModelConfig(
            zdim=zdim,
            enc_dim=self.enc_dim,
            enc_layers=self.enc_layers,
            dec_dim=self.dec_dim,
            dec_layers=self.dec_layers,
        )
