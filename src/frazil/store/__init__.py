"""The particle store, format 1: bytes on disk, not physics.

A store is a folder NAME.frz that numpy alone can read:

* manifest.json: what was done to the images, the shell table, the bands, the shards, statistics,
  provenance and row accounting;
* particles.npy: one row of metadata per particle, in the order of the input;
* frequencies.npy: (P, 2) int16, (kx, ky) of every coefficient of a record, in order;
* shards/SSSSS.bB.npy: (rows, 2 P_B) codes of band B of shard S; Re and Im alternate;
* checksums.npy: xxh3-64 of every block of rows, (blocks of all shards, bands).

coefficient = code x step of its shell x image gain.
"""
