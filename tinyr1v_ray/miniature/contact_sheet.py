"""A picture of a few items of each domain, for a person to look at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tinyr1v_ray.miniature.pools import Domain, Pool
from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Style

TILE_PX = (440, 370)
ZOOM = 2
NUM_COLUMNS = 5


def write_contact_sheet(path: Path, seed: int) -> None:
    """One row of tiles a domain: the image enlarged, the question and the answer with short reasoning."""
    width, height = TILE_PX
    sheet = Image.new("RGB", (width * NUM_COLUMNS, height * len(Domain)), "lightgrey")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, domain in enumerate(Domain):
        for column, item in enumerate(items(domain, Pool.EVALUATION, NUM_COLUMNS, seed)):
            left, top = column * width + 10, row * height + 10
            size = (item.image.width * ZOOM, item.image.height * ZOOM)
            sheet.paste(item.image.resize(size, Image.Resampling.NEAREST), (left, top))
            lines = [f"{domain}, difficulty {item.difficulty}", item.question, item.response(Style.SHORT)]
            pen.multiline_text((left, top + size[1] + 6), "\n".join(lines), fill="black", font=font)
    sheet.save(path)
