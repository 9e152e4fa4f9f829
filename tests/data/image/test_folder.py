"""Each layout of a folder is recognised, and each fault of one is named with its mend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from genad.data.image import read_image_folder, read_images
from genad.data.image.labels import read_labels
from genad.errors import DataWarning, InputError


@pytest.fixture
def put(tmp_path):
    """Write small pictures that all differ, under names in a folder."""
    rng = np.random.default_rng(0)

    def write(*names, size=(8, 8), pixels=None):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8) if pixels is None else pixels).save(path)
        return tmp_path

    return write


def marks(row):
    found = np.zeros((8, 8), np.uint8)
    found[row] = 255
    return found


def mvtec(put, root=""):
    put(*(f"{root}train/good/{i:03}.png" for i in range(4)))
    put(
        f"{root}test/good/000.png", f"{root}test/crack/000.png", f"{root}test/crack/001.png", f"{root}test/hole/000.bmp"
    )
    put(f"{root}ground_truth/crack/000_mask.png", pixels=marks(1))
    put(f"{root}ground_truth/crack/001_mask.png", pixels=marks(2))
    return put(f"{root}ground_truth/hole/000.png", pixels=marks(3))


def test_mvtec(put):
    folder = read_image_folder(mvtec(put))
    assert folder.layout == "mvtec"
    assert "train/good" in folder.why
    assert folder.train.names == [f"train/good/{i:03}.png" for i in range(4)]
    assert folder.train.labels.tolist() == [0] * 4
    assert folder.test.names == ["test/crack/000.png", "test/crack/001.png", "test/good/000.png", "test/hole/000.bmp"]
    assert folder.test.labels.tolist() == [1, 1, 0, 1]
    assert folder.test.classes == ["crack", "crack", "good", "hole"]
    rows = [np.flatnonzero(folder.test.mask(i).any(1)).tolist() for i in range(4)]
    assert rows == [[1], [2], [], [3]]
    assert not folder.train.mask(0).any()
    assert folder.notes == []


def test_a_missing_mask_is_noted(put, tmp_path):
    mvtec(put)
    (tmp_path / "ground_truth" / "crack" / "001_mask.png").unlink()
    folder = read_image_folder(tmp_path)
    assert folder.test.mask(1) is None
    assert folder.notes == ["1 of 3 anomalous images have no mask: 'crack/001.png'."]


def test_masks_of_another_size_stop_before_any_training(put, tmp_path):
    mvtec(put)
    put("ground_truth/crack/001_mask.png", size=(8, 9))
    with pytest.raises(InputError, match=r"001_mask\.png is 9 x 8 but its image test/crack/001\.png is 8 x 8"):
        read_image_folder(tmp_path)


def test_btad(put):
    put(*(f"train/ok/{i}.png" for i in range(3)), "test/ok/0.png", "test/ko/1.png")
    folder = read_image_folder(put("ground_truth/ko/1.png", pixels=marks(5)))
    assert folder.layout == "btad"
    assert folder.test.classes == ["ko", "good"]
    assert folder.test.mask(0)[5].all()


def test_training_images_without_a_folder_of_their_own_and_no_test(put):
    folder = read_image_folder(put("train/a.png", "train/b.png"))
    assert (folder.layout, len(folder.train), folder.test) == ("mvtec", 2, None)
    folder = read_image_folder(put("test/c.png"))
    assert folder.test.labels.tolist() == [-1]
    assert "have no labels" in folder.notes[0]


def visa(put, root):
    put(*(f"{root}/Data/Images/Normal/{i:03}.JPG" for i in range(6)))
    put(*(f"{root}/Data/Images/Anomaly/{i:03}.JPG" for i in range(2)))
    put(f"{root}/Data/Masks/Anomaly/000.png", pixels=marks(0))
    return put(f"{root}/Data/Masks/Anomaly/001.png", pixels=marks(1))


def test_visa(put, tmp_path):
    visa(put, "candle")
    root = tmp_path / "candle"
    (root / "image_anno.csv").write_text(
        "image,label,mask\n"
        "candle/Data/Images/Normal/000.JPG,normal,\n"
        'candle/Data/Images/Anomaly/000.JPG,"chunk missing,wax",candle/Data/Masks/Anomaly/000.png\n'
        "candle/Data/Images/Anomaly/001.JPG,hole,candle/Data/Masks/Anomaly/001.png\n"
    )
    folder = read_image_folder(root)
    assert folder.layout == "visa"
    assert len(folder.train) == 3
    assert folder.test.labels.tolist() == [0, 0, 0, 1, 1]
    assert folder.test.classes[3:] == ["chunk missing,wax", "hole"]
    assert folder.test.mask(4)[1].all()
    assert "3 of 6 normal images, drawn with seed 0" in folder.notes[0]

    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text(
        "object,split,label,image,mask\n"
        + "".join(f"candle,train,normal,candle/Data/Images/Normal/00{i}.JPG,\n" for i in (1, 4))
        + "fryum,train,normal,fryum/Data/Images/Normal/003.JPG,\n"
    )
    folder = read_image_folder(root)
    assert folder.train.names == ["Data/Images/Normal/001.JPG", "Data/Images/Normal/004.JPG"]


def test_classes_are_halved_by_the_seed(put):
    root = put(*(f"Normal/{i}.png" for i in range(7)), "tumour/a.png", "lesion/b.png", "masks/x.png")
    folder = read_image_folder(root)
    assert folder.layout == "classes"
    assert len(folder.train) == 4
    assert sorted(folder.train.names + [n for n in folder.test.names if n.startswith("N")]) == [
        f"Normal/{i}.png" for i in range(7)
    ]
    assert sorted(folder.test.classes) == ["good"] * 3 + ["lesion", "tumour"]
    assert read_image_folder(root).train.names == folder.train.names
    assert any(read_image_folder(root, seed=s).train.names != folder.train.names for s in (1, 2, 3))


def test_masks_beside_classes(put):
    put(*(f"good/{i}.png" for i in range(4)), "bad/x.png")
    folder = read_image_folder(put("masks/bad/x_mask.png", pixels=marks(4)))
    assert folder.test.mask(folder.test.classes.index("bad"))[4].all()


def test_normal_only_and_flat(put):
    folder = read_image_folder(put("good/a.png", "good/b.png"))
    assert (folder.layout, folder.test) == ("normal only", None)
    folder = read_image_folder(put("good/a.png").joinpath("good"))
    assert folder.layout == "flat"
    assert folder.test is folder.train
    assert folder.train.labels is None
    assert "all are learnt from, and all are judged" in folder.notes[-1]


def test_folders_that_are_no_classes_are_noted(put):
    folder = read_image_folder(put("line1/a.png", "line2/b.png"))
    assert folder.train.names == ["line1/a.png", "line2/b.png"]
    assert "'line1', 'line2' are not read as classes" in folder.notes[0]


def test_labels(put, tmp_path):
    root = put(*(f"{i}.png" for i in range(7)))
    table = root / "labels.csv"
    table.write_text(
        "file,defect_probability\n" + "".join(f"{i}.png,{p}\n" for i, p in enumerate([0, 0, 0, 0, 1, 0.33]))
    )
    for folder in (read_image_folder(root), read_image_folder(root, labels=table)):
        assert folder.layout == "labels"
        assert len(folder.train) == 2
        assert sorted(folder.test.labels) == [0, 0, 1]
        assert "1 images whose label is neither 0 nor 1 are left out." in folder.notes
        assert "1 images that have no label are left out: '6.png'." in folder.notes
    with pytest.raises(InputError, match=r"labels\.csv does not list '6\.png' \(1 of 7 images\)"):
        read_images(root, labels=table)
    images = read_images([root / "4.png", root / "0.png", root / "5.png"], labels=table)
    assert images.labels.tolist() == [1, 0, -1]
    assert read_images(root, labels=np.zeros(7, int)).labels.tolist() == [0] * 7


def test_words_are_labels_too(tmp_path):
    table = tmp_path / "l.csv"
    table.write_text("Filename,Class\nsub\\a.png,OK\nb.png,scratch\nc.png,unknown\nd.png,1\ne.png,0\n")
    found = read_labels(table)
    assert found.labels == {"sub/a.png": 0, "b.png": 1, "c.png": -1, "d.png": 1, "e.png": 0}
    assert found.classes["b.png"] == "scratch"
    assert found.find("elsewhere/b.png") == "b.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,label\nx,1\n", "columns 'a', 'label', none of them named for files; name one of them 'file'"),
        ("file,b\nx,1\n", "none of them named for labels; name one of them 'label'"),
        ("file,label\nx,1\nx,0\n", "lists 'x' twice, with different labels"),
        ("file,label\nx,7\n", "gives 'x' the label 7"),
    ],
)
def test_tables_refused(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "l.csv")


def test_no_normal_image_in_the_table(put):
    root = put("a.png", "b.png")
    (root / "labels.csv").write_text("file,label\na.png,1\nb.png,1\n")
    with pytest.raises(InputError, match=r"marks none of the 2 images of .* as normal"):
        read_image_folder(root)


def test_faults(put, tmp_path):
    with pytest.raises(InputError, match="gone does not exist"):
        read_image_folder(tmp_path / "gone")
    with pytest.raises(InputError, match="holds no image"):
        read_image_folder(tmp_path)
    root = put("a/x.png")
    with pytest.raises(InputError, match=r"x\.png is a file; give a folder"):
        read_image_folder(root / "a" / "x.png")
    with pytest.raises(InputError, match=r"gives 1 image to learn from; at least 2 are needed.*fitted model"):
        read_image_folder(root)
    with pytest.raises(InputError, match="seed: -1"):
        read_image_folder(root, seed=-1)
    put("b/train/bad/x.png", "c/test/good/x.png", "d/train/good/readme.png", "e/good/x.png", "e/bad/y.png")
    with pytest.raises(InputError, match="has 'bad' but no folder of normal images; name it good"):
        read_image_folder(root / "b")
    with pytest.raises(InputError, match=r"has 'test' but no train: put normal images into .*good"):
        read_image_folder(root / "c")
    (root / "d/train/good/readme.png").unlink()
    with pytest.raises(InputError, match="good holds no image: put normal images there"):
        read_image_folder(root / "d")
    with pytest.raises(InputError, match="gives 1 image to learn from"):
        read_image_folder(root / "e")


def test_several_categories(put, tmp_path):
    mvtec(put, "bottle/")
    mvtec(put, "cable/")
    visa(put, "candle")
    with pytest.raises(InputError, match=r"holds 3 categories \('bottle', 'cable', 'candle'\).*for instance .*bottle"):
        read_image_folder(tmp_path)


def test_overlap_is_named(put, tmp_path):
    mvtec(put)
    for i in range(7):
        (tmp_path / f"test/good/1{i}.png").write_bytes((tmp_path / f"train/good/00{i % 4}.png").read_bytes())
    with pytest.warns(
        DataWarning, match=r"7 test images are also learnt from.*test/good/10\.png = train/.* and 2 more"
    ):
        read_image_folder(tmp_path)


def test_broken_files_are_noted(put, tmp_path):
    mvtec(put)
    (tmp_path / "train/good/001.png").write_text("hello")
    with pytest.raises(InputError, match=r"001\.png is not an image"):
        read_image_folder(tmp_path)
    with pytest.warns(DataWarning, match=r"1 files .*train/good/001\.png"):
        folder = read_image_folder(tmp_path, skip_broken=True)
    assert len(folder.train) == 3
    assert list(folder.train.broken) == ["train/good/001.png"]
    assert "001.png" in folder.notes[-1]


def test_real_folders(data_dir):
    tiles = read_image_folder(data_dir / "image" / "magnetic_tile", size=32)
    assert (tiles.layout, len(tiles.train), len(tiles.test)) == ("mvtec", 714, 625)
    assert set(tiles.test.classes) == {"good", "blowhole", "break", "crack", "fray", "uneven"}
    first = tiles.test.classes.index("blowhole")
    assert 0 < tiles.test.mask(first).mean() < 0.2
    with pytest.warns(DataWarning, match="5 test images are also learnt from"):
        brain = read_image_folder(data_dir / "image" / "brain_mri", size=32)
    assert (brain.layout, len(brain.train), int(brain.test.labels.sum())) == ("classes", 49, 155)
