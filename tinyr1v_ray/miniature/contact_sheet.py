"""A picture of a few items of each domain, for a person to look at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool

BACKGROUND = "lightgrey"
TILE_WIDTH_PX = 440
TEXT_HEIGHT_PX = 80
MARGIN_PX = 10
ZOOM = 2
NUM_COLUMNS = 5


def write_contact_sheet(path: Path, seed: int) -> None:
    """One row of tiles a domain: the image enlarged, the question, and the answer with short reasoning."""
    rows = [_row(domain, seed) for domain in Domain]
    sheet = Image.new("RGB", (TILE_WIDTH_PX * NUM_COLUMNS, sum(row.height for row in rows)), BACKGROUND)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path)


def _row(domain: Domain, seed: int) -> Image.Image:
    drawn = list(items(domain, Pool.EVALUATION, NUM_COLUMNS, seed))
    height = max(item.image.height for item in drawn) * ZOOM + TEXT_HEIGHT_PX
    row = Image.new("RGB", (TILE_WIDTH_PX * NUM_COLUMNS, height), BACKGROUND)
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(15)
    for column, item in enumerate(drawn):
        left = column * TILE_WIDTH_PX + MARGIN_PX
        size = (item.image.width * ZOOM, item.image.height * ZOOM)
        row.paste(item.image.resize(size, Image.Resampling.NEAREST), (left, MARGIN_PX))
        lines = [
            f"{domain}, difficulty {item.difficulty}, need {item.need}",
            item.question,
            item.response(Style.NEEDED),
        ]
        pen.multiline_text((left, MARGIN_PX + size[1] + 6), "\n".join(lines), fill="black", font=font)
    return row
