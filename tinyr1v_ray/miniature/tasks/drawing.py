"""Canvases in cells of 28 x 28 pixels, printed text, and PNG bytes.

One cell is one image token of the model. Text uses Pillow's built-in bitmap font (6 x 11 pixels a character), so four
characters fit into a cell and the same bytes come out on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from tinyr1v_ray.miniature.tasks.digits import CELL_PX

INK = (20, 20, 20)


@lru_cache(maxsize=1)
def _font() -> ImageFont.ImageFont:
    return ImageFont.load_default_imagefont()


def blank(num_columns: int, num_rows: int) -> Image.Image:
    """A white RGB image of `num_columns` x `num_rows` cells."""
    return Image.new("RGB", (num_columns * CELL_PX, num_rows * CELL_PX), "white")


def paste_cell(canvas: Image.Image, cell: Image.Image, column: int, row: int) -> None:
    """Put a grey 28 x 28 image into a cell of the canvas."""
    canvas.paste(cell.convert("RGB"), (column * CELL_PX, row * CELL_PX))


def write_text(canvas: Image.Image, text: str, centre_px: tuple[float, float]) -> None:
    """Print `text` centred at `centre_px` (x, y)."""
    left, top, right, bottom = _font().getbbox(text)
    corner = (round(centre_px[0] - (right - left) / 2), round(centre_px[1] - (bottom - top) / 2))
    ImageDraw.Draw(canvas).text(corner, text, fill=INK, font=_font())


def draw_operator(canvas: Image.Image, sign: str, column: int, row: int) -> None:
    """Draw one of + - x, 14 pixels wide, in the middle of a cell."""
    x, y = column * CELL_PX + CELL_PX // 2, row * CELL_PX + CELL_PX // 2
    strokes = {
        "+": [(x - 7, y, x + 7, y), (x, y - 7, x, y + 7)],
        "-": [(x - 7, y, x + 7, y)],
        "x": [(x - 6, y - 6, x + 6, y + 6), (x - 6, y + 6, x + 6, y - 6)],
    }
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes[sign]:
        pen.line(stroke, fill=INK, width=2)


def to_png(image: Image.Image) -> bytes:
    """PNG bytes; lossless, so the same image gives the same bytes."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
