"""Draw instances on an image: tinted masks, outlines, boxes and labels."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.masks import Region
from live_seg.types import Image, Instances

Colour = tuple[int, int, int]
"""Blue, green, red, each 0..255."""

Plate = tuple[int, int, int, int]
"""Background of a label: left, top, right, bottom in pixels, right and bottom exclusive."""

OKABE_ITO = (0xE69F00, 0x56B4E9, 0x009E73, 0xF0E442, 0x0072B2, 0xD55E00, 0xCC79A7)
"""RGB. Distinguishable with every kind of colour vision: Okabe & Ito 2008, "Color Universal Design"
(https://jfly.uni-koeln.de/color/), without its black."""

SHADES = ((0, 0.0), (255, 0.5), (0, 0.55))
"""(grey level, share) of each pass through the palette: the share by which its colours are mixed with that
grey. Differences in lightness are visible with every kind of colour vision. The shares keep all 21 colours at
least 7 apart in CIELAB (just noticeable: 2.3) in the simulations of Machado et al. 2009."""

SMOOTHING = 9
"""Neighbouring outline points in a moving average, odd: removes the pixel steps, keeps the mask's shape."""

CURVE_ERROR = 0.25
"""Maximum distance in pixels of a drawn outline from its smoothed points. Drawing time grows with the number
of points."""

SUBPIXEL_BITS = 4
"""Fractional bits of outline coordinates: `shift` in OpenCV's drawing functions."""

MAX_STACKED = 6
"""Maximum rows of labels stacked at one box; further labels overlap others, as more rows would move them too
far from their boxes."""

LINE_WIDTH = 1 / 360
"""Width of an outline or box in pixels, at least 1, per pixel of the frame's shorter side."""

FONT = cv2.FONT_HERSHEY_SIMPLEX

TEXT_SCALE = 0.00065
"""OpenCV's font scale per pixel of the frame's shorter side: 16 pixels of text height at 720."""

MIN_TEXT_SCALE = 0.4
"""Smallest font scale, 11 pixels of text height: smaller digits are hard to distinguish."""


def colour(key: int) -> Colour:
    """Return the BGR colour of a track id, or of a position when untracked. Colours repeat after 21."""
    turn, place = divmod(key % (len(OKABE_ITO) * len(SHADES)), len(OKABE_ITO))
    grey, share = SHADES[turn]
    blue, green, red = (
        round((OKABE_ITO[place] >> shift & 255) * (1 - share) + grey * share) for shift in (0, 8, 16)
    )
    return blue, green, red


def draw(
    image: Image,
    instances: Instances,
    class_names: Sequence[str] | None = None,
    *,
    alpha: float = 0.45,
    labels: bool = True,
    boxes: bool = True,
    masks: bool = True,
) -> Image:
    """Draw `instances` on a copy of `image` (H, W, 3) uint8 BGR, smaller boxes on top of larger ones.

    `alpha`, 0..1, is the opacity of a mask's tint; the outline is always opaque. A label shows the class, the
    score and the id of a confirmed track. It is placed above its box, or inside where there is no room above.
    `class_names` is indexed by class id; by default those of `instances`. Lines and text scale with the
    image; everything is clipped to it. Raises UsageError for an invalid `alpha` or `image`, or a class id
    without a name.
    """
    class_names = class_names or instances.class_names or ()
    _check(image, instances, class_names, alpha)
    canvas = image.copy()
    order = np.argsort(-np.prod(instances.boxes[:, 2:] - instances.boxes[:, :2], axis=1), kind="stable")
    keys = range(len(instances)) if instances.track_ids is None else instances.track_ids.tolist()
    colours = [colour(key) for key in keys]
    shown: dict[int, Region] = {}
    pasted = instances[order].pasted(image.shape[:2])
    for position, (region, bits) in zip(order.tolist(), pasted, strict=True):
        if not bits.size:
            continue
        shown[position] = region
        if masks:
            _draw_mask(canvas, region, bits, colours[position], alpha)
        if boxes:
            _draw_box(canvas, region, colours[position])
    if labels:
        ordered = sorted(shown, key=keys.__getitem__)  # by track id: labels keep their order over time
        captions = [_caption(instances, position, class_names) for position in ordered]
        _draw_labels(canvas, captions, [shown[i] for i in ordered], [colours[i] for i in ordered])
    return canvas


def _check(image: Image, instances: Instances, class_names: Sequence[str], alpha: float) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"Cannot draw on an image {image.shape} {image.dtype}: expected (H, W, 3) uint8, BGR."
        )
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}: expected 0 (outlines only) to 1 (opaque masks).")
    if len(instances) and instances.class_ids.max() >= len(class_names):
        raise UsageError(
            f"Class id {instances.class_ids.max()} has no name: {len(class_names)} class names were given. "
            "Pass the class names of the model that detected the instances."
        )


def _line_width(canvas: Image) -> int:
    return max(1, round(LINE_WIDTH * int(min(canvas.shape[:2]))))


def _draw_mask(canvas: Image, region: Region, bits: NDArray[np.bool_], fill: Colour, alpha: float) -> None:
    """Tint the mask `bits` of `region` and draw its outline, in place."""
    mask = bits.view(np.uint8)
    view = canvas[region]
    flat = np.empty_like(view)
    cv2.rectangle(flat, (0, 0), (flat.shape[1], flat.shape[0]), fill, cv2.FILLED)
    cv2.copyTo(cv2.addWeighted(view, 1 - alpha, flat, alpha, 0, dst=flat), mask, view)
    corner = (region[1].start, region[0].start)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=corner)
    curves = [_curve(np.asarray(contour)) for contour in contours]
    cv2.polylines(canvas, curves, True, fill, _line_width(canvas), cv2.LINE_AA, SUBPIXEL_BITS)


def _curve(contour: NDArray[Any]) -> NDArray[np.int32]:
    """Smooth a closed contour (P, 1, 2) of pixels and reduce its points; return fixed-point coordinates."""
    reach = SMOOTHING // 2
    around = contour.take(np.arange(-reach, len(contour) + reach), axis=0, mode="wrap")
    smooth = cv2.blur(around.astype(np.float32), (1, SMOOTHING))[reach:-reach]
    curve = cv2.approxPolyDP(smooth, CURVE_ERROR, True)
    return np.rint(curve * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _draw_box(canvas: Image, region: Region, fill: Colour) -> None:
    rows, columns = region
    cv2.rectangle(
        canvas, (columns.start, rows.start), (columns.stop - 1, rows.stop - 1), fill, _line_width(canvas)
    )


def _caption(instances: Instances, position: int, class_names: Sequence[str]) -> str:
    caption = f"{class_names[instances.class_ids[position]]} {instances.scores[position]:.2f}"
    track_id = instances.confirmed_id(position)
    return caption if track_id is None else f"{caption} #{track_id}"


def _draw_labels(canvas: Image, captions: list[str], regions: list[Region], colours: list[Colour]) -> None:
    """Write each caption on a plate of its colour next to the box at its region."""
    scale = max(MIN_TEXT_SCALE, TEXT_SCALE * min(canvas.shape[:2]))
    weight = max(1, round(scale))
    (_, rise), below = cv2.getTextSize("Ag", FONT, scale, weight)
    margin = rise // 4
    plates: list[Plate] = []
    for caption, region, fill in zip(captions, regions, colours, strict=True):
        (length, _), _ = cv2.getTextSize(caption, FONT, scale, weight)
        plate = _place_label(region, length + 2 * margin, rise + below + 2 * margin, canvas.shape[:2], plates)
        plates.append(plate)
        left, top, right, bottom = plate
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), fill, cv2.FILLED)
        base = (left + margin, top + margin + rise)
        cv2.putText(canvas, caption, base, FONT, scale, _text_colour(fill), weight, cv2.LINE_AA)


def _place_label(
    region: Region, width: int, height: int, frame: tuple[int, int], occupied: list[Plate]
) -> Plate:
    """Return a plate in a `frame` (height, width): above the box at `region`, else further down inside it.

    The plate avoids those in `occupied`, which have the same height, by up to MAX_STACKED rows. If that is
    not enough, it overlaps some of them.
    """
    left = max(0, min(region[1].start, frame[1] - width))
    near = [plate for plate in occupied if left < plate[2] and plate[0] < left + width]
    above, inside = region[0].start - height, region[0].start
    upwards = sorted({above, *(plate[1] - height for plate in near)}, reverse=True)
    downwards = sorted({inside, *(plate[3] for plate in near)})
    tops = [top for top in upwards if max(0, above - MAX_STACKED * height) <= top <= above]
    tops += [
        top for top in downwards if inside <= top <= min(inside + MAX_STACKED * height, frame[0] - height)
    ]
    tops = tops or [0]
    free = (top for top in tops if all(abs(top - plate[1]) >= height for plate in near))
    top = next(free, tops[0])
    return left, top, left + width, top + height


def _text_colour(fill: Colour) -> Colour:
    """Return black or white, the one with more contrast to `fill` (WCAG 2.2, relative luminance)."""
    shares = [value / 255 for value in fill]
    blue, green, red = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)
