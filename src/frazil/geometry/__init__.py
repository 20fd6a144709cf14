"""Pure functions (torch; `masks`: numpy) for the geometry of images and volumes.

Conventions, everywhere in frazil:

* The side of a box is even, D px; the origin of images and volumes is pixel D/2.
* Fourier coefficients are unnormalised and centred on that origin:
  F(k) = sum_x f(x) exp(-2 pi i k.x / D) with x counted from the origin, k in cycles per box.
* A rotation R (3x3) maps the model frame to the image frame, x_img = R x_vol, vectors ordered
  (x, y, z). The slice coordinate of image frequency (kx, ky) is k3 = R^T (kx, ky, 0).
* A shift is the one that, applied to the image, centres the particle, ordered (x, y).
"""
