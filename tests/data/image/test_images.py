"""A collection of images: its rules of size, colour and depth, and what its parts keep."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from genad.data.image import Images, holds_images, read_images
from genad.data.image.decode import PictureFile
from genad.data.image.masks import Mask
from genad.errors import DataWarning, InputError, InputTypeError

RNG = np.random.default_rng(0)


def put(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return path


def grey(h=8, w=8):
    return RNG.integers(0, 256, (h, w), dtype=np.uint8)


def colour(h=8, w=8):
    return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_a_folder_is_searched_through_and_through(tmp_path):
    pixels = {"b.png": grey(), "a/c.png": grey(), "a/b/d.bmp": grey()}
    for name, image in pixels.items():
        put(tmp_path / name, image)
    (tmp_path / "notes.txt").write_text("no image")
    put(tmp_path / ".hidden.png", grey())
    put(tmp_path / ".thumbs" / "e.png", grey())
    calls = []
    images = read_images(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert images.names == ["a/b/d.bmp", "a/c.png", "b.png"]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert images.shape == (1, 8, 8)
    assert (images.low, images.high) == (0, 255)
    for i, name in enumerate(images.names):
        np.testing.assert_array_equal(images[i][0], pixels[name])
        np.testing.assert_array_equal(images.original(i)[..., 0], pixels[name])
        assert images.paths[i] == tmp_path / name
    assert images.labels is None
    assert images.mask(0) is None


def test_one_file_and_a_list(tmp_path):
    a, b = put(tmp_path / "x" / "a.png", grey()), put(tmp_path / "y" / "b.png", grey())
    assert read_images(a).names == ["a.png"]
    assert read_images([b, str(a)]).names == ["y/b.png", "x/a.png"]
    with pytest.raises(InputError, match=r"a\.png' was given twice"):
        read_images([a, a])


def test_colour_when_any_is_and_greys_are_repeated(tmp_path):
    plain, bright = grey(), colour()
    put(tmp_path / "a.png", plain)
    put(tmp_path / "b.png", bright)
    images = read_images(tmp_path)
    assert images.shape == (3, 8, 8)
    np.testing.assert_array_equal(images[0], np.repeat(plain[None], 3, 0))
    np.testing.assert_array_equal(images[1], bright.transpose(2, 0, 1))
    assert images.original(0).shape == (8, 8, 3)
    assert read_images(tmp_path, channels=1).shape == (1, 8, 8)


def test_grey_stored_as_colour_everywhere_is_one_channel(tmp_path):
    plain = grey()
    put(tmp_path / "a.png", np.repeat(plain[..., None], 3, 2))
    put(tmp_path / "b.png", plain)
    images = read_images(tmp_path)
    assert images.shape == (1, 8, 8)
    assert images.original(0).shape == (8, 8, 1)
    assert read_images(tmp_path, channels=3).shape == (3, 8, 8)


def test_depths_are_brought_to_the_deepest(tmp_path):
    deep = RNG.integers(0, 65536, (8, 8), dtype=np.uint16)
    plain = grey()
    put(tmp_path / "a.png", plain)
    put(tmp_path / "b.png", deep)
    images = read_images(tmp_path)
    assert images.pixels.dtype == np.uint16
    assert images.high == 65535
    np.testing.assert_array_equal(images[0][0], plain.astype(np.uint16) * 257)
    np.testing.assert_array_equal(images[1][0], deep)
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((8, 8), np.float32))
    with pytest.raises(InputError, match=r"floats and of whole numbers are mixed .*c\.tif float32"):
        read_images(tmp_path)


def test_channels_that_do_not_go_together(tmp_path):
    put(tmp_path / "a.png", grey())
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"a\.png 1, b\.tif 5.*only 1 and 3 go together"):
        read_images(tmp_path)
    assert read_images(tmp_path / "b.tif").shape == (5, 8, 8)
    with pytest.raises(InputError, match="channels: 0 was given"):
        read_images(tmp_path, channels=0)


def test_pages_of_a_file_are_images(tmp_path):
    pages = RNG.integers(0, 65536, (3, 8, 8), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", pages, photometric="minisblack")
    images = read_images(tmp_path)
    assert images.names == ["s.tif#0", "s.tif#1", "s.tif#2"]
    np.testing.assert_array_equal(images.pixels[:, 0], pages)
    np.testing.assert_array_equal(images.original(1)[..., 0], pages[1])


def test_mixed_sizes_warn_when_aspects_differ(tmp_path):
    put(tmp_path / "a.png", grey(8, 8))
    put(tmp_path / "b.png", grey(8, 8))
    put(tmp_path / "c.png", grey(16, 16))
    images = read_images(tmp_path)
    assert images.shape == (1, 8, 8)
    assert images.sizes.tolist() == [[8, 8], [8, 8], [16, 16]]
    put(tmp_path / "d.png", grey(8, 16))
    with pytest.warns(DataWarning, match=r"run from 1 to 2: all .* 8 x 8 .*stretches 1 of 4") as caught:
        read_images(tmp_path)
    assert caught[0].filename == __file__
    with pytest.warns(DataWarning, match="stretches 3 of 4"):
        assert read_images(tmp_path, size=(8, 16)).shape == (1, 8, 16)


def test_large_collections_lie_on_disk(tmp_path):
    for i in range(4):
        put(tmp_path / f"{i}.png", colour())
    memory, disk = read_images(tmp_path), read_images(tmp_path, memory=100)
    assert isinstance(disk.pixels, np.memmap)
    np.testing.assert_array_equal(memory.pixels, disk.pixels)
    assert isinstance(disk.take([3, 0]).pixels, np.memmap)
    torch.from_numpy(disk.pixels)


def test_broken_files_stop_or_are_listed(tmp_path):
    put(tmp_path / "a.png", grey())
    cut = put(tmp_path / "b.jpg", RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    cut.write_bytes(cut.read_bytes()[:-800])
    (tmp_path / "c.png").write_text("hello")
    with pytest.raises(InputError, match=r"c\.png is not an image"):
        read_images(tmp_path)
    with pytest.warns(DataWarning, match="2 files cannot be read and are left out: 'c.png', 'b.jpg'"):
        images = read_images(tmp_path, skip_broken=True)
    assert images.names == ["a.png"]
    assert len(images.pixels) == 1
    assert set(images.broken) == {"b.jpg", "c.png"}
    assert "cut short" in images.broken["b.jpg"]
    with pytest.raises(InputError, match=r"none of the 1 files can be read. The first: .*c\.png"):
        read_images(tmp_path / "c.png", skip_broken=True)


def test_one_pixel(tmp_path):
    put(tmp_path / "a.png", np.array([[7]], np.uint8))
    assert read_images(tmp_path)[0].tolist() == [[[7]]]


def test_holds_images(tmp_path):
    assert not holds_images(tmp_path)
    assert not holds_images(tmp_path / "gone")
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert not holds_images(tmp_path)
    path = put(tmp_path / "deep" / "er" / "a.PNG", grey())
    assert holds_images(tmp_path)
    assert holds_images(str(path))


@pytest.mark.parametrize(
    ("arrays", "shape"),
    [
        (np.zeros((5, 8, 6)), (1, 8, 6)),
        (RNG.random((5, 8, 6, 3)), (3, 8, 6)),
        (RNG.random((5, 3, 8, 6)), (3, 8, 6)),
        (torch.rand(5, 3, 8, 6), (3, 8, 6)),
        (torch.rand(5, 7, 8, 6), (7, 8, 6)),
        (RNG.random((5, 8, 6, 7)), (7, 8, 6)),
        (RNG.random((5, 3, 4, 3)), (3, 3, 4)),
        (torch.rand(5, 3, 4, 4), (3, 4, 4)),
        ([RNG.random((8, 6, 3)), RNG.random((3, 8, 6))], (3, 8, 6)),
    ],
)
def test_arrays(arrays, shape):
    images = Images.from_arrays(arrays)
    assert images.shape == shape
    assert images.names == [str(i) for i in range(len(arrays))]
    assert images.pixels.dtype == np.float32
    assert images.paths == [None] * len(arrays)
    assert images.original(0).shape == (*shape[1:], shape[0])


def test_arrays_keep_their_depth_and_say_their_range():
    assert Images.from_arrays(np.full((2, 4, 4), 300, np.uint16)).high == 65535
    assert Images.from_arrays(np.eye(4)[None] > 0).pixels.max() == 255
    floats = Images.from_arrays(np.linspace(-2, 3, 32).reshape(2, 4, 4))
    assert (floats.low, floats.high) == (-2, 3)
    assert (Images.from_arrays(np.full((2, 4, 4), 0.5)).low, Images.from_arrays(np.full((2, 4, 4), 0.5)).high) == (0, 1)
    constant = Images.from_arrays(np.full((2, 4, 4), 7.0))
    assert (constant.low, constant.high) == (7, 8)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([], InputError, "no image was given"),
        (np.zeros((3, 3)), InputError, r"X has shape \(3, 3\); accepted are \(n, H, W\)"),
        ([np.zeros(3)], InputError, r"image 0 has shape \(3,\)"),
        ([np.zeros((0, 3))], InputError, r"image 0 has shape \(0, 3\); it has no pixels"),
        (np.full((2, 3, 3), np.nan), InputError, "0 holds NaN or infinite values"),
        (np.array([[["a"]]]), InputTypeError, "values of type <U1"),
        (7, InputTypeError, "a int was given; images are read from"),
        ({"a": 1}, InputTypeError, "a dict was given"),
    ],
)
def test_arrays_refused(arrays, error, message):
    with pytest.raises(error, match=message):
        read_images(arrays)


def test_paths_refused(tmp_path):
    with pytest.raises(InputError, match="gone does not exist"):
        read_images(tmp_path / "gone")
    with pytest.raises(InputError, match=r"holds no image: accepted are files ending in \.png"):
        read_images(tmp_path)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match=r"holds no image; it has files ending in '\.csv'"):
        read_images(tmp_path)


@pytest.fixture
def labelled():
    return Images.from_arrays(
        RNG.integers(0, 256, (5, 6, 4), dtype=np.uint8), labels=[0, 1, -1, 0, 1], names=list("abcde")
    )


def test_take(labelled):
    part = labelled.take([3, 1])
    assert part.names == ["d", "b"]
    assert part.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(part.pixels, labelled.pixels[[3, 1]])
    np.testing.assert_array_equal(part.original(1), labelled.original(1))
    assert labelled.take(labelled.labels == 0).names == ["a", "d"]
    assert labelled.take([-1]).names == ["e"]
    assert np.shares_memory(labelled.take(slice(1, 4)).pixels, labelled.pixels)
    assert "2 normal, 2 anomalous, 1 unknown" in repr(labelled)
    np.testing.assert_array_equal(labelled[-1], labelled.pixels[4])
    with pytest.raises(IndexError):
        labelled[5]


@pytest.mark.parametrize("indices", [[], [0, 0], [5], [[0]], [0.5], slice(0, 0)])
def test_take_refuses(labelled, indices):
    with pytest.raises(InputError, match="indices: "):
        labelled.take(indices)


def test_labels_refused(labelled):
    with pytest.raises(InputError, match=r"labels: shape \(2,\) was given for 5 images"):
        labelled.described([0, 1])
    with pytest.raises(InputError, match="labels: 0, 1, 2 were given"):
        labelled.described([0, 1, 2, 0, 0])
    with pytest.raises(InputError, match="names: 1 were given for 2"):
        Images.from_arrays(np.zeros((2, 3, 3)), names=["a"])
    with pytest.raises(InputError, match="names: 'a' stand for more than one"):
        Images.from_arrays(np.zeros((2, 3, 3)), names=["a", "a"])


def test_concat(labelled):
    other = Images.from_arrays(RNG.integers(0, 256, (2, 6, 4), dtype=np.uint8), names=["x", "y"])
    both = Images.concat([labelled, other])
    assert both.names == [*"abcdexy"]
    assert both.labels.tolist() == [0, 1, -1, 0, 1, -1, -1]
    np.testing.assert_array_equal(both.pixels[5:], other.pixels)
    np.testing.assert_array_equal(both.original(6), other.original(1))
    with pytest.raises(InputError, match="more than one image is named 'a'"):
        Images.concat([labelled, labelled])
    with pytest.raises(InputError, match="differ in shape or depth"):
        Images.concat([labelled, Images.from_arrays(np.zeros((1, 6, 4)), names=["z"])])
    with pytest.raises(InputError, match="parts: none"):
        Images.concat([])


def test_as_shape_is_what_reading_at_that_size_gives(tmp_path):
    for i in range(4):
        put(tmp_path / f"{i}.png", colour(24, 24))
    images = read_images(tmp_path, size=12, labels=[0, 1, 0, 1]).take([3, 0, 2])
    assert images.as_shape((3, 12, 12)) is images
    other = images.as_shape((1, 7, 5))
    np.testing.assert_array_equal(other.pixels, read_images(tmp_path, size=(7, 5), channels=1).pixels[[3, 0, 2]])
    assert other.names == images.names
    assert other.labels.tolist() == [1, 0, 0]
    floats = Images.from_arrays(np.linspace(-1, 4, 48).reshape(3, 4, 4))
    part = floats.take([0]).as_shape((1, 2, 2))
    assert (part.low, part.high) == (-1, 4)


def masked(tmp_path, mask, label=1):
    path = put(tmp_path / "m.png", mask)
    images = Images.from_arrays(np.zeros((2, 6, 4)), names=["a", "b"])
    return images.described([label, 0], masks=[Mask(PictureFile(path, "m.png")), None])


def test_masks(tmp_path):
    marks = np.zeros((6, 4), np.uint8)
    marks[2, 1], marks[3, 1] = 255, 1
    images = masked(tmp_path, marks)
    np.testing.assert_array_equal(images.mask(0), marks > 0)
    assert images.mask(0).dtype == bool
    assert images.mask(1).shape == (6, 4)
    assert not images.mask(1).any()
    assert images.has_masks
    np.testing.assert_array_equal(images.take([1, 0]).mask(1), marks > 0)


def test_a_mask_of_the_same_aspect_is_resized_and_said(tmp_path):
    marks = np.zeros((12, 8), np.uint8)
    marks[4:8, 2:6] = 255
    with pytest.warns(DataWarning, match=r"1 of 1 masks .*m\.png 8 x 12 for 4 x 6"):
        images = masked(tmp_path, marks)
    expected = np.zeros((6, 4), bool)
    expected[2:4, 1:3] = True
    np.testing.assert_array_equal(images.mask(0), expected)


def test_a_mask_of_another_aspect_is_refused_with_both_sizes(tmp_path):
    with pytest.raises(InputError, match=r"mask m\.png is 4 x 5 but its image a is 4 x 6"):
        masked(tmp_path, np.zeros((5, 4), np.uint8))
    images = masked(tmp_path, np.zeros((6, 4), np.uint8))
    put(tmp_path / "m.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"mask m\.png is 4 x 4"):
        images.mask(0)
