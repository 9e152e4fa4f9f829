"""Every format comes back as written; rotation, palette and alpha follow their rule; each fault names the file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from genad.data.image.decode import PIXEL_LIMIT, PictureFile, oriented, over_black, with_channels, with_depth
from genad.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)


def picture(path, **options):
    return PictureFile(path, path.name, **options)


def saved(tmp_path, name, pixels, mode=None, **options):
    path = tmp_path / name
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tif"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_formats_come_back(tmp_path, ending, pixels):
    path = saved(tmp_path, f"a.{ending}", pixels, **({"lossless": True} if ending == "webp" else {}))
    (frame,) = picture(path).frames()
    expected = pixels if pixels.ndim == 3 else pixels[..., None]
    np.testing.assert_array_equal(frame.pixels, expected)
    assert (frame.name, frame.index, frame.path) == (path.name, 0, path)
    (header,) = picture(path).headers()
    assert (header.height, header.width, header.dtype) == (6, 9, np.uint8)
    assert header.channels >= expected.shape[2]


def test_jpeg_is_close_and_told_by_its_bytes(tmp_path):
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 4
    path = saved(tmp_path, "a.jpg", smooth, quality=95)
    path = path.rename(tmp_path / "named_wrongly.png")
    assert np.abs(picture(path).frame(0)[..., 0].astype(int) - smooth).max() < 10


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits(tmp_path, ending):
    path = saved(tmp_path, f"a.{ending}", DEEP)
    np.testing.assert_array_equal(picture(path).frame(0)[..., 0], DEEP)
    assert picture(path).headers()[0].dtype == np.uint16


@pytest.mark.parametrize(
    ("pixels", "options", "channels", "dtype"),
    [
        (RNG.random((6, 9)).astype(np.float32), {}, 1, np.float32),
        (RNG.random((6, 9)), {}, 1, np.float32),
        (RNG.integers(0, 9, (6, 9), dtype=np.int32), {}, 1, np.float32),
        (RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16), {"photometric": "rgb"}, 3, np.uint16),
        (
            RNG.integers(0, 256, (6, 9, 5), dtype=np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig"},
            5,
            np.uint8,
        ),
        (COLOUR, {"photometric": "rgb", "compression": "zlib"}, 3, np.uint8),
        (DEEP.astype(">u2"), {"byteorder": ">"}, 1, np.uint16),
    ],
    ids=["float32", "float64", "int32", "rgb16", "five", "deflate", "big endian"],
)
def test_tiff_depths_and_channels(tmp_path, pixels, options, channels, dtype):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    found = picture(path).frame(0)
    assert found.shape == (6, 9, channels)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels.reshape(found.shape).astype(dtype))
    (header,) = picture(path).headers()
    assert (header.height, header.width, header.channels, header.dtype) == (6, 9, channels, dtype)


def test_planar_tiff(tmp_path):
    planes = RNG.integers(0, 256, (5, 6, 9), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="separate")
    np.testing.assert_array_equal(picture(tmp_path / "a.tif").frame(0), np.moveaxis(planes, 0, -1))


def test_each_page_is_an_image_and_thumbnails_are_none(tmp_path):
    path = tmp_path / "a.tif"
    pages = RNG.integers(0, 256, (3, 6, 9), dtype=np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page)
        writer.write(pages[0, ::2, ::2], subfiletype=1)
    source = picture(path)
    assert [frame.name for frame in source.frames()] == ["a.tif#0", "a.tif#1", "a.tif#2"]
    assert len(source.headers()) == 3
    np.testing.assert_array_equal(source.frame(2)[..., 0], pages[2])
    with pytest.raises(InputError, match="no image number 3"):
        source.frame(3)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_packed_tiff(tmp_path, compression):
    path = saved(tmp_path, "a.tif", COLOUR, compression=compression)
    np.testing.assert_array_equal(picture(path).frame(0), COLOUR)


def test_packed_tiff_is_turned_once(tmp_path):
    image = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[274] = 6
    path = saved(tmp_path, "a.tif", image, compression="tiff_lzw", tiffinfo=exif)
    np.testing.assert_array_equal(picture(path).frame(0), oriented(COLOUR, 6))
    assert picture(path).headers()[0].height == 9


def test_packed_pages_are_not_mixed_up(tmp_path):
    path = tmp_path / "a.tif"
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(picture(path).frame(1)[..., 0], 255 - GREY)


def test_palette_tiff_and_white_is_zero(tmp_path):
    palette = saved(tmp_path, "p.tif", Image.fromarray(COLOUR).quantize(16))
    expected = np.asarray(Image.open(palette).convert("RGB"))
    np.testing.assert_array_equal(picture(palette).frame(0), expected)
    tifffile.imwrite(tmp_path / "w.tif", GREY, photometric="miniswhite")
    np.testing.assert_array_equal(picture(tmp_path / "w.tif").frame(0)[..., 0], 255 - GREY)


def test_bits(tmp_path):
    bits = GREY > 127
    for ending in ("png", "tif"):
        path = saved(tmp_path, f"a.{ending}", bits)
        np.testing.assert_array_equal(picture(path).frame(0)[..., 0], bits * np.uint8(255))


def test_palette_is_expanded(tmp_path):
    image = Image.fromarray(COLOUR).quantize(20)
    path = saved(tmp_path, "a.png", image)
    np.testing.assert_array_equal(picture(path).frame(0), np.asarray(image.convert("RGB")))


def test_grey_stored_as_colour_is_one_channel(tmp_path):
    path = saved(tmp_path, "a.png", np.repeat(GREY[..., None], 3, 2))
    np.testing.assert_array_equal(picture(path).frame(0), GREY[..., None])


def test_alpha_is_dropped_when_opaque_and_blended_over_black_otherwise(tmp_path):
    alpha = np.full(GREY.shape, 255, np.uint8)
    opaque = saved(tmp_path, "o.png", np.dstack([COLOUR, alpha]))
    np.testing.assert_array_equal(picture(opaque).frame(0), COLOUR)
    alpha[0], alpha[1] = 0, 128
    for ending in ("png", "webp"):
        path = saved(
            tmp_path,
            f"t.{ending}",
            np.dstack([COLOUR, alpha]),
            **({"lossless": True, "exact": True} if ending == "webp" else {}),
        )
        found = picture(path).frame(0)
        assert (found[0] == 0).all()
        np.testing.assert_allclose(found[1], COLOUR[1] * (128 / 255), atol=0.51)
        np.testing.assert_array_equal(found[2:], COLOUR[2:])
    tifffile.imwrite(tmp_path / "t.tif", np.dstack([COLOUR, alpha]), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(picture(tmp_path / "t.tif").frame(0), found)
    assert picture(tmp_path / "t.tif").headers()[0].channels == 3
    grey = saved(tmp_path, "g.png", np.dstack([GREY, alpha]), mode="LA")
    assert picture(grey).frame(0).shape == (6, 9, 1)


def test_transparent_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([200, 100, 50, 10, 20, 30])
    path = tmp_path / "a.png"
    image.save(path, transparency=0)
    assert picture(path).frame(0)[0].tolist() == [[0, 0, 0], [10, 20, 30]]


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(tmp_path, "a.tif", Image.fromarray(COLOUR).convert("CMYK"))
    np.testing.assert_allclose(picture(path).frame(0).astype(int), COLOUR, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_rotation_is_applied(tmp_path, orientation, ending):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 250
    upright[:8, 16:] = 120
    # How a camera that was held that way stores the picture: the inverse of the turn it asks for.
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = np.ascontiguousarray(oriented(upright, inverse))
    path = tmp_path / f"a.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, stored, extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(path, exif=exif)
    source = picture(path)
    assert np.abs(source.frame(0)[..., 0].astype(int) - upright).max() < 12
    assert (source.headers()[0].height, source.headers()[0].width) == (16, 24)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
    from PIL import ImageOps

    image = Image.fromarray(GREY)
    image.getexif()[274] = orientation
    np.testing.assert_array_equal(oriented(GREY, orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_over_black_of_floats():
    assert over_black(np.array([[[0.5, 0.5], [0.5, 2.0]]], np.float32)).ravel().tolist() == [0.25, 0.5]


def test_channels():
    assert with_channels(GREY[..., None], 3, "a").shape == (6, 9, 3)
    luma = with_channels(COLOUR, 1, "a")[..., 0]
    assert np.abs(luma.astype(int) - np.asarray(Image.fromarray(COLOUR).convert("L"))).max() <= 1
    with pytest.raises(InputError, match="a has 5 channels where 3 are wanted"):
        with_channels(np.zeros((2, 2, 5)), 3, "a")


def test_depths():
    np.testing.assert_array_equal(with_depth(np.array([0, 255], np.uint8), np.dtype(np.uint16), "a"), [0, 65535])
    with pytest.raises(InputError, match="a holds float32 values among images of uint8"):
        with_depth(np.zeros(1, np.float32), np.dtype(np.uint8), "a")


def bomb(width, height):
    """A PNG file whose header promises more than it holds."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(50_000, 50_000))
    for call in (picture(path).headers, lambda: list(picture(path).frames()), lambda: picture(path).frame(0)):
        with pytest.raises(InputError, match=r"bomb\.png is 50000 x 50000, 2,500,000,000 pixels; at most 200,000,000"):
            call()


def test_large_pictures_below_the_limit_give_no_warning(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (12_000, 9_000)).save(path)
    assert picture(path).frame(0).shape == (9_000, 12_000, 1)
    assert PIXEL_LIMIT > 12_000**2
    with pytest.raises(InputError, match="raise pixel_limit"):
        picture(path, pixel_limit=10**6).headers()


def test_faults_name_the_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    png = io.BytesIO()
    Image.fromarray(COLOUR).save(png, "PNG")
    tif = io.BytesIO()
    tifffile.imwrite(tif, RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    cases = {
        "cut.jpg": (buffer.getvalue()[: len(buffer.getvalue()) // 2], r"cut\.jpg cannot be decoded .*skip_broken=True"),
        "cut.png": (png.getvalue()[:-40], r"cut\.png cannot be decoded"),
        "head.png": (png.getvalue()[:20], r"head\.png cannot be decoded"),
        "cut.tif": (tif.getvalue()[:-1000], r"cut\.tif cannot be decoded"),
        "head.tif": (b"II*\0" + b"\0" * 8, r"head\.tif"),
        "bomb.png": (bomb(10, 10), r"bomb\.png cannot be decoded"),
        "text.png": (b"hello, I am text", r"text\.png is not an image: it starts with b'hello, I'"),
        "empty.png": (b"", r"empty\.png is empty"),
        "none.png": (bomb(0, 3), r"none\.png"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            list(picture(tmp_path / name).frames())
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        picture(tmp_path / "gone.png").headers()


def test_tiff_that_nobody_unpacks(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, RNG.integers(0, 256, (16, 16, 5), dtype=np.uint8), photometric="minisblack", planarconfig="contig"
    )
    data = bytearray(path.read_bytes())
    at = data.find(struct.pack("<HHI", 259, 3, 1))
    data[at + 8 : at + 10] = struct.pack("<H", 5)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"a\.tif is a TIFF file packed by LZW with 5 channels of 8 bits"):
        picture(path).frame(0)
