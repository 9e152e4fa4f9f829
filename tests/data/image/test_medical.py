"""Volumes come upright whatever way they are stored, normalised by volume, and go back where they came from."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from genad.data.image import read_image_folder, read_images
from genad.data.image.medical import NiftiVolume, save_nifti, slice_intensities
from genad.errors import GenadError, InputError

RNG = np.random.default_rng(0)
#: Canonical voxels (right, anterior, superior), 2 x 3 x 4 mm, with two empty axial slices at the top.
BODY = np.zeros((6, 8, 10), np.float32)
BODY[1:5, 1:7, :8] = RNG.uniform(100, 200, (4, 6, 8))
SPACING = (2.0, 3.0, 4.0)
UPRIGHT = nibabel.Nifti1Image(BODY, np.diag([*SPACING, 1.0]))


def stored_as(codes, image=UPRIGHT):
    """Return the same volume with its axes stored in another order and direction."""
    to = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), to))


def save(path, image):
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SRP", "ILA"])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_axial_slices_do_not_depend_on_how_they_are_stored(tmp_path, codes, ending):
    save(tmp_path / f"v.{ending}", stored_as(codes))
    images = read_images(tmp_path)
    assert images.names == [f"v.{ending}#{k}" for k in range(8)]
    assert images.sizes.tolist() == [[8, 6]] * 8
    low, high, _ = slice_intensities(BODY)
    expected = np.clip((BODY - low) / (high - low), 0, 1)
    for k in range(8):
        # Anterior at the top, right growing along the columns.
        np.testing.assert_allclose(images[k][0], expected[:, ::-1, k].T, atol=1e-6)
        np.testing.assert_allclose(images.original(k)[..., 0], images[k][0], atol=1e-6)
    facts = images.meta["volumes"][f"v.{ending}"]
    assert facts.orientation == codes
    assert facts.spacing == pytest.approx((3.0, 2.0, 4.0))
    assert (facts.slices, facts.dropped, facts.axis) == (10, (8, 9), "axial")
    assert (facts.low, facts.high) == pytest.approx((low, high))
    assert (images.low, images.high) == (0, 1)


@pytest.mark.parametrize(("axis", "number", "size"), [("sagittal", 0, (10, 8)), ("coronal", 1, (10, 6))])
def test_other_planes(tmp_path, axis, number, size):
    path = save(tmp_path / "v.nii", stored_as("PIR"))
    images = read_images(path, axis=axis)
    low, high, _ = slice_intensities(BODY)
    expected = np.clip((BODY - low) / (high - low), 0, 1)
    kept = [k for k in range(BODY.shape[number]) if BODY.take(k, number).any()]
    assert images.names == [f"v.nii#{k}" for k in kept]
    assert images.sizes[0].tolist() == list(size)
    for i, k in enumerate(kept):
        np.testing.assert_allclose(images[i][0], expected.take(k, number).T[::-1], atol=1e-6)
    with pytest.raises(InputError, match="axis: 'top' was given; use 'sagittal' or 'coronal' or 'axial'"):
        read_images(path, axis="top")


def test_intensities_are_those_of_the_foreground():
    volume = np.full((1, 100, 100), -1000.0)
    volume[0, 50:] = np.linspace(0, 100, 5000).reshape(50, 100)
    low, high, foreground = slice_intensities(volume)
    assert (low, high) == pytest.approx((1, 99), abs=0.1)
    assert -1000 < foreground < 0
    with pytest.raises(ValueError, match="all its voxels are equal"):
        slice_intensities(np.ones((2, 2, 2)))


def test_scaling_of_the_file_is_undone(tmp_path):
    image = nibabel.Nifti1Image(BODY.astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, 10.0)
    image.header.set_data_dtype(np.int16)
    save(tmp_path / "v.nii", image)
    (source,) = [NiftiVolume(tmp_path / "v.nii", "v", scaled=False)]
    stored = np.asarray(nibabel.load(tmp_path / "v.nii").dataobj)
    np.testing.assert_allclose(source.frame(3)[..., 0], stored[:, ::-1, 3].T)


@pytest.mark.parametrize(("codes", "axis"), list(itertools.product(["RAS", "LPI", "SAL"], ["axial", "coronal"])))
def test_slices_go_back_where_they_came_from(tmp_path, codes, axis):
    path = save(tmp_path / "v.nii", stored_as(codes))
    images = read_images(path, axis=axis)
    facts = images.meta["volumes"]["v.nii"]
    numbers = [int(name.partition("#")[2]) for name in images.names]
    slices = np.stack([images.original(i) for i in range(len(images))])
    made = save_nifti(
        tmp_path / "out.nii.gz", slices, path, indices=numbers, axis=axis, value_range=(facts.low, facts.high)
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.nii.gz", "v.nii"]
    there, back = nibabel.load(path), nibabel.load(made)
    np.testing.assert_allclose(back.affine, there.affine)
    assert back.shape == there.shape
    body = there.get_fdata() > 0
    expected = np.clip(there.get_fdata(), facts.low, facts.high)
    np.testing.assert_allclose(back.get_fdata()[body], expected[body], rtol=1e-4)


def test_masks_are_written_as_whole_numbers(tmp_path):
    path = save(tmp_path / "v.nii", stored_as("LPS"))
    mask = np.zeros((10, 8, 6), bool)
    mask[4, 0, 0] = True
    back = nibabel.load(save_nifti(tmp_path / "m.nii", mask, path))
    assert back.get_data_dtype() == np.uint8
    # The upper left pixel of an axial slice: left, anterior.
    canonical = nibabel.as_closest_canonical(back).get_fdata()
    assert np.argwhere(canonical).tolist() == [[0, 7, 4]]


def test_writing_refuses_and_leaves_nothing(tmp_path):
    path = save(tmp_path / "v.nii", UPRIGHT)
    with pytest.raises(InputError, match=r"out\.png was given; it must end in \.nii"):
        save_nifti(tmp_path / "out.png", np.zeros((10, 8, 6)), path)
    with pytest.raises(InputError, match=r"volume: shape \(3, 8, 6\) was given; .* has 10 axial slices of \(8, 6\)"):
        save_nifti(tmp_path / "out.nii", np.zeros((3, 8, 6)), path)
    with pytest.raises(InputError, match="indices: use different whole numbers from 0 to 9"):
        save_nifti(tmp_path / "out.nii", np.zeros((2, 8, 6)), path, indices=[3, 3])
    with pytest.raises(GenadError, match=r"out\.nii: cannot be written"):
        save_nifti(path / "out.nii", np.zeros((10, 8, 6)), path)
    assert [p.name for p in tmp_path.iterdir()] == ["v.nii"]


def test_volumes_refused(tmp_path):
    save(tmp_path / "four.nii", nibabel.Nifti1Image(np.ones((3, 3, 3, 2), np.float32), np.eye(4)))
    save(tmp_path / "flat.nii", nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)))
    whole = save(tmp_path / "cut.nii.gz", stored_as("RAS"))
    whole.write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "text.nii").write_text("hello")
    for name, message in {
        "four.nii": r"four\.nii has shape \(3, 3, 3, 2\); give volumes of 3 axes",
        "flat.nii": r"flat\.nii cannot be decoded \(all its voxels are equal\)",
        "cut.nii.gz": r"cut\.nii\.gz cannot be decoded",
        "text.nii": r"text\.nii is not a NIfTI file",
    }.items():
        with pytest.raises(InputError, match=message):
            read_images(tmp_path / name)
    path = save(tmp_path / "v.nii", UPRIGHT)
    with pytest.raises(InputError, match=r"v\.nii has 480 voxels; from 1 to 100 are read"):
        read_images(path, pixel_limit=10)


def test_volumes_in_a_layout_have_volumes_as_masks(tmp_path):
    names = ("train/good/a.nii.gz", "train/good/b.nii.gz", "test/lesion/c.nii.gz", "test/good/d.nii.gz")
    for i, name in enumerate(names, 1):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / name, stored_as("LPS", nibabel.Nifti1Image(BODY * i, UPRIGHT.affine)))
    lesion = np.zeros(BODY.shape, np.uint8)
    lesion[2, 3, 5] = 1
    (tmp_path / "ground_truth" / "lesion").mkdir(parents=True)
    save(
        tmp_path / "ground_truth" / "lesion" / "c.nii.gz", stored_as("RPI", nibabel.Nifti1Image(lesion, UPRIGHT.affine))
    )
    folder = read_image_folder(tmp_path)
    assert len(folder.train) == 16
    names = folder.test.names
    assert [names[i] for i in range(16) if folder.test.mask(i).any()] == ["test/lesion/c.nii.gz#5"]
    where = folder.test.mask(names.index("test/lesion/c.nii.gz#5"))
    assert np.argwhere(where).tolist() == [[7 - 3, 2]]


# --- DICOM -----------------------------------------------------------------------------------------------------------


def dicom(path, pixels, *, series="1.2.3", orientation=None, position=None, number=1, kind="MONOCHROME2", **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.InstanceNumber = series, number
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    if orientation is not None:
        data.ImageOrientationPatient = orientation
    if position is not None:
        data.ImagePositionPatient = position
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def series(folder, order=range(8), **options):
    """Write the axial slices of the body as scanners do: rows to the patient's left, columns to posterior."""
    for number, k in enumerate(order, 1):
        # DICOM's x grows to the left and y to posterior, so our first axis is stored backwards, and rows go down.
        pixels = np.rint(BODY[::-1, ::-1, k].T)
        dicom(
            folder / f"i{number}.dcm",
            pixels,
            orientation=[1, 0, 0, 0, 1, 0],
            position=[-10.0, -24.0, 4.0 * k],
            number=number,
            PixelSpacing=[3.0, 2.0],
            **options,
        )


def test_a_series_is_sorted_by_position_and_upright(tmp_path):
    order = [3, 0, 7, 1, 6, 2, 5, 4]
    series(tmp_path / "scan", order)
    images = read_images(tmp_path)
    assert images.names == [f"scan/i{order.index(k) + 1}.dcm" for k in range(8)]
    whole = np.rint(BODY[:, :, :8])
    low, high, _ = slice_intensities(np.moveaxis(whole, 2, 0))
    for k in range(8):
        expected = np.clip((whole[:, ::-1, k].T - low) / (high - low), 0, 1)
        np.testing.assert_allclose(images[k][0], expected, atol=1e-6)
        np.testing.assert_allclose(images.original(k)[..., 0], expected, atol=1e-6)
    (facts,) = images.meta["volumes"].values()
    assert (facts.orientation, facts.axis) == ("LPS", "axial")
    assert facts.spacing == pytest.approx((3.0, 2.0, 4.0))
    assert images.paths[0].name == "i2.dcm"


def test_sagittal_slices_are_turned_upright(tmp_path):
    plane = np.arange(12).reshape(3, 4) + 100
    # Stored with columns to inferior and rows to anterior: turned, superior is at the top and anterior at the right.
    dicom(tmp_path / "a.dcm", plane, orientation=[0, 0, -1, 0, -1, 0])
    images = read_images(tmp_path / "a.dcm")
    order = np.argsort(images.original(0)[..., 0], axis=None)
    np.testing.assert_array_equal(np.argsort(plane.T, axis=None), order)
    facts = images.meta["volumes"]["a.dcm"]
    assert (facts.orientation, facts.axis) == ("IAR", "sagittal")


def test_slope_and_intercept_and_inverted_pixels(tmp_path):
    plane = np.arange(64).reshape(8, 8) + 1
    plain = dicom(tmp_path / "p" / "a.dcm", plane)
    sloped = dicom(tmp_path / "s" / "a.dcm", plane, RescaleSlope="2", RescaleIntercept="-1024")
    inverted = dicom(tmp_path / "i" / "a.dcm", 65 - plane, kind="MONOCHROME1")
    facts = read_images(sloped).meta["volumes"]["a.dcm"]
    assert facts.low < -900
    first = read_images(plain)[0]
    np.testing.assert_allclose(read_images(sloped)[0], first, atol=0.02)
    np.testing.assert_allclose(read_images(inverted)[0], first, atol=0.02)
    assert read_images(plain).meta["volumes"]["a.dcm"].axis == "as stored"


def test_frames_files_without_ending_and_two_series(tmp_path):
    dicom(tmp_path / "IM0001", RNG.integers(100, 200, (3, 4, 4)))
    assert read_images(tmp_path).names == ["IM0001#0", "IM0001#1", "IM0001#2"]
    (tmp_path / "README").write_text("no image")
    dicom(tmp_path / "x.dcm", RNG.integers(100, 200, (4, 4)), series="9.9")
    images = read_images(tmp_path)
    assert len(images) == 4
    assert len(images.meta["volumes"]) == 2


def test_two_series_of_one_folder_stay_apart(tmp_path):
    for name, number in (("1.2", 1), ("3.4", 2)):
        for k in range(2):
            pixels = RNG.integers(100 * number, 200 * number, (4, 4))
            dicom(tmp_path / f"{name}-{k}.dcm", pixels, series=name, number=2 - k)
    images = read_images(tmp_path)
    assert images.names == ["1.2-1.dcm", "1.2-0.dcm", "3.4-1.dcm", "3.4-0.dcm"]
    assert images.meta["volumes"]["3.4-1.dcm"].high > images.meta["volumes"]["1.2-1.dcm"].high


def test_a_slice_that_cannot_be_read_is_named(tmp_path):
    series(tmp_path / "scan")
    path = tmp_path / "scan" / "i3.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"i3\.dcm cannot be decoded"):
        read_images(tmp_path)


def test_dicom_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", RNG.integers(100, 200, (4, 4)))
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "RGB"
    data.save_as(tmp_path / "rgb.dcm")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(path.read_bytes()[:-10])
    (tmp_path / "text.dcm").write_text("hello")
    for name, message in {
        "rgb.dcm": r"rgb\.dcm holds RGB pixels; accepted are MONOCHROME1",
        "cut.dcm": r"cut\.dcm cannot be decoded",
        "text.dcm": r"text\.dcm is not a DICOM file",
    }.items():
        with pytest.raises(InputError, match=message):
            read_images(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.dcm is 4 x 4; at most 3 pixels"):
        read_images(path, pixel_limit=3)
    dicom(tmp_path / "s" / "b.dcm", RNG.integers(100, 200, (4, 4)), number=2)
    dicom(tmp_path / "s" / "c.dcm", RNG.integers(100, 200, (4, 5)), number=1)
    with pytest.raises(InputError, match="slices of one DICOM series differ in size"):
        read_images(tmp_path / "s")
