"""Windows are drawn where the views were cut, and words say what the matrices do."""

import io
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pil

from stec import affine
from stec.actions import Compose, sample_views
from stec.errors import UsageError
from stec.rng import make_keys
from stec_vision.actions import AffineCrop
from stec_vision.decode import Image, ImageCrop
from stec_vision.photometry import ColorJitter, Grayscale
from stec_vision.pictures import COLOURS, ReportPictures
from stec_vision.quarter_turn import QuarterTurn

FRAME, CAPTION = 4, 36
NAMES = affine.entry_names("xy")


def space(**options):
    return Compose({"grayscale": Grayscale(p=0.5), "affine_crop": AffineCrop(size=32, **options)})


def crops():
    return Compose({"affine_crop": AffineCrop(size=32)})


def pixels(png):
    return np.asarray(pil.open(io.BytesIO(png)).convert("RGBA")).astype(int)


def near(picture, colour):
    """bool [H, W]: opaque and of this colour."""
    return (np.abs(picture[..., :3] - np.array(colour)).max(axis=2) < 40) & (picture[..., 3] > 200)


def drawn(pictures, number, black, **options):
    actions = sample_views(pictures_space := space(**options), make_keys(1, 0, torch.tensor([number])), black, 2)[:, 0]
    source = torch.zeros(3, *black[0].tolist(), dtype=torch.uint8)
    picture = pixels(pictures.pair(source, actions, (torch.zeros(3, 32, 32), torch.zeros(3, 32, 32))))
    windows = pictures_space.parts["affine_crop"].matrix(actions[:, pictures_space.slices["affine_crop"]])
    return picture, windows


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("options", [{}, {"rotation": 0.6, "shear": 0.3}])
def test_windows_lie_where_the_views_were_cut(number, options):
    pictures = ReportPictures(space(**options))
    picture, windows = drawn(pictures, number, torch.tensor([[48, 64]]), **options)
    height, width = 240, 320
    # The canvas grows to the side on which a turned window leaves the source.
    corners = affine.apply(windows, torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64))
    low = torch.minimum(corners.flatten(0, 1).amin(0), torch.tensor([-1.0, -1.0]))
    middles = torch.tensor([[0.0, -1], [1, 0], [0, 1], [-1, 0]], dtype=torch.float64)
    for v, colour in enumerate(COLOURS):
        seen = near(picture, colour)
        places = affine.apply(windows[v], middles)
        own = 0
        for x, y in (places - low).tolist():
            column, row = round(x * width / 2) + 2 * FRAME, round(y * height / 2) + 2 * FRAME
            patch = (slice(max(row - 3, 0), row + 4), slice(max(column - 3, 0), column + 4))
            own += seen[patch].any()
        # Where the other window's line crosses, it may lie above.
        assert own >= 3 if v == 0 else own == 4


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_mark_changes_sides_when_the_view_is_mirrored(flip):
    options = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": flip}
    picture, _ = drawn(ReportPictures(space(**options)), 0, torch.tensor([[64, 64]]), **options)
    left, right = picture[26, 8 + 26], picture[26, 8 + 240 - 26]
    marked = [bool(near(p[None, None], COLOURS[1])[0, 0]) for p in (left, right)]  # view 2 is drawn last
    assert marked == [flip == 0, flip == 1]


def test_views_are_framed_in_the_colours_of_their_windows():
    pictures = ReportPictures(space())
    actions = sample_views(space(), make_keys(0, 0, torch.tensor([4])), torch.tensor([[40, 40]]), 3)[:, 0]
    white = torch.ones(3, 16, 16)
    picture = pixels(pictures.pair(torch.zeros(3, 40, 40, dtype=torch.uint8), actions, (white, white, white)))
    assert picture.shape[1] == 3 * (240 + 4 * FRAME) + 2 * 16
    middle = picture[130]
    edges = {v: np.flatnonzero(near(middle[None], colour)[0]) for v, colour in enumerate(COLOURS)}
    for v, start in enumerate((256 + 16, 2 * (256 + 16))):
        assert {start + 8, start + 248} <= set(edges[v]) | {e + 1 for e in edges[v]} | {e - 1 for e in edges[v]}


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (300, 400)])
def test_sources_of_any_shape_give_a_picture_of_bounded_size(size):
    pictures = ReportPictures(space())
    actions = sample_views(space(), make_keys(0, 0, torch.tensor([0])), torch.tensor([size]), 2)[:, 0]
    views = (torch.rand(3, 32, 32), torch.rand(3, 32, 32))
    picture = pixels(pictures.pair(torch.zeros(3, *size, dtype=torch.uint8), actions, views))
    assert picture.shape[0] == 240 + 4 * FRAME + CAPTION
    assert picture.shape[1] < 1100


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"linear_xx": 0.625, "linear_yy": 0.625, "translation_x": 0.4}, "zoom in 1.6x, move right 0.4 half-windows"),
        ({"linear_xx": -0.625, "linear_yy": 0.625}, "zoom in 1.6x, mirrored"),
        ({"linear_xx": 2.0, "linear_yy": 2.04, "translation_y": -1.0}, "zoom out 2.0x, move up 1.0 half-window"),
        ({"linear_xx": 0.5, "linear_yy": 0.8}, "zoom in 2.0x across and 1.2x down"),
        ({"linear_xx": 0.5, "linear_yy": 2.0}, "zoom in 2.0x across and out 2.0x down"),
        ({"linear_xx": 0.5}, "zoom in 2.0x across"),
        ({"linear_yy": 2.0}, "zoom out 2.0x down"),
        ({"translation_x": -0.3, "translation_y": 0.7}, "move left 0.3 and down 0.7 half-windows"),
        ({"linear_xx": 0.99, "linear_yy": 1.01, "translation_x": 0.01}, "nothing"),
        ({"linear_xx": float("nan"), "translation_x": 0.5}, "move right 0.5 half-windows"),
        ({"hue": 0.5}, "unknown"),
        ({"linear_xx": float("nan")}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_words(values, words):
    assert ReportPictures(space()).words(values) == words


def many(**options):
    """A crop, and two more parts with components of their own."""
    parts = {"color_jitter": ColorJitter(predict=True), "quarter_turn": QuarterTurn(first_view=0)}
    return ReportPictures(Compose({"affine_crop": AffineCrop(size=32, **options), **parts}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"brightness": 0.214, "hue": -0.05}, "brightness +0.21 factor, hue -0.05 turns"),
        ({"linear_xx": 0.5, "contrast": -0.3}, "zoom in 2.0x across, contrast -0.30 factor"),
        ({"linear_xx": 1.0, "quarter_turn": 3.0}, "quarter_turn 3 quarter turns"),
        ({"quarter_turn": 0.0, "hue": 0.001}, "nothing"),
        ({"brightness": float("nan")}, "unknown"),
        ({"sharpness": 1.0}, "unknown"),
    ],
)
def test_components_of_other_parts_are_told_by_name_and_unit(values, words):
    assert many().words(values) == words
    assert set(many().meanings) >= {"brightness", "contrast", "saturation", "hue", "quarter_turn", "linear_xx"}


def test_in_the_frame_of_augself_there_are_values_and_no_window():
    pictures = many(frame="augself")
    assert pictures.words({"centre_x": 0.25, "mirrored": 1.0, "hue": 0.1}) == (
        "centre_x 0.25 extents, mirrored, hue +0.10 turns"
    )
    assert pictures.words({"mirrored": 0.0}) == "nothing"
    assert pictures.words({"linear_xx": 0.5}) == "unknown"
    assert "linear_xx" not in pictures.meanings
    a, b = torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
    assert pixels(pictures.answer(a, b, {"centre_x": 0.25, "brightness": 1.0})).shape[2] == 4


@settings(max_examples=60, deadline=None)
@given(
    zoom=st.floats(0.3, 3),
    degrees=st.integers(-170, 170),
    slant=st.integers(-40, 40),
    mirrored=st.booleans(),
    right=st.floats(-2, 2),
    down=st.floats(-2, 2),
)
def test_words_tell_the_matrix_that_was_made_from_them(zoom, degrees, slant, mirrored, right, down):
    angle, lean = math.radians(degrees), math.tan(math.radians(slant))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.array([[1, lean], [0, 1]]) @ np.diag([-1 if mirrored else 1, 1]) / zoom
    values = dict(zip(NAMES, [*linear[0], right, *linear[1], down], strict=True))
    words = ReportPictures(space()).words(values)
    found = re.search(r"zoom (in|out) ([0-9.]+)x", words)
    told = 1.0 if not found else float(found[2]) if found[1] == "in" else 1 / float(found[2])
    assert told == pytest.approx(zoom, abs=0.051 * max(1, zoom**2))
    for verb, made in (("turn", degrees), ("slant", -slant)):
        found = re.search(rf"{verb} (\d+) degrees (anti)?clockwise", words)
        told = 0 if not found else int(found[1]) * (-1 if found[2] else 1)
        assert told == (made if abs(made) >= 2 else 0)
    assert words.endswith("mirrored") == mirrored
    for way, back, made in (("right", "left", right), ("down", "up", down)):
        found = re.search(rf"\b({way}|{back}) ([0-9.]+)( and| half)", words)
        told = 0.0 if not found else float(found[2]) * (1 if found[1] == way else -1)
        assert told == pytest.approx(made, abs=0.0501)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "hue"]), st.floats(width=32)))
def test_words_can_be_said_of_any_numbers(values):
    assert ReportPictures(space()).words(values)


def test_true_actions_in_words_and_back_are_inverse_to_each_other():
    crop = space(flip=0.0)
    pictures = ReportPictures(crop)
    a, b = sample_views(crop, make_keys(0, 0, torch.tensor([2])), torch.tensor([[64, 64]]), 2)
    there, back = (
        pictures.words(dict(zip(NAMES, crop.relative(*pair).values[0].tolist(), strict=True)))
        for pair in ((a, b), (b, a))
    )
    assert ("in" in there.split(",")[0]) != ("in" in back.split(",")[0])


def window_of_b(values, picture_of=ReportPictures):
    a, b = torch.zeros(3, 20, 20, dtype=torch.uint8), torch.zeros(3, 10, 10, dtype=torch.uint8)
    return pixels(picture_of(space()).answer(a, b, values))


def test_answer_draws_the_window_of_b_in_the_frame_of_a():
    picture = window_of_b({"linear_xx": 0.5, "linear_yy": 0.5, "translation_x": 0.25, "translation_y": -0.25})
    rows, columns = np.nonzero(near(picture[:256, :256], COLOURS[1]))
    # Half of a's 240 pixels, its centre a quarter of a half-window right and up.
    assert (columns.min(), columns.max()) == pytest.approx((8 + 90, 8 + 210), abs=3)
    assert (rows.min(), rows.max()) == pytest.approx((8 + 30, 8 + 150), abs=3)


def test_answer_makes_room_for_a_window_beyond_a():
    beyond = window_of_b({"translation_x": 2.0})
    assert beyond.shape[1] == pytest.approx(256 + 240 + 16 + 256, abs=2)
    assert near(beyond[:256, 488 - 3 : 488 + 4], COLOURS[1]).any()
    far = window_of_b({"translation_x": 1e9, "linear_yy": -1e9, "translation_y": float("inf")})
    assert max(far.shape) < 5000


def test_answer_takes_what_is_missing_as_still_and_both_kinds_of_numbers():
    still = window_of_b({})
    np.testing.assert_array_equal(
        still, window_of_b(dict(zip(NAMES, [1.0, 0, 0, 0, 1, 0], strict=True)) | {"hue": 9.0})
    )
    rng = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    pictures = ReportPictures(space())
    assert pictures.answer(rng, rng, {}) == pictures.answer(rng / 255, rng / 255, {})


@pytest.mark.parametrize("frame", ["allocentric", "published"])
def test_other_frames_are_quoted_not_interpreted(frame):
    pictures = ReportPictures(space(frame=frame))
    assert pictures.words({"linear_xx": -0.5, "translation_x": 0.25}) == (
        f"linear_xx -0.50 {'half-extents' if frame == 'allocentric' else 'ratio'}, translation_x 0.25 half-extents"
    )
    assert pictures.meanings == {}
    a = torch.zeros(3, 20, 20, dtype=torch.uint8)
    picture = pixels(pictures.answer(a, a, {"linear_xx": 0.5}))
    assert not near(picture[:256, :256], COLOURS[1]).any()


def test_meanings_are_told_of_every_component_of_the_crop():
    assert set(ReportPictures(space()).meanings) == set(NAMES)


@pytest.mark.parametrize(
    ("decoder", "proportion"), [(Image(space()), 0.5), (Image(space(), size=20), 1.0), (ImageCrop(crops()), 0.5)]
)
def test_source_is_what_the_decoder_cuts_its_views_from(decoder, proportion):
    buffer = io.BytesIO()
    pil.new("RGB", (1200, 600), (10, 200, 30)).save(buffer, "JPEG")
    height, width = decoder.open(buffer.getvalue()).extent
    source = ReportPictures(space()).source(buffer.getvalue(), decoder)
    assert source.shape[1] / source.shape[2] == height / width == proportion
    assert source.dtype == torch.uint8


def test_space_without_a_crop_is_refused():
    with pytest.raises(UsageError, match="grayscale"):
        ReportPictures(Compose({"grayscale": Grayscale(p=0.5)}))
