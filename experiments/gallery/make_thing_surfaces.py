"""Make the surfaces of rigid categories that come with geoframe.

python -m experiments.gallery.make_thing_surfaces [--out FOLDER] [--category NAME ...]

Half a minute each on one quiet core. Which edges a surface has depends on the last bits of what numpy computes, hence
on the processor: the files in `geoframe/zoo/surfaces` were made as on one without AVX-512 (29 November 2026, with
``NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2``). Others have other
vertex numbers, so that models and image sets of things would have to be made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from geoframe._files import atomic_path
from geoframe.zoo import things

DTYPES = {"canonical": np.float32, "verts": np.float32, "parts": np.uint8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/surfaces"))
    parser.add_argument("--category", nargs="+", choices=things.THINGS, default=things.THINGS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for category in options.category:
        arrays = things.made_mesh(things.usual_member(category), things.SIZE)
        small = {
            k: v if v.dtype.kind == "U" else v.astype(DTYPES.get(k, np.uint16)) for k, v in arrays.items()
        }
        with atomic_path(options.out / f"{category}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **small)
        print(category, len(small["verts"]), "vertices")


if __name__ == "__main__":
    main()
