"""Commands of images: restore them to files, and make new defects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genad.cli import options
from genad.cli.terminal import terminal_of
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.cli.terminal import Terminal
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


def application_facts(
    application: str, found: Any, out: Path, terminal: Terminal
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what an application adds to the answer, and the files it wrote."""
    import dataclasses

    from genad.applications.industrial import inspection_figures
    from genad.applications.medical import NOTICE, by_volume, export_volumes
    from genad.core.pixels import ImageDetections

    if not isinstance(found, ImageDetections) or found.images is None:
        raise InputError(f"PATH: `genad {application}` judges images; use `genad detect` for other data.")
    if application == "industrial":
        figures = inspection_figures(found)
        if figures is None:
            return {}, {}
        if figures.false_calls is not None:
            terminal.note(f"{figures.false_calls:.0f} false calls per 1,000 good parts")
        for kind, share in figures.escapes.items():
            terminal.note(f"{share:.0%} of the parts with {kind} escaped")
        return {"inspection": dataclasses.asdict(figures)}, {}
    terminal.note(NOTICE)
    volumes = by_volume(found)
    for volume in volumes[:10]:
        size = "" if volume.millilitres is None else f", {volume.millilitres:.1f} ml masked"
        terminal.note(f"{volume.name}: {volume.flagged} of {volume.slices} slices flagged, worst {volume.worst}{size}")
    written = export_volumes(found, out / "volumes")
    files = {"volumes": str(out / "volumes")} if written else {}
    return {"notice": NOTICE, "volumes": [dataclasses.asdict(volume) for volume in volumes]}, files


def _application(name: str, summary: str) -> Any:
    """Return the command of an application."""

    def command(
        ctx: typer.Context,
        path: options.Data,
        train: options.Train = None,
        labels: options.Labels = None,
        size: options.Size = None,
        skip_broken: options.SkipBroken = False,
        method: options.Method = None,
        alpha: options.Alpha = None,
        fdr: options.Fdr = None,
        pixel_alpha: options.PixelAlpha = 0.01,
        settings: options.Settings = None,
        seed: options.Seed = 0,
        device: options.Device = None,
        out: options.OutFolder = Path("genad-out"),
        as_json: options.Json = False,
        quiet: options.Quiet = False,
    ) -> None:
        terminal = terminal_of(ctx, quiet=quiet)
        from genad.cli.detect import Answer, run
        from genad.cli.jobs import Request

        reading = {"labels": labels, "size": size, "skip_broken": skip_broken}
        request = Request(method, None, alpha, settings or (), seed, device)
        answer = Answer(out, options.FormatChoice.CSV, fdr, pixel_alpha, application=name)
        run(terminal, path, train, reading, request, answer, as_json=as_json)

    command.__doc__ = summary
    return command


industrial = _application(
    "industrial",
    "Inspect product photos: defects, masks, false calls and escapes, from a raw folder to a report.",
)
medical = _application(
    "medical",
    "Look through medical slices (NIfTI, DICOM or pictures), with answers by volume. For research only.",
)


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
