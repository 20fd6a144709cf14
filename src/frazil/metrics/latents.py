"""How well a latent tells a true one-dimensional coordinate.

Owns: linear, rank, circular and nearest-neighbour agreement. A latent is known only up to an
invertible map, so what counts is how well the coordinate can be read off it. Does not own: where
the truth comes from (`frazil.simulate`).
"""

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor


def linear_fit(latent: Float[Tensor, "N Z"], target: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Return the best affine prediction of the target from the latent (least squares)."""
    latent, target = latent.double(), target.double()
    design = latent - latent.mean(0)
    centred = target - target.mean(0)
    # The pseudo-inverse also serves a latent with dead (constant or dependent) dimensions.
    return design @ (torch.linalg.pinv(design) @ centred) + target.mean(0)


def r_squared(predicted: Float[Tensor, "N C"], target: Float[Tensor, "N C"]) -> float:
    """Return 1 - residual / variance, summed over C; 1 is perfect, 0 is no better than the mean."""
    target = target.double()
    residual = ((target - predicted.double()) ** 2).sum()
    return float(1 - residual / ((target - target.mean(0)) ** 2).sum())


def linear_r2(latent: Float[Tensor, "N Z"], coordinate: Float[Tensor, " N"]) -> float:
    """Return R^2 of the best affine predictor of the coordinate."""
    target = coordinate[:, None]
    return r_squared(linear_fit(latent, target), target)


def linear_spearman(latent: Float[Tensor, "N Z"], coordinate: Float[Tensor, " N"]) -> float:
    """Return Spearman's rank correlation, >= 0 in effect, of the best affine predictor."""
    predicted = linear_fit(latent, coordinate[:, None])[:, 0]
    return _pearson(_ranks(predicted), _ranks(coordinate))


def circular_r2(latent: Float[Tensor, "N Z"], angle_rad: Float[Tensor, " N"]) -> float:
    """Return R^2 of the best affine predictor of (cos, sin) of an angle."""
    target = _on_circle(angle_rad)
    return r_squared(linear_fit(latent, target), target)


def circular_correlation(latent: Float[Tensor, "N Z"], angle_rad: Float[Tensor, " N"]) -> float:
    """Return the circular correlation, -1 to 1, of an angle with that of its affine predictor.

    References
    ----------
    Jammalamadaka & SenGupta 2001, eq. 8.2.2, with the differences taken over pairs of particles
    (Fisher & Lee 1983), which needs no mean direction and so suits uniform angles:
    sum sin(a_i - a_j) sin(b_i - b_j) / sqrt(sum sin^2(a_i - a_j) sum sin^2(b_i - b_j)).
    """
    fit = linear_fit(latent, _on_circle(angle_rad))
    predicted = torch.atan2(fit[:, 1], fit[:, 0])
    return _fisher_lee(predicted, angle_rad.double())


def knn_r2(
    latent: Float[Tensor, "N Z"], target: Float[Tensor, "N C"], neighbours: int = 20
) -> float:
    """Return R^2 of the mean over each particle's nearest others in the latent.

    Sees any continuous relation, also a curved or folded one. For a circular coordinate give
    (cos, sin) as the target.

    Raises
    ------
    ValueError : fewer particles than neighbours + 1.
    """
    if len(latent) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {len(latent)} particles")
    points = latent.double().numpy()
    _, index = cKDTree(points).query(points, k=neighbours + 1)
    found = torch.from_numpy(index)  # (N, k + 1)
    # Duplicates may push the particle itself off the first place: drop it wherever it is.
    self_at = found == torch.arange(len(latent))[:, None]
    weight = (~self_at).double()
    weight[~self_at.any(1), -1] = 0.0
    predicted = (target.double()[found] * weight[:, :, None]).sum(1) / neighbours
    return r_squared(predicted, target)


def latent_agreement(
    latent: Float[Tensor, "N Z"], coordinate: Float[Tensor, " N"], period: float | None = None
) -> dict[str, float]:
    """Return all measures that apply to a coordinate, by name.

    Parameters
    ----------
    coordinate : the truth; with a period (360 for degrees) it is taken as an angle.
    """
    neighbours = min(20, len(latent) - 1)
    if period is None:
        return {
            "linear_r2": linear_r2(latent, coordinate),
            "spearman": linear_spearman(latent, coordinate),
            "knn_r2": knn_r2(latent, coordinate[:, None], neighbours),
        }
    angle_rad = coordinate.double() * (2 * torch.pi / period)
    return {
        "circular_r2": circular_r2(latent, angle_rad),
        "circular_correlation": circular_correlation(latent, angle_rad),
        "knn_r2": knn_r2(latent, _on_circle(angle_rad), neighbours),
    }


def _on_circle(angle_rad: Float[Tensor, " N"]) -> Float[Tensor, "N 2"]:
    angle_rad = angle_rad.double()
    return torch.stack([torch.cos(angle_rad), torch.sin(angle_rad)], dim=1)


def _fisher_lee(a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> float:
    """Return the pairwise circular correlation in O(N), from sums over single angles.

    sin(a_i - a_j) sin(b_i - b_j) = [cos(d_i - d_j) - cos(s_i - s_j)] / 2 with d = a - b and
    s = a + b, and sum_ij cos(x_i - x_j) = |sum exp(i x)|^2.
    """
    cross = _coherence(a - b) - _coherence(a + b)
    spread_a = len(a) ** 2 - _coherence(2 * a)
    spread_b = len(b) ** 2 - _coherence(2 * b)
    scale = (spread_a * spread_b) ** 0.5
    return cross / scale if scale > 0 else 0.0


def _coherence(angle_rad: Float[Tensor, " N"]) -> float:
    """Return |sum exp(i angle)|^2."""
    return float(torch.cos(angle_rad).sum() ** 2 + torch.sin(angle_rad).sum() ** 2)


def _ranks(values: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return ranks from 0, ties sharing their mean rank."""
    _, inverse, counts = torch.unique(
        values.double(), sorted=True, return_inverse=True, return_counts=True
    )
    last = torch.cumsum(counts, 0).double()
    return (last - (counts.double() + 1) / 2)[inverse]


def _pearson(a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = torch.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0
