"""Optical flow in files: formats written and read again, layouts of the field on small files, bad files in a line."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.data.flow_files import list_flow_pairs, read_flow, read_png16, write_flow


def a_flow(height: int = 5, width: int = 7) -> torch.Tensor:
    flow = (
        torch.round(64 * torch.randn(2, height, width, generator=torch.Generator().manual_seed(0)) * 20) / 64
    )
    flow[:, 1, 2] = torch.nan
    return flow


@pytest.mark.parametrize("ending", [".flo", ".png"])
def test_what_is_written_is_read_again(tmp_path, ending):
    flow = a_flow()
    write_flow(tmp_path / f"x{ending}", flow)
    torch.testing.assert_close(read_flow(tmp_path / f"x{ending}"), flow, rtol=0, atol=0, equal_nan=True)


def test_flo_has_the_layout_that_others_read(tmp_path):
    write_flow(tmp_path / "x.flo", torch.tensor([[[1.5, 2.0]], [[-3.0, 4.0]]]))
    data = (tmp_path / "x.flo").read_bytes()
    assert data[:4] == b"PIEH" and struct.unpack("<ii4f", data[4:]) == (2, 1, 1.5, -3.0, 2.0, 4.0)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
def test_every_filter_of_png_is_undone(kind):
    """Bytes are filtered here by the definition of the format, pixel by pixel."""
    pixels = np.random.default_rng(kind).integers(0, 65536, (4, 3, 3)).astype(">u2")
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(4, 18).astype(int)
    raw = b""
    for y in range(4):
        line = [kind]
        for x in range(18):
            left = rows[y, x - 6] if x >= 6 else 0
            up = rows[y - 1, x] if y else 0
            corner = rows[y - 1, x - 6] if y and x >= 6 else 0
            paeth = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
            line.append((rows[y, x] - (0, left, up, (left + up) // 2, paeth)[kind]) % 256)
        raw += bytes(line)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 3, 4, 16, 2, 0, 0, 0)
    file = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    assert np.array_equal(read_png16(file), pixels)


def test_bad_files_are_told_in_a_line(tmp_path):
    path = tmp_path / "x.flo"
    with pytest.raises(ValueError, match=r"cannot read .*No such file"):
        read_flow(path)
    path.write_bytes(b"nonsense of some length")
    with pytest.raises(ValueError, match=r"expected a \.flo file"):
        read_flow(path)
    write_flow(path, a_flow())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="expected 7 x 5 pixels of 8 bytes after the head, found 272 bytes"):
        read_flow(path)
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="expected a PNG of 3 x 16 bits"):
        read_flow(tmp_path / "x.png")
    with pytest.raises(ValueError, match="at most 512 pixels for a PNG, found 600"):
        write_flow(tmp_path / "y.png", torch.full((2, 2, 2), 600.0))
    with pytest.raises(ValueError, match="suffix of the flow file: expected one of"):
        write_flow(tmp_path / "y.txt", a_flow())


def picture(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (7, 5)).save(path)


def test_layouts(tmp_path):
    for scene in ("alley", "bamboo"):
        for i in (1, 2, 3):
            picture(tmp_path / f"sintel/training/clean/{scene}/frame_000{i}.png")
        for i in (1, 2):
            write_flow(tmp_path / f"sintel/training/flow/{scene}/frame_000{i}.flo", a_flow())
            picture(tmp_path / f"sintel/training/invalid/{scene}/frame_000{i}.png")
    sintel = list_flow_pairs(tmp_path / "sintel", "sintel")
    assert [p.name for p in sintel][:2] == ["alley/frame_0001", "alley/frame_0002"] and len(sintel) == 4
    assert sintel[0].image1.name == "frame_0002.png" and sintel[0].occlusion() is None
    torch.testing.assert_close(sintel[0].true_flow(), a_flow(), equal_nan=True)
    for name in ("000000_10", "000000_11"):
        picture(tmp_path / f"kitti/training/image_2/{name}.png")
    write_flow(tmp_path / "kitti/training/flow_occ/000000_10.png", a_flow())
    (kitti,) = list_flow_pairs(tmp_path / "kitti", "kitti")
    torch.testing.assert_close(kitti.true_flow(), a_flow(), equal_nan=True)
    for name in ("00001_img1.ppm", "00001_img2.ppm"):
        picture(tmp_path / "chairs/data" / name)
    write_flow(tmp_path / "chairs/data/00001_flow.flo", a_flow())
    (chairs,) = list_flow_pairs(tmp_path / "chairs", "chairs")
    assert chairs.name == "00001" and chairs.true_flow().shape == (2, 5, 7)
    for name in ("frame10.png", "frame11.png"):
        picture(tmp_path / "middlebury/other-data/Venus" / name)
    write_flow(tmp_path / "middlebury/other-gt-flow/Venus/flow10.flo", a_flow())
    (venus,) = list_flow_pairs(tmp_path / "middlebury", "middlebury")
    assert venus.flow is not None
    for i in (0, 1):
        picture(tmp_path / f"davis/JPEGImages/480p/cow/0000{i}.jpg")
        picture(tmp_path / f"davis/Annotations/480p/cow/0000{i}.png")
    (cow,) = list_flow_pairs(tmp_path / "davis", "davis")
    assert cow.masks is not None and cow.masks[1].name == "00001.png"
    with pytest.raises(ValueError, match="cow/00000: expected a flow, found none"):
        cow.true_flow()


def test_invalid_pixels_are_unknown(tmp_path):
    for name in ("frame10.png", "frame11.png"):
        picture(tmp_path / "A" / name)
    write_flow(tmp_path / "A/flow10.flo", torch.ones(2, 5, 7))
    mask = np.zeros((5, 7), np.uint8)
    mask[2, 3] = 255
    Image.fromarray(mask).save(tmp_path / "A/invalid.png")
    (pair,) = list_flow_pairs(tmp_path, "middlebury")
    assert torch.isnan(pair.true_flow()).nonzero().tolist() == [[0, 2, 3], [1, 2, 3]]
    Image.new("L", (4, 4)).save(tmp_path / "A/invalid.png")
    with pytest.raises(
        ValueError, match=r"invalid\.png: expected \(5, 7\) pixels as its flow, found \(4, 4\)"
    ):
        pair.true_flow()


def test_a_missing_second_frame_and_an_empty_folder_are_told(tmp_path):
    with pytest.raises(ValueError, match="expected pairs of frames in the layout of kitti, found none"):
        list_flow_pairs(tmp_path, "kitti")
    picture(tmp_path / "training/image_2/000000_10.png")
    with pytest.raises(ValueError, match=r"expected its second frame 000000_11\.png, found none"):
        list_flow_pairs(tmp_path, "kitti")
    with pytest.raises(ValueError, match="layout: expected one of"):
        list_flow_pairs(tmp_path, "nonsense")
    with pytest.raises(ValueError, match="part: expected one of 'occ', 'noc'"):
        list_flow_pairs(tmp_path, "kitti", part="clean")
