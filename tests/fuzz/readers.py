"""The readers that are fuzzed: what each reads, from which valid files, and how they are damaged.

Owns: READERS. To add one, write a class of `Reader` and add it there. Does not own: the damage
(`mutations`) and the promises (`guard`).
"""

import json
import pickle
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from frazil.errors import FrazilError
from frazil.io.cryosparc import write_cs
from frazil.io.identities import Identities
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import read_header, read_images, read_volume, write_volume
from frazil.io.pickles import (
    read_all_pickles,
    read_ctf,
    read_indices,
    read_pickle,
    read_poses,
    write_pickle,
)
from frazil.io.selection_file import Selection, read_selection_file, write_selection
from frazil.io.star import write_star
from frazil.preprocess.settings import PackSettings
from frazil.store.checksums import file_checksum
from frazil.store.reader import ParticleStore
from tests.fuzz.mutations import mutate
from tests.io.cs_jobs import write_csg
from tests.store.made import make_images, make_store, write_stack

MARK = "/tmp/frazil-fuzz-was-here"
_PICKLE_TOKENS = (
    f"cos\nsystem\n(S'touch {MARK}'\ntR.".encode(),
    f"cposix\nsystem\n(S'touch {MARK}'\ntR.".encode(),
    f'c__builtin__\neval\n(S\'open("{MARK}", "w")\'\ntR.'.encode(),
    b"\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R",
    b"cnumpy\nload\n(S'x'\ntR",
    b"cnumpy\nndarray\n(I9999999999\ntR",
    b"c__builtin__\nbytearray\n(I9999999999\ntR",
    *(b"2", b"0", b"R", b"b", b"\x81", b"\x85", b".", b"(", b"t", b"Q", b"\x97", b"\x98"),
    b"J\xff\xff\xff\x7f",
    b"B\xff\xff\xff\xff",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"r\xff\xff\xff\x7f",
    b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
)
_STAR_TOKENS = (
    *(
        b"loop_\n",
        b"data_\n",
        b"data_optics\n",
        b"_rlnImageName #1\n",
        b"_rlnX",
        b"#",
        b"\n\n",
        b";\n",
    ),
    *(b"000001@", b"@", b"1@../../x.mrcs", b"99999999999999999999@p.mrcs", b"\t", b"_"),
)
_CS_TOKENS = (b"'<u8'", b"'|O'", b"'|S0'", b"[", b"]", b"),", b"(9999999999,)", b"'shape': ", b"{")
_JSON_TOKENS = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"1e308", b"[" * 3000)


class Reader(ABC):
    """One reader: valid files made once, and copies of them damaged and read again and again."""

    tokens: tuple[bytes, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.files = self.make()
        self.contents = [path.read_bytes() for path in self.files]

    @abstractmethod
    def make(self) -> list[Path]:
        """Write valid files into `folder`; return those that are to be damaged."""

    @abstractmethod
    def read(self, path: Path) -> object:
        """Read one damaged file as commands do."""

    def damage(self, random: Random) -> tuple[Path, int]:
        """Write a damaged file; return what `read` gets, and the bytes there are to read."""
        number = random.randrange(len(self.files))
        path = self.files[number].with_stem("damaged")
        data = mutate(self.contents[number], random, self.tokens)
        path.write_bytes(data)
        return path, len(data) + self.others_bytes()

    def valid(self) -> Path:
        """Return a valid input of `read`."""
        return self.files[0]

    def others_bytes(self) -> int:
        """Return the bytes of other files that are read with a damaged one."""
        return 0


class Mrc(Reader):
    """MRC stacks of all modes, volumes; every image of them."""

    def make(self) -> list[Path]:
        images = make_images(3, 8)
        kinds = [("f4", "<", 0), ("i2", ">", 40), ("i1", "<", 0), ("u2", "<", 8), ("f2", ">", 0)]
        made = [
            write_stack(self.folder / f"{kind}.mrcs", images, kind, order, extended)
            for kind, order, extended in kinds
        ]
        write_volume(self.folder / "v.mrc", make_images(8, 8), 1.5)
        return [*made, self.folder / "v.mrc"]

    def read(self, path: Path) -> object:
        if path.suffix == ".mrc":
            return read_volume(path)
        header = read_header(path)
        read_images(header, np.arange(header.whole_images))
        with open_images(open_particles(path)) as images:
            return images.read(np.arange(len(images)))


class TableReader(Reader):
    """A table of particles in the stack p.mrcs."""

    def stack(self) -> Path:
        """Write the stack that the table names."""
        return write_stack(self.folder / "p.mrcs", make_images(4, 8))

    def others_bytes(self) -> int:
        return 4096

    def read(self, path: Path) -> object:
        with open_images(open_particles(path)) as images:
            return images.read(np.arange(min(len(images), 100)))


class Listing(TableReader):
    """Lists of stacks (.txt)."""

    tokens = (b"p.mrcs\n", b"../", b"/", b"p.mrcs" * 1000)

    def make(self) -> list[Path]:
        self.stack()
        path = self.folder / "list.txt"
        path.write_text("p.mrcs\n./p.mrcs\np.mrcs\n")
        return [path]


class Star(TableReader):
    """RELION tables of version 3.0 and 3.1."""

    tokens = _STAR_TOKENS

    def make(self) -> list[Path]:
        self.stack()
        common = {
            "_rlnImageName": [f"{number}@p.mrcs" for number in (2, 1, 4, 3)],
            **{f"_rlnAngle{name}": [10.5, 20, -30, 40] for name in ("Rot", "Tilt", "Psi")},
            "_rlnDefocusU": [10000.5, 11000, 12000, 13000],
            "_rlnDefocusV": [10000, 11000, 12000, 13000],
            "_rlnDefocusAngle": [0, 1, 2, 3],
            "_rlnRandomSubset": [1, 2, 1, 2],
            "_rlnGroupName": ["g1", "g 2", "g1", "g1"],
        }
        beam = {
            "_rlnVoltage": [300] * 4,
            "_rlnSphericalAberration": [2.7] * 4,
            "_rlnAmplitudeContrast": [0.1] * 4,
        }
        old = {"_rlnOriginX": [1, 2, 3, 4], "_rlnOriginY": [0.5] * 4}
        scale = {"_rlnMagnification": [50000] * 4, "_rlnDetectorPixelSize": [7.5] * 4}
        write_star(self.folder / "old.star", {"": {**common, **beam, **old, **scale}})
        new = {"_rlnOriginXAngst": [1, 2, 3, 4], "_rlnOriginYAngst": [0.5] * 4}
        optics = {
            "_rlnOpticsGroup": [1, 2],
            "_rlnOpticsGroupName": ["a", "b"],
            "_rlnImagePixelSize": [1.5, 1.5],
            "_rlnImageSize": [8, 8],
            **{name: values[:2] for name, values in beam.items()},
        }
        particles = {**common, **new, "_rlnOpticsGroup": [1, 2, 2, 1]}
        write_star(self.folder / "new.star", {"optics": optics, "particles": particles})
        return [self.folder / "old.star", self.folder / "new.star"]


class Cs(TableReader):
    """cryoSPARC's .cs with poses and CTF."""

    tokens = _CS_TOKENS

    def make(self) -> list[Path]:
        self.stack()
        fields: list[tuple[Any, ...]] = [("uid", "<u8"), ("blob/path", "S8"), ("blob/idx", "<u4")]
        fields += [("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4"), ("blob/sign", "<f4")]
        fields += [("alignments3D/pose", "<f4", (3,)), ("alignments3D/shift", "<f4", (2,))]
        fields += [("alignments3D/psize_A", "<f4"), ("alignments3D/split", "<u4")]
        ctf = ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm", "amp_contrast")
        fields += [(f"ctf/{name}", "<f4") for name in (*ctf, "phase_shift_rad")]
        fields += [("ctf/exp_group_id", "<u4")]
        array = np.zeros(4, fields)
        for name in array.dtype.names or ():
            if array.dtype[name].kind != "S":
                array[name] = 1
        array["uid"], array["blob/path"], array["blob/idx"] = [5, 6, 7, 8], b">p.mrcs", [3, 1, 0, 2]
        array["blob/shape"] = 8
        write_cs(self.folder / "p.cs", array)
        return [self.folder / "p.cs"]


class Csg(TableReader):
    """cryoSPARC's .csg, which names a .cs."""

    tokens = (
        b"results:\n",
        b"    metafile: '>p.cs'\n",
        b"  ",
        b"'",
        b"&a *a",
        b"- ",
        b"!!python/x ",
    )

    def make(self) -> list[Path]:
        made = Cs.make(self)  # type: ignore[arg-type]
        results = dict.fromkeys(("alignments3D", "blob", "ctf"), made[0])
        return [write_csg(self.folder / "p.csg", results)]


class Selections(Reader):
    """Selections by identity (.sel)."""

    tokens = (*_CS_TOKENS, b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"uid.npy", b"\x08\0")

    def make(self) -> list[Path]:
        images = Identities(
            source=np.array([0, 1, 1]), index=np.array([3, 4, 0]), sources=("a.mrcs", "b.mrcs")
        )
        uids = Identities(uid=np.array([5, 6, 7], np.uint64))
        paths = []
        for name, chosen in (("images", images), ("uids", uids)):
            paths.append(self.folder / f"{name}.sel")
            write_selection(paths[-1], Selection(chosen, "score > 1", "p.star", 10))
        return paths

    def read(self, path: Path) -> object:
        return read_selection_file(path)


class Pickles(Reader):
    """cryoDRGN's poses, CTF parameters, selections and latents, of all protocols."""

    tokens = _PICKLE_TOKENS

    def make(self) -> list[Path]:
        rotation, shift = np.tile(np.eye(3, dtype=np.float32), (4, 1, 1)), np.zeros((4, 2))
        ctf = np.tile([64, 1.5, 1e4, 1e4, 30, 300, 2.7, 0.1, 0], (4, 1)).astype(np.float32)
        values = [(rotation, shift), ctf, np.array([3, 1, 2]), [1, 2, 0], {3, 1}, rotation]
        made = []
        for number, value in enumerate(values):
            write_pickle(self.folder / f"{number}.pkl", value)
            for protocol in (0, 2, 5):
                made.append(self.folder / f"{number}.{protocol}.pkl")
                made[-1].write_bytes(pickle.dumps(value, protocol))
            made.append(self.folder / f"{number}.pkl")
        return made

    def read(self, path: Path) -> object:
        readers: tuple[Callable[[Path], object], ...]
        readers = (read_pickle, read_all_pickles, read_poses, read_ctf, read_indices)
        return refuse_or_read(readers, path)


class Store(Reader):
    """Stores: the manifest, rows, order, checksums or a shard is damaged.

    In half of the cases the checksum in the manifest is mended, so that the damage is read.
    """

    tokens = _JSON_TOKENS + _CS_TOKENS

    def make(self) -> list[Path]:
        store = make_store(self.folder, 12, 16, precision=PackSettings().precision)
        self.copy = self.folder / "damaged.frz"
        shutil.copytree(store.path, self.copy)
        return sorted(path for path in store.path.rglob("*") if path.is_file())

    def valid(self) -> Path:
        return self.folder / "X.frz"

    def damage(self, random: Random) -> tuple[Path, int]:
        root = self.valid()
        originals = dict(zip(self.files, self.contents, strict=True))
        for path, data in originals.items():
            (self.copy / path.relative_to(root)).write_bytes(data)
        source = random.choice([root / "manifest.json", *self.files])
        target = self.copy / source.relative_to(root)
        target.write_bytes(mutate(originals[source], random, self.tokens))
        manifest = json.loads(originals[root / "manifest.json"])
        if target.name in manifest["file_checksums"] and random.random() < 0.5:
            manifest["file_checksums"][target.name] = file_checksum(target)
            (self.copy / "manifest.json").write_text(json.dumps(manifest))
        return self.copy, sum(map(len, self.contents)) + target.stat().st_size

    def read(self, path: Path) -> object:
        store = ParticleStore.open(path)
        store.table()
        for _ in store.verify():
            pass
        return store.images(np.arange(min(len(store.rows), 4)))


def refuse_or_read(readers: tuple[Callable[[Path], object], ...], path: Path) -> object:
    """Read a file in several ways; raise the first refusal when all of them refuse."""
    refusals, values = [], []
    for read in readers:
        try:
            values.append(read(path))
        except FrazilError as error:
            refusals.append(error)
    if not values:
        raise refusals[0]
    return values


READERS: dict[str, type[Reader]] = {
    "mrc": Mrc,
    "txt": Listing,
    "star": Star,
    "cs": Cs,
    "csg": Csg,
    "sel": Selections,
    "pkl": Pickles,
    "store": Store,
}
