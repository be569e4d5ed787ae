"""Pictures of actions: where two views lie on their source, and what was done between them, drawn and in words.

Legend: V views, P parameters of an action, S side of a view in pixels.
"""

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image as pil
from PIL import ImageDraw, ImageFont
from torch import Tensor

from stec import affine
from stec.actions import Component, Compose
from stec.errors import UsageError
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop
from stec_vision.reading import Picture, to_tensor

Colour = tuple[int, int, int]
Panel = tuple[str, pil.Image, Colour | None]  # caption, picture, colour of the caption

# Blue and orange: told apart by every kind of colour vision, and on light and dark pages.
COLOURS: tuple[Colour, Colour] = (63, 127, 200), (224, 131, 48)
_GREY: Colour = (128, 134, 142)

_HEIGHT = 240  # of the source and of the views, in pixels of the picture; a page shows them at about half of it
_WIDEST = 400  # of a source, so that a panorama does not push its views off the page
_FRAME, _GAP, _CAPTION = 4, 16, 36
_FINE = 3  # boxes are drawn this many times larger and then reduced, which smooths them
_TINY = 0.01  # the smallest window that is spoken of
_BEYOND = 6.0  # how far from a picture's centre, in its half-sides, a window is followed

_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
# The mark in the first corner of a view: its long side lies along the top. Mirrored, it cannot be turned into itself.
_MARK = torch.tensor([[-1.0, -1.0], [-0.45, -1.0], [-1.0, -0.72]], dtype=torch.float64)

_STILL = {
    "linear_xx": 1.0,
    "linear_xy": 0.0,
    "translation_x": 0.0,
    "linear_yx": 0.0,
    "linear_yy": 1.0,
    "translation_y": 0.0,
}
_MEANINGS = {
    "linear_xx": "Width of view 2 in widths of view 1; negative: mirrored.",
    "linear_yy": "Height of view 2 in heights of view 1.",
    "linear_xy": "Turn and slant: how far right its height leans.",
    "linear_yx": "Turn: how far down its width leans.",
    "translation_x": "How far to the right view 2 lies, in half-windows.",
    "translation_y": "How far down view 2 lies, in half-windows.",
}
_OTHER_MEANINGS = {
    "brightness": "Factor of brightness of view 2, minus that of view 1.",
    "contrast": "Factor of contrast of view 2, minus that of view 1.",
    "saturation": "Factor of saturation of view 2, minus that of view 1.",
    "hue": "Shift of hue of view 2, minus that of view 1, in turns of the colour circle.",
    "quarter_turn": "Quarter turns from view 1 to view 2, anticlockwise.",
}


class ReportPictures:
    """Draws the crops of `space`, which must have an affine_crop among its parts; UsageError otherwise."""

    legend = (
        "Blue: view 1, orange: view 2. The filled corner is a view's top left one: where it is at the right on the "
        "source, the view is mirrored. Right, left, up and down are those of view 1 as it is shown; a half-window is "
        "half of its side."
    )

    def __init__(self, space: Compose):
        found = [(name, part) for name, part in space.parts.items() if isinstance(part, AffineCrop)]
        if not found:
            raise UsageError(f"pictures of views need an affine_crop, but the actions are: {', '.join(space.parts)}.")
        name, self._crop = found[0]
        self._columns = space.slices[name]
        # Only the egocentric frame is in the coordinates of the first view, which is where words and windows live.
        self._felt = "half-windows" in {c.unit for c in self._crop.components}
        self._others = {c.name: c for part in space.parts.values() if part is not self._crop for c in part.components}
        self.meanings: dict[str, str] = (_MEANINGS if self._felt else {}) | {
            name: words for name, words in _OTHER_MEANINGS.items() if name in self._others
        }
        """Components of the action in a few words; a crop's in other frames are left unexplained."""

    def source(self, raw: bytes, decoder: Image | ImageCrop) -> Tensor:
        """uint8 [3, H, W]: what the decoder's actions are cut from, in its proportions; DataError if unreadable."""
        if not decoder.performs:
            return decoder.whole(decoder.open(raw))
        picture = Picture(raw, decoder.max_pixels)
        picture.reduce(_HEIGHT, _HEIGHT)
        return to_tensor(picture.rgb())

    def pair(self, source: Tensor, actions: Tensor, views: Sequence[Tensor]) -> bytes:
        """PNG: the whole source uint8 [3, H, W] with the windows of actions [V, P], then the views float [3, S, S].

        Two of V views are drawn. The source may have been scaled: windows are drawn in its proportions.
        """
        windows = self._crop.matrix(actions[:2, self._columns])
        panels: list[Panel] = [("source", _with_windows(_picture(source), windows, COLOURS), None)]
        for number, (view, colour) in enumerate(zip(views[:2], COLOURS, strict=True), start=1):
            panels.append((f"view {number}", _marked(_picture(view), colour), colour))
        return _row(panels)

    def answer(self, a: Tensor, b: Tensor, values: dict[str, float]) -> bytes:
        """PNG: image a [3, H, W] with the window in which the action {component: value} sees b; and b beside it.

        Both uint8, or float in [0, 1]. A component that is missing counts as nothing done. In a frame other than the
        egocentric one the action does not say where the window is, and none is drawn.
        """
        second = _marked(_picture(b), COLOURS[1])
        if not self._felt:
            return _row([("a", _marked(_picture(a), COLOURS[0]), COLOURS[0]), ("b", second, COLOURS[1])])
        own, seen = torch.eye(3, dtype=torch.float64), torch.tensor([*_known(values).values(), 0.0, 0.0, 1.0])
        windows = torch.stack([own, seen.double().reshape(3, 3)])
        inside = _with_windows(_picture(a), windows, COLOURS)
        return _row([("a, and where the model sees b", inside, COLOURS[0]), ("b", second, COLOURS[1])])

    def words(self, values: dict[str, float]) -> str:
        """The action {component: value} in plain words, as view 1 would feel it: "zoom in 1.6x, move right 0.4
        half-windows, mirrored". Components that are missing or not finite are not spoken of. Of other parts, and in a
        frame other than the egocentric one: the values.
        """
        known = {name: v for name, v in values.items() if math.isfinite(v)}
        others = [_told(c, known[name]) for name, c in self._others.items() if name in known]
        if not self._felt:
            own = [c for c in self._crop.components if c.name in known]
            told = [_told(c, known[c.name]) if c.levels else f"{c.name} {known[c.name]:.2f} {c.unit}" for c in own]
            return ", ".join(filter(None, [*told, *others])) or ("nothing" if told or others else "unknown")
        if not known.keys() & {*_STILL, *self._others}:
            return "unknown"
        xx, xy, right, yx, yy, down = _known(values).values()
        area = xx * yy - xy * yx
        mirrored = area < 0
        if mirrored:
            xx, yx = -xx, -yx
        # The window is zoomed and slanted, then turned: a QR decomposition, in which the slant is of the upright edges.
        width = math.hypot(xx, yx)
        height = abs(area) / width if width > _TINY else math.hypot(xy, yy)
        slant = (xx * xy + yx * yy) / max(width * height, _TINY)
        parts = [*_zoom(width, height), *_turn("turn", math.atan2(yx, xx)), *_turn("slant", -math.atan(slant))]
        parts += [*_move(right, down), *(["mirrored"] if mirrored else [])]
        parts += filter(None, others)
        return ", ".join(parts) or "nothing"


def _told(component: Component, value: float) -> str:
    """A component that has no words of its own, by its name and unit; "" if it says that nothing was done."""
    if abs(value) < 0.005:
        return ""
    if component.levels == (0.0, 1.0):  # yes or no
        return component.name
    return f"{component.name} {f'{value:g}' if component.levels else f'{value:+.2f}'} {component.unit}"


def _known(values: dict[str, float]) -> dict[str, float]:
    """All six entries in the order of `affine.entries`; what is missing or not finite as if nothing was done."""
    return _STILL | {name: v for name, v in values.items() if name in _STILL and math.isfinite(v)}


def _zoom(across: float, down: float) -> list[str]:
    """Sizes of the new window in units of the old one -> at most one phrase."""
    if abs(math.log(max(across, _TINY) / max(down, _TINY))) < 0.1:
        across = down = math.sqrt(across * down)
    first, second = _factor(across), _factor(down)
    if first == second:
        return [f"zoom {first}"] if first else []
    each = [f"{first} across"] if first else []
    if second:
        way = first.partition(" ")[0] + " " if first else ""
        each.append(f"{second.removeprefix(way)} down")  # "in 1.8x across and 2.7x down"
    return [f"zoom {' and '.join(each)}"]


def _factor(size: float) -> str:
    zoom = 1 / max(size, _TINY)
    if abs(math.log(zoom)) < 0.05:
        return ""
    return f"in {zoom:.1f}x" if zoom > 1 else f"out {1 / zoom:.1f}x"


def _turn(verb: str, angle: float) -> list[str]:
    """An angle in radians, clockwise as y points down -> at most one phrase."""
    degrees = round(math.degrees(angle))
    return (
        [f"{verb} {abs(degrees)} degrees {'clockwise' if degrees > 0 else 'anticlockwise'}"]
        if abs(degrees) >= 2
        else []
    )


def _move(right: float, down: float) -> list[str]:
    ways = [(right, "right", "left"), (down, "down", "up")]
    moves = [f"{way if v > 0 else back} {abs(v):.1f}" for v, way, back in ways if abs(v) >= 0.05]
    if not moves:
        return []
    one = len(moves) == 1 and moves[0].endswith(" 1.0")
    return [f"move {' and '.join(moves)} half-window{'' if one else 's'}"]


def _picture(x: Tensor) -> pil.Image:
    """[3, H, W] uint8, or float in [0, 1] -> a picture of _HEIGHT, or as wide as it may be."""
    if x.is_floating_point():
        x = (x.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    picture = pil.fromarray(x.permute(1, 2, 0).contiguous().cpu().numpy(), "RGB")
    scale = min(_HEIGHT / picture.height, _WIDEST / picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, pil.Resampling.BICUBIC)


def _with_windows(picture: pil.Image, windows: Tensor, colours: Sequence[Colour]) -> pil.Image:
    """The picture on a clear canvas that holds all windows [N, 3, 3] (in its coordinates, edges at +-1), outlined."""
    reach = affine.apply(windows, _CORNERS).flatten(0, 1).clamp(-_BEYOND, _BEYOND)
    half = torch.tensor([picture.width / 2, picture.height / 2], dtype=torch.float64)
    edge = 2 * _FRAME / half
    low = torch.minimum(reach.amin(0), torch.full((2,), -1.0)) - edge
    high = torch.maximum(reach.amax(0), torch.full((2,), 1.0)) + edge
    width, height = ((high - low) * half).ceil().int().tolist()
    canvas = pil.new("RGBA", (width, height), (0, 0, 0, 0))
    left, top = ((-1 - low) * half).round().int().tolist()
    canvas.paste(picture, (left, top))
    fine = pil.new("RGBA", (width * _FINE, height * _FINE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(fine)
    for window, colour in zip(windows, colours, strict=True):
        corners, mark = ((affine.apply(window, p) - low) * half * _FINE for p in (_CORNERS, _MARK))
        _outline(draw, corners, mark, colour, _FINE)
    canvas.alpha_composite(fine.resize(canvas.size, pil.Resampling.LANCZOS))
    return canvas


def _marked(picture: pil.Image, colour: Colour) -> pil.Image:
    """A view with its frame and the mark of its first corner."""
    own = torch.eye(3, dtype=torch.float64)[None]
    return _with_windows(picture, own, [colour])


def _outline(draw: ImageDraw.ImageDraw, corners: Tensor, mark: Tensor, colour: Colour, scale: int) -> None:
    """A closed line with a pale rim, so that it is seen on any ground, and the mark filled."""
    ring = [tuple(p) for p in corners.tolist()]
    ring += ring[:2]  # the overlap rounds the last joint
    triangle = [tuple(p) for p in mark.tolist()]
    draw.line(ring, fill=(255, 255, 255, 200), width=(_FRAME + 3) * scale, joint="curve")
    draw.polygon(triangle, fill=(*colour, 255), outline=(255, 255, 255, 200), width=scale)
    draw.line(ring, fill=(*colour, 255), width=_FRAME * scale, joint="curve")


def _row(panels: Sequence[Panel]) -> bytes:
    """Panels side by side with a caption under each, on a clear ground, as PNG."""
    font = ImageFont.load_default(24)
    height = max(panel.height for _, panel, _ in panels)
    widths = [max(panel.width, 2 * _FRAME + math.ceil(font.getlength(caption))) for caption, panel, _ in panels]
    canvas = pil.new("RGBA", (sum(widths) + _GAP * (len(panels) - 1), height + _CAPTION), (0, 0, 0, 0))
    draw, left = ImageDraw.Draw(canvas), 0
    for (caption, panel, colour), width in zip(panels, widths, strict=True):
        top = (height - panel.height) // 2
        canvas.alpha_composite(panel, (left, top))
        draw.text((left + 2 * _FRAME, top + panel.height + 4), caption, fill=(*(colour or _GREY), 255), font=font)
        left += width + _GAP
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
