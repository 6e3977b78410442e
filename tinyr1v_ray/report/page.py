"""The page: one HTML file with its style, script, pictures and metrics inside. Everything in it is escaped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.evaluation.comparison import NUM_RESAMPLES
from tinyr1v_ray.evaluation.reading import visible
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import to_json
from tinyr1v_ray.report import paper
from tinyr1v_ray.report.claims import MARGIN_POINTS, p_text, signed, specialist_sentences
from tinyr1v_ray.report.contents import Contents, read_contents
from tinyr1v_ray.report.names import ALGORITHM_NAMES, KNOWN_NAMES
from tinyr1v_ray.report.page_metrics import metrics_of
from tinyr1v_ray.report.pictures import pictures_of
from tinyr1v_ray.report.tables import merge_rows

REPORT = "report.html"
_FOLDER = Path(__file__).parent / "template"


@dataclass(frozen=True)
class WrittenReport:
    """Where the report lies, and what it shows."""

    path: Path
    contents: Contents


def write_report(run: Path) -> WrittenReport:
    """Read a recipe's folder and write its report.html, whole or not at all.

    The page is made of the folder's content alone: the same folder gives the same page. Raises RunFolderError when the
    folder has no readable index or the page cannot be written there.
    """
    contents = read_contents(run)
    path = contents.recipe.run / REPORT
    page = render(contents)
    try:
        replace_file(path, page)
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror or error}; the report goes into the recipe's folder; make room "
            "for it and give yourself the right to write there, or report on a copy of the folder"
        ) from error
    return WrittenReport(path, contents)


def render(contents: Contents) -> str:
    """The page as text that UTF-8 can hold, whatever models wrote."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "points": points,
        "signed": signed,
        "p": p_text,
        "duration": duration,
    }
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = environment.get_template("page.html").render(
        c=contents,
        paper=paper,
        pictures=pictures_of(contents),
        merge_rows=merge_rows(contents.rows),
        algorithm_names=ALGORITHM_NAMES,
        known_names=KNOWN_NAMES,
        sentences=specialist_sentences(contents.findings, contents.labels),
        num_resamples=NUM_RESAMPLES,
        margin_points=MARGIN_POINTS,
        style=Markup(style),
        script=Markup(script),
        metrics=script_safe(to_json(metrics_of(contents), indent=1)),
    )
    return visible(page)


def script_safe(json_text: str) -> Markup:
    """JSON that may stand inside a script element: no `<`, `>` or `&` is left that could end it.

    >>> script_safe('"</script>"')
    Markup('"\\\\u003c/script\\\\u003e"')
    """
    return Markup(json_text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def number(value: float | None, factor: float = 1.0, digits: int = 1) -> str:
    """A number for a table; a dash where there is none.

    >>> number(0.6103, 100), number(None), number(float("nan"))
    ('61.0', '–', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{factor * value:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share for a table, in percent."""
    return number(value, 100)


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return signed(100 * value)


def duration(seconds: float | None) -> str:
    """Seconds for readers.

    >>> duration(81.24), duration(754), duration(None)
    ('81.2 s', '12 min 34 s', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    return f"{seconds:.1f} s" if seconds < 120 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
