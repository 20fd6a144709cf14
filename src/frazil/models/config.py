"""The sizes of the VAE. Imports no torch, so that --help is quick.

Owns: `ModelConfig`. Does not own: the networks.
"""

from typing import Literal

from frazil.settings import Settings


class ModelConfig(Settings, frozen=True, kw_only=True):
    """Sizes of the VAE; what config.json keeps under "model".

    `pe_dim` None means D/2; `enc_mask` (px) None means D/2, and -1 no mask: both are the whole
    disc. `init_components` K > 0: the model begins at a run of train_pca with K components;
    `basis_volumes` None then means K.
    """

    zdim: int
    enc_dim: int = 1024
    enc_layers: int = 3
    dec_dim: int = 1024
    dec_layers: int = 3
    pe_type: str = "gaussian"
    pe_dim: int | None = None
    feat_sigma: float = 0.5
    enc_mask: int | None = None
    activation: Literal["relu", "leaky_relu"] = "relu"
    decoder: Literal["mlp", "basis"] = "mlp"
    basis_volumes: int | None = None
    init_components: int = 0
    domain: Literal["fourier"] = "fourier"
