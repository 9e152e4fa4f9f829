"""Recognise how a folder of images is laid out: what to learn from, what to judge, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.container import listing
from genad.data.image.files import find_files, is_image_name
from genad.data.image.labels import NORMAL_WORDS, LabelTable, read_labels
from genad.errors import InputError

__all__ = ["Entry", "Plan", "recognise"]

_MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".nii.gz", ".nii")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a plan: its label and kind as in `Images`, and the file of its mask."""

    path: Path
    label: int
    kind: str
    mask: Path | None = None


@dataclass
class Plan:
    """How a folder is read: see `ImageFolder`; ``test`` is None where there is nothing to judge, or all."""

    layout: str
    why: str
    train: list[Entry]
    test: list[Entry] | None
    notes: list[str] = field(default_factory=list)


def recognise(root: Path, labels: Any, seed: int) -> Plan:
    """Tell how a folder is laid out.

    Parameters
    ----------
    root : Path
        An existing folder.
    labels : path or None
        A table of labels.
    seed : int
        Chooses the half of the normal images that trains where the folder does not say.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        No image, no folder of normal images, or several categories at once.
    """
    if labels is not None:
        return _by_labels(root, read_labels(labels), seed)
    folders = _folders(root)
    if "train" in folders or "test" in folders or "ground_truth" in folders:
        return _split_folders(root, folders)
    if "data" in folders and "images" in _folders(folders["data"]):
        return _visa(root, folders["data"], seed)
    if (root / "labels.csv").is_file():
        return _by_labels(root, read_labels(root / "labels.csv"), seed)
    normal = _normal(folders)
    if normal is not None:
        return _by_classes(folders, normal, seed)
    categories = [folder.name for folder in folders.values() if "train" in _folders(folder)]
    categories += [folder.name for folder in folders.values() if "images" in _folders(folder / "Data")]
    if categories:
        raise InputError(
            f"{root} holds {len(categories)} categories ({listing(sorted(categories))}), each to be learnt by itself; "
            f"give one of them, for instance {root / min(categories)}."
        )
    files, _ = find_files(root)
    plan = Plan("flat", "it is a folder of images without a known layout", [Entry(f, -1, "") for f in files], None)
    with_images = [folder.name for folder in folders.values() if any(map(is_image_name, folder.iterdir()))]
    if with_images:
        plan.notes.append(
            f"The folders {listing(sorted(with_images))} are not read as classes, since none is named "
            f"{' or '.join(NORMAL_WORDS)}."
        )
    return plan


def _folders(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {}
    return {p.name.lower(): p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def _normal(folders: dict[str, Path]) -> Path | None:
    return next((folders[word] for word in NORMAL_WORDS if word in folders), None)


def _images(path: Path) -> list[Path]:
    """Return the images of a folder and those in it, none being an answer too."""
    inner = [file for folder in _folders(path).values() for file in _images(folder)]
    return sorted([file for file in path.iterdir() if file.is_file() and is_image_name(file)] + inner)


def _split_folders(root: Path, folders: dict[str, Path]) -> Plan:
    """MVTec and BTAD: train, test and ground_truth."""
    if "train" not in folders:
        raise InputError(
            f"{root} has {listing(sorted(folders))} but no train: put normal images into {root / 'train' / 'good'}."
        )
    inner = _folders(folders["train"])
    good = _normal(inner)
    if good is None and inner:
        raise InputError(
            f"{folders['train']} has {listing(sorted(inner))} but no folder of normal images; name it good (or "
            "normal, ok, healthy)."
        )
    files = _images(good or folders["train"])
    if not files:
        raise InputError(f"{good or folders['train']} holds no image: put normal images there.")
    btad = good is not None and good.name.lower() == "ok"
    plan = Plan(
        "btad" if btad else "mvtec",
        f"it has {'/'.join(['train', good.name] if good else ['train'])}{' and test' if 'test' in folders else ''}",
        [Entry(file, 0, "good") for file in files],
        None,
    )
    aside = sorted(set(inner) - {good.name.lower()}) if good else []
    if aside:
        plan.notes.append(f"Of train only {good.name if good else ''} is learnt from; left out: {listing(aside)}.")
    if "test" not in folders:
        return plan
    truths = _folders(folders["ground_truth"]) if "ground_truth" in folders else {}
    plan.test = []
    for name, folder in _folders(folders["test"]).items():
        if name in NORMAL_WORDS:
            plan.test += [Entry(file, 0, "good") for file in _images(folder)]
        else:
            plan.test += [Entry(f, 1, folder.name, _mask_of(f, truths.get(name))) for f in _images(folder)]
    if not plan.test:
        loose = _images(folders["test"])
        plan.test = [Entry(file, -1, "") for file in loose] or None
        plan.notes.append(f"The images of test have no labels: they lie in no folder of a class. ({len(loose)} images)")
    _note_masks(plan)
    return plan


def _note_masks(plan: Plan) -> None:
    anomalous = [entry for entry in plan.test or [] if entry.label == 1]
    bare = [entry for entry in anomalous if entry.mask is None]
    if bare and len(bare) < len(anomalous):
        names = listing([f"{entry.path.parent.name}/{entry.path.name}" for entry in bare], 3)
        plan.notes.append(f"{len(bare)} of {len(anomalous)} anomalous images have no mask: {names}.")


def _mask_of(image: Path, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    stem = image.name[: -len(".nii.gz")] if image.name.lower().endswith(".nii.gz") else image.stem
    for name in (f"{stem}_mask", stem):
        for ending in _MASK_ENDINGS:
            for written in (ending, ending.upper()):
                if (folder / (name + written)).is_file():
                    return folder / (name + written)
    return None


def _visa(root: Path, data: Path, seed: int) -> Plan:
    images = _folders(_folders(data)["images"])
    if "normal" not in images:
        raise InputError(
            f"{data / 'Images'} has {listing(sorted(images))} but no folder Normal: put the normal images there."
        )
    masks = _folders(_folders(data).get("masks", data)).get("anomaly")
    kinds = _visa_kinds(root)
    normal = [Entry(file, 0, "good") for file in _images(images["normal"])]
    anomalous = [
        Entry(file, 1, kinds.get(file.stem, "anomaly"), _mask_of(file, masks))
        for file in (_images(images["anomaly"]) if "anomaly" in images else [])
    ]
    if not normal:
        raise InputError(f"{images['normal']} holds no image: put the normal images there.")
    split = root.parent / "split_csv" / "1cls.csv"
    trained = _visa_split(split, root.name) if split.is_file() else set()
    if trained:
        train = [entry for entry in normal if entry.path.stem in trained]
        rest = [entry for entry in normal if entry.path.stem not in trained]
        plan = Plan("visa", f"it has Data/Images/Normal, split as {split} says", train, rest + anomalous)
    else:
        train, rest = _halves(normal, seed)
        plan = Plan("visa", "it has Data/Images/Normal", train, rest + anomalous)
        plan.notes.append(_said_of_halves(train, rest, seed))
    _note_masks(plan)
    return plan


def _visa_kinds(root: Path) -> dict[str, str]:
    """Return the kind of defect of each anomalous image, by the stem of its file."""
    table = root / "image_anno.csv"
    if not table.is_file():
        return {}
    found = read_labels(table)
    return {Path(name).stem: found.classes[name] for name, label in found.labels.items() if label == 1}


def _visa_split(table: Path, category: str) -> set[str]:
    from genad.data.io import read_table

    rows = read_table(table)
    if not {"object", "split", "image"} <= set(rows.names):
        raise InputError(f"{table} has columns {listing(rows.names)}; a split of VisA has object, split and image.")
    cells = zip(*(rows.column(name).tolist() for name in ("object", "split", "image")), strict=True)
    return {Path(str(image)).stem for kind, split, image in cells if kind == category and split == "train"}


def _by_classes(folders: dict[str, Path], normal: Path, seed: int) -> Plan:
    goods = [Entry(file, 0, "good") for file in _images(normal)]
    others = [folder for name, folder in folders.items() if name not in NORMAL_WORDS and name not in {"masks", "mask"}]
    masks = folders.get("masks", folders.get("mask"))
    inner = _folders(masks) if masks is not None else {}
    bad = [
        Entry(file, 1, folder.name, _mask_of(file, inner.get(folder.name.lower(), masks)))
        for folder in others
        for file in _images(folder)
    ]
    if not goods:
        raise InputError(f"{normal} holds no image: put the normal images there.")
    if not bad:
        return Plan("normal only", f"it has {normal.name} and no other folder with images", goods, None)
    train, rest = _halves(goods, seed)
    named = listing(sorted(folder.name for folder in others))
    plan = Plan("classes", f"it has {normal.name} beside {named}", train, rest + bad)
    plan.notes.append(_said_of_halves(train, rest, seed))
    _note_masks(plan)
    return plan


def _by_labels(root: Path, table: LabelTable, seed: int) -> Plan:
    files, _ = find_files(root)
    entries = []
    unlisted = []
    for file in files:
        key = table.find(file.relative_to(root).as_posix())
        if key is None:
            unlisted.append(file.relative_to(root).as_posix())
        else:
            entries.append(Entry(file, table.labels[key], table.classes[key]))
    normal = [entry for entry in entries if entry.label == 0]
    anomalous = [entry for entry in entries if entry.label == 1]
    if not normal:
        raise InputError(
            f"labels: {table.origin} marks none of the {len(files)} images of {root} as normal; use the label 0 or "
            "good, and name files relative to the folder."
        )
    train, rest = _halves(normal, seed)
    plan = Plan("labels", f"{table.origin} has labels of its images", train, rest + anomalous)
    plan.notes.append(_said_of_halves(train, rest, seed))
    unknown = len(entries) - len(normal) - len(anomalous)
    if unknown:
        plan.notes.append(f"{unknown} images whose label is neither 0 nor 1 are left out.")
    if unlisted:
        plan.notes.append(f"{len(unlisted)} images that have no label are left out: {listing(unlisted, 3)}.")
    return plan


def _halves(entries: list[Entry], seed: int) -> tuple[list[Entry], list[Entry]]:
    """Return a random half of the entries, rounded up, and the others; both keep their order."""
    chosen = set(np.random.default_rng(seed).permutation(len(entries))[: (len(entries) + 1) // 2].tolist())
    train = [entry for i, entry in enumerate(entries) if i in chosen]
    return train, [entry for i, entry in enumerate(entries) if i not in chosen]


def _said_of_halves(train: Sequence[Entry], rest: Sequence[Entry], seed: int) -> str:
    total = len(train) + len(rest)
    return f"{len(train)} of {total} normal images, drawn with seed {seed}, train; the others are judged."
