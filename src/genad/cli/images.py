"""Commands of images: restore them to files, and make new defects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genad.cli import options
from genad.cli.terminal import terminal_of
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.core.detector import Detector
    from genad.core.pixels import ImageDetections
    from genad.data.image import Images


def restore_images(detector: Detector, images: Images, out: str) -> list[Path]:
    """Write what every image should have looked like.

    Parameters
    ----------
    detector : Detector
        Fitted on images.
    images : Images
    out : str
        A file for one image; a folder for several, which then keeps their names.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        For standard output, or a file name for several images.
    """
    from genad.data.image.writer import check_image_target, write_image

    if out == "-":
        raise InputError("--out: images cannot go to standard output; name a file such as healthy.png, or a folder.")
    if len(images) == 1 and Path(out).suffix:
        targets = [check_image_target(out)]
    elif Path(out).suffix:
        raise InputError(f"--out: {out!r} names one file for {len(images)} images; name a folder.")
    else:
        targets = [Path(out) / _plain_name(name) for name in images.names]
    return [write_image(values, target) for values, target in zip(detector.restore(images), targets, strict=True)]


def write_masks(found: ImageDetections, folder: Path) -> Path:
    """Write the mask of every flagged image, in its own size, 255 where it is anomalous."""
    from genad.data.image.writer import write_image

    for i in range(len(found)):
        if not found.is_anomaly[i]:
            continue
        name = f"image_{i}.png" if found.images is None else _plain_name(found.images.names[i])
        write_image(found.mask(i), folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _plain_name(name: str) -> str:
    """Return a PNG's name for an image, its folders kept, its page or slice made part of the name."""
    path = Path(name.replace("#", "_"))
    return str(path.with_name(f"{path.name.partition('.')[0]}{'_' + name.split('#')[1] if '#' in name else ''}.png"))


def synthesize(
    ctx: typer.Context,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Folder of normal images to plant defects in.", show_default=False)
    ],
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Synthesizer, see `genad synthesize --list PATH`.")
    ] = "poisson_blend",
    n: Annotated[int, typer.Option("-n", min=1, help="How many defective images to make.")] = 100,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write: images, masks and a manifest.")
    ] = Path("genad-synthetic"),
    defects: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of defective images in the layout of MVTec (with ground_truth), for synthesizers that learn.",
        ),
    ] = None,
    size: options.Size = None,
    seed: options.Seed = 0,
    overwrite: Annotated[bool, typer.Option(help="Write into a folder that is not empty.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make realistic defective images with their masks, to train or to test with.

    The normal images themselves are never changed.
    """
    terminal = terminal_of(ctx, quiet=quiet)
    from genad.applications.synthesis import synthesize_folder
    from genad.cli.output import write_json, write_out

    made = synthesize_folder(
        path, method=method, n=n, out=out, defects=defects, size=size, seed=seed, overwrite=overwrite
    )
    for note in made.pop("notes"):
        terminal.note(note)
    if as_json:
        write_json(made)
    elif not quiet:
        write_out(f"Wrote {made['images']:,} images with masks and a manifest to {out} ({made['method']}).\n".encode())
