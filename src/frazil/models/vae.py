"""cryoDRGN's variational autoencoder of images with known poses.

Owns: the three public maps: image to latent, latent to slices, latent to points. Does not own: the
sizes (`config`), the loss (`losses`) and training (`frazil.engines.vae`).
"""

import torch
from torch import Tensor, nn

from frazil.errors import InputError
from frazil.geometry.packing import HalfDisc
from frazil.models.basis import BasisDecoder, GridVolumes, linear_coefficients
from frazil.models.config import ModelConfig
from frazil.models.decoder import Decoder
from frazil.models.encoder import Encoder
from frazil.models.encodings import make_features
from frazil.models.posterior import PosteriorEncoder


class VAE(nn.Module):
    """Encoder and decoder for images of one box.

    Parameters
    ----------
    config : sizes. With `init_components` the encoder begins at a linear model's posterior, and
        the decoder at its volumes: as a basis that is trained, or as a base that the MLP adds to.
    disc : the P frequencies of the images.
    generator : source of the first weights, on the CPU; the same seed gives the same weights.

    Raises
    ------
    InputError : a type of positional features that is not built, or a mask that leaves nothing.
    """

    def __init__(self, config: ModelConfig, disc: HalfDisc, generator: torch.Generator) -> None:
        super().__init__()
        radius_px = disc.radius_px if config.enc_mask is None else config.enc_mask
        if radius_px == 0 or radius_px < -1:
            raise InputError(f"--enc-mask {radius_px}: a radius of at least 1 px, or -1, is wanted")
        self.config = config
        self.disc = disc
        features = make_features(
            config.pe_type,
            disc.box_px,
            config.pe_dim or disc.radius_px,
            config.feat_sigma,
            generator,
        )
        encoder_sizes = (config.enc_dim, config.enc_layers, config.activation)
        decoder_sizes = (config.dec_dim, config.dec_layers, config.activation)
        known, zdim = config.init_components, config.zdim
        self.encoder: Encoder | PosteriorEncoder
        if known:
            self.encoder = PosteriorEncoder(known, encoder_sizes, zdim, generator)
        else:
            self.encoder = Encoder(disc, radius_px, encoder_sizes, zdim, generator)
        self.decoder: Decoder | BasisDecoder
        self.base: GridVolumes | None = None
        if config.decoder == "basis":
            volumes = config.basis_volumes or known
            self.decoder = BasisDecoder(disc, volumes, known, decoder_sizes, zdim, generator)
        else:
            self.decoder = Decoder(features, disc, decoder_sizes, zdim, generator)
            if known:
                self.base = GridVolumes(disc, known + 1, trained=False)
                self.decoder.mlp.silence()

    def encode(self, hartley: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu (B, Z) and log variance (B, Z).

        Parameters
        ----------
        hartley : (B, 2P), `geometry.packing.hartley_values` of the centred image times the sign
            of its CTF, in units of the data's RMS.
        """
        mu, logvar = self.encoder(hartley)
        return mu, logvar

    def decode_slices(self, rotations: Tensor, z: Tensor) -> Tensor:
        """Return (B, P) complex64 slices of the volumes of z (B, Z) at rotations (B, 3, 3)."""
        slices = self.decoder.on_slices(rotations, z)
        if self.base is None:
            return slices
        return slices + self.base.on_slices(rotations, linear_coefficients(z, self._base_volumes))

    def decode_points(self, points: Tensor, z: Tensor) -> Tensor:
        """Return (M,) complex64 coefficients of the volume of z (Z,) at points (M, 3).

        Parameters
        ----------
        points : (kx, ky, kz) in cycles per box of the training box, |k| <= D/2. F(-k) is the
            conjugate of F(k) by construction, but for k = 0, which is never trained.
        """
        values = self.decoder.at_points(points, z)
        if self.base is None:
            return values
        coefficients = linear_coefficients(z[None], self._base_volumes)[0]
        return values + self.base.at_points(points, coefficients)

    @property
    def grids(self) -> GridVolumes | None:
        """The volumes that a run of train_pca gives: those of the decoder, or its frozen base."""
        return self.decoder.basis if isinstance(self.decoder, BasisDecoder) else self.base

    @property
    def _base_volumes(self) -> int:
        """Volumes of the base beside the mean."""
        return self.config.init_components
