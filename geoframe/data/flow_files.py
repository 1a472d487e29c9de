"""Optical flow in files: .flo and KITTI's PNG, and the layouts of Sintel, KITTI, FlyingChairs, Middlebury and DAVIS.

A flow is (2, H, W) float32, x and y in pixels, from image 0 to image 1; NaN where it is unknown.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice, check_shape
from geoframe._files import atomic_path
from geoframe._types import Array

_MAGIC = 202021.25
_UNKNOWN = 1e9  # of .flo: larger values mean unknown
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class FlowPair:
    """Two frames and the files of what is known of the motion between them.

    Attributes:
        name: of the pair, unique in its set.
        image0: file of the first frame.
        image1: file of the second.
        flow: file of the flow; None where there is none.
        invalid: file whose non-zero pixels are not to be judged by; None for none.
        occluded: file whose non-zero pixels of image 0 are not seen in image 1; None for none.
        masks: files with the object of image 0 and of image 1; None for none.
    """

    name: str
    image0: Path
    image1: Path
    flow: Path | None = None
    invalid: Path | None = None
    occluded: Path | None = None
    masks: tuple[Path, Path] | None = None

    def true_flow(self) -> Tensor:
        """The flow (2, H, W); NaN where it is unknown or invalid.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        if self.flow is None:
            raise ValueError(f"{self.name}: expected a flow, found none in this layout")
        flow = read_flow(self.flow)
        if self.invalid is not None:
            flow[:, _marked(self.invalid, flow)] = torch.nan
        return flow

    def occlusion(self) -> Tensor | None:
        """Pixels (H, W) bool of image 0 that image 1 does not show; None where it is not known."""
        return None if self.occluded is None else _marked(self.occluded, None)


def read_flow(path: str | Path) -> Tensor:
    """A flow from a .flo file, or from a PNG as KITTI has it.

    Returns:
        (2, H, W) float32, pixels; NaN where it is unknown.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as err:
        raise ValueError(f"cannot read {path}: {err.strerror or err}") from err
    try:
        found = _from_png(data) if data.startswith(_PNG) else _from_flo(data)
    except (ValueError, struct.error, zlib.error) as err:
        raise ValueError(f"cannot read {path}: {err}") from err
    return torch.from_numpy(found)


def write_flow(path: str | Path, flow: Tensor) -> None:
    """Write a flow, whole or not at all.

    Args:
        path: ending in .flo, or in .png for KITTI's format, which has steps of 1/64 pixel and a reach of 512.
        flow: (2, H, W), pixels; NaN where it is unknown.

    Raises:
        ValueError: another ending or shape, a flow out of reach of the format.
    """
    path = Path(path)
    check_shape(flow, "2 H W", "flow")
    check_choice(path.suffix.lower(), (".flo", ".png"), "suffix of the flow file")
    values = flow.detach().cpu().float().numpy()
    data = _to_flo(values) if path.suffix.lower() == ".flo" else _to_png(values)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _from_flo(data: bytes) -> Array:
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != _MAGIC:
        raise ValueError("expected a .flo file, which begins with PIEH, or a PNG, found another beginning")
    W, H = struct.unpack("<ii", data[4:12])
    if W < 1 or H < 1 or len(data) - 12 != 8 * W * H:
        raise ValueError(f"expected {W} x {H} pixels of 8 bytes after the head, found {len(data) - 12} bytes")
    values = np.frombuffer(data, "<f4", offset=12).reshape(H, W, 2).transpose(2, 0, 1).astype(np.float32)
    unknown = ~(np.abs(values) <= _UNKNOWN).all(0)
    values[:, unknown] = np.nan
    return np.ascontiguousarray(values)


def _to_flo(flow: Array) -> bytes:
    values = np.where(np.isfinite(flow).all(0), flow, np.float32(2 * _UNKNOWN)).astype("<f4")
    head = struct.pack("<fii", _MAGIC, flow.shape[2], flow.shape[1])
    return head + np.ascontiguousarray(values.transpose(1, 2, 0)).tobytes()


def _from_png(data: bytes) -> Array:
    """KITTI's flow: three channels of 16 bits, u and v times 64 plus 2^15, and whether it is known."""
    pixels = read_png16(data).astype(np.float32)
    flow = (pixels[..., :2].transpose(2, 0, 1) - 32768) / 64
    flow[:, pixels[..., 2] == 0] = np.nan
    return np.ascontiguousarray(flow)


def _to_png(flow: Array) -> bytes:
    known = np.isfinite(flow).all(0)
    codes = np.round(np.where(known, flow, 0) * 64) + 32768
    if codes.size and (codes.min() < 0 or codes.max() > 65535):
        raise ValueError(
            f"flow: expected at most 512 pixels for a PNG, found {np.nanmax(np.abs(flow)):.4g}; write a .flo file"
        )
    channels = np.stack([codes[0], codes[1], np.ones_like(codes[0])]) * known
    rows = np.ascontiguousarray(channels.transpose(1, 2, 0)).astype(">u2")
    H, W = known.shape
    raw = b"".join(b"\x00" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    return _PNG + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(raw, 6)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def read_png16(data: bytes) -> Array:
    """The pixels (H, W, 3) uint16 of a PNG with three channels of 16 bits; common readers halve their depth.

    Raises:
        ValueError: not such a PNG, or one that was cut off.
    """
    at, packed, head = len(_PNG), b"", None
    while at + 8 <= len(data):
        n, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + n]
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        at += n + 12
    if head is None or head[2:] != (16, 2, 0, 0, 0):
        raise ValueError("expected a PNG of 3 x 16 bits as KITTI's flow is, found another kind")
    W, H = head[:2]
    raw = np.frombuffer(zlib.decompress(packed), np.uint8)
    if raw.size != H * (6 * W + 1):
        raise ValueError(
            f"expected {H} rows of {6 * W + 1} bytes, found {raw.size} bytes; the file is cut off"
        )
    rows = raw.reshape(H, 6 * W + 1)
    out = _unfiltered(rows[:, 0], rows[:, 1:])
    return out.reshape(H, W, 3, 2).astype(np.uint16) @ np.array([256, 1], np.uint16)


def _unfiltered(kinds: Array, rows: Array, step: int = 6) -> Array:
    """Rows of a PNG before they were filtered; `step` bytes a pixel."""
    out = np.zeros((len(rows) + 1, rows.shape[1] + step), np.int64)  # a row above, a pixel to the left
    for y, kind in enumerate(kinds):
        row, above, here = rows[y].astype(np.int64), out[y], out[y + 1]
        if kind == 0:
            here[step:] = row
        elif kind == 1:
            for k in range(step):
                here[step + k :: step] = np.cumsum(row[k::step]) % 256
        elif kind == 2:
            here[step:] = (row + above[step:]) % 256
        elif kind in (3, 4):
            _predicted(int(kind), row, above, here, step)
        else:
            raise ValueError(f"expected filters 0 to 4, found {kind}")
    return out[1:, step:].astype(np.uint8)


def _predicted(kind: int, row: Array, above: Array, here: Array, step: int) -> None:
    """Rows whose pixels were predicted from the left and above, by their mean (3) or Paeth's rule (4)."""
    for x in range(0, len(row), step):
        left, up, corner = here[x : x + step], above[x + step : x + 2 * step], above[x : x + step]
        if kind == 3:
            guess = (left + up) // 2
        else:
            p = left + up - corner
            a, b, c = np.abs(p - left), np.abs(p - up), np.abs(p - corner)
            guess = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
        here[x + step : x + 2 * step] = (row[x : x + step] + guess) % 256


def _marked(path: Path, flow: Tensor | None) -> Tensor:
    """Non-zero pixels (H, W) of a grey picture."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            marked = torch.from_numpy(np.array(file.convert("L")) > 0)
    except (OSError, SyntaxError) as err:
        raise ValueError(f"cannot read {path}: {err}") from err
    if flow is not None and marked.shape != flow.shape[1:]:
        raise ValueError(
            f"{path}: expected {tuple(flow.shape[1:])} pixels as its flow, found {tuple(marked.shape)}"
        )
    return marked


def _sintel(root: Path, part: str) -> list[FlowPair]:
    """part/SCENE/frame_0001.png ..., flow/, invalid/ and occlusions/ beside it."""
    base = root / "training" if (root / "training").is_dir() else root
    pairs = []
    for scene in sorted(p for p in (base / part).glob("*") if p.is_dir()):
        frames = sorted(scene.glob("*.png"))
        for a, b in pairwise(frames):
            rest = (base / kind / scene.name / f"{a.stem}.png" for kind in ("invalid", "occlusions"))
            invalid, occluded = (p if p.is_file() else None for p in rest)
            flow = base / "flow" / scene.name / f"{a.stem}.flo"
            pairs.append(FlowPair(f"{scene.name}/{a.stem}", a, b, _known(flow), invalid, occluded))
    return pairs


def _kitti(root: Path, part: str) -> list[FlowPair]:
    """image_2 (2015), colored_0 or image_0 (2012) with 000000_10.png and 000000_11.png, flow_occ or flow_noc."""
    base = root / "training" if (root / "training").is_dir() else root
    folders = [base / name for name in ("image_2", "colored_0", "image_0")]
    images = next((f for f in folders if f.is_dir()), folders[0])
    pairs = []
    for a in sorted(images.glob("*_10.png")):
        flow = base / f"flow_{part}" / a.name
        pairs.append(FlowPair(a.stem[:-3], a, a.with_name(a.name.replace("_10", "_11")), _known(flow)))
    return pairs


def _chairs(root: Path, _part: str) -> list[FlowPair]:
    """data/00001_img1.ppm, 00001_img2.ppm, 00001_flow.flo."""
    base = root / "data" if (root / "data").is_dir() else root
    pairs = []
    for a in sorted(base.glob("*_img1.*")):
        name = a.stem.removesuffix("_img1")
        b = a.with_name(a.name.replace("_img1", "_img2"))
        pairs.append(FlowPair(name, a, b, _known(base / f"{name}_flow.flo")))
    return pairs


def _middlebury(root: Path, _part: str) -> list[FlowPair]:
    """NAME/frame10.png, frame11.png, flow10.flo; or in other-data/ and other-gt-flow/."""
    images = root / "other-data" if (root / "other-data").is_dir() else root
    pairs = []
    for scene in sorted(p for p in images.glob("*") if (p / "frame10.png").is_file()):
        truth = root / "other-gt-flow" / scene.name if images != root else scene
        rest = (scene / name for name in ("invalid.png", "occlusions.png"))
        invalid, occluded = (p if p.is_file() else None for p in rest)
        two = (scene / "frame10.png", scene / "frame11.png")
        pairs.append(FlowPair(scene.name, *two, _known(truth / "flow10.flo"), invalid, occluded))
    return pairs


def _davis(root: Path, part: str) -> list[FlowPair]:
    """JPEGImages/480p/NAME/00000.jpg with Annotations/480p/NAME/00000.png; or NAME/00000.jpg with NAME/00000.png."""
    official = (root / "JPEGImages").is_dir()
    images = root / "JPEGImages" / part if official else root
    pairs = []
    for scene in sorted(p for p in images.glob("*") if p.is_dir()):
        frames = sorted(scene.glob("*.jpg"))
        masks = root / "Annotations" / part / scene.name if official else scene
        for a, b in pairwise(frames):
            two = (masks / f"{a.stem}.png", masks / f"{b.stem}.png")
            known = two if all(p.is_file() for p in two) else None
            pairs.append(FlowPair(f"{scene.name}/{a.stem}", a, b, masks=known))
    return pairs


def _known(path: Path) -> Path | None:
    return path if path.is_file() else None


_LAYOUTS: dict[str, tuple[Callable[[Path, str], list[FlowPair]], tuple[str, ...]]] = {
    "sintel": (_sintel, ("clean", "final")),
    "kitti": (_kitti, ("occ", "noc")),
    "chairs": (_chairs, ("all",)),
    "middlebury": (_middlebury, ("all",)),
    "davis": (_davis, ("480p", "1080p", "Full-Resolution")),
}


def list_flow_pairs(root: str | Path, layout: str, *, part: str | None = None) -> list[FlowPair]:
    """Pairs of successive frames in one of the field's layouts, in the order of their names.

    Args:
        root: the folder the data set was unpacked to.
        layout: "sintel", "kitti" (2012 and 2015), "chairs" (FlyingChairs), "middlebury" or "davis".
        part: of Sintel "clean" or "final", of KITTI "occ" or "noc", of DAVIS the resolution; the first by default.

    Raises:
        ValueError: another layout or part, no pair in the folder, a second frame that is missing.
    """
    root = Path(root)
    reader, parts = _LAYOUTS[check_choice(layout, tuple(_LAYOUTS), "layout")]
    pairs = reader(root, check_choice(part or parts[0], parts, "part"))
    if not pairs:
        raise ValueError(
            f"{root}: expected pairs of frames in the layout of {layout}, found none; see {reader.__doc__}"
        )
    for pair in pairs:
        if not pair.image1.is_file():
            raise ValueError(f"{pair.image0}: expected its second frame {pair.image1.name}, found none")
    return pairs
