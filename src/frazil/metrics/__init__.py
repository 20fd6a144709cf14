"""Pure measures of agreement: between volumes, between poses, of latents with a true coordinate.

They see tensors only; what is compared with what is the caller's business.
"""
