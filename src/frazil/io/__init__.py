"""Files in and out: one module per format, and the two types that leave this layer.

Owns: `ParticleTable` (particles), `ImageSource` (images), and the readers and writers of MRC, STAR,
.cs, lists and pickles. Does not own: what is done to images (preprocess) or the packed store.
"""
