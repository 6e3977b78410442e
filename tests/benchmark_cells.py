"""Cells of benchmark tables as tests write them."""

from __future__ import annotations

import base64
import io

from PIL import Image


def picture(shade: int, width_px: int = 28) -> str:
    """A grey picture in base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (width_px, 28), (shade, shade, shade)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
