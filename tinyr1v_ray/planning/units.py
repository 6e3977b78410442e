"""Numbers as people read them."""

from __future__ import annotations


def size(num_bytes: float) -> str:
    """
    >>> size(3 * 2**30), size(200 * 2**20), size(25 * 2**30), size(3 * 2**40)
    ('3.0 GiB', '200 MiB', '25 GiB', '3.0 TiB')
    """
    value, units = num_bytes / 2**20, ("MiB", "GiB", "TiB")
    for unit in units:
        if value < 1000 or unit == units[-1]:
            return f"{value:.1f} {unit}" if value < 10 and unit != "MiB" else f"{value:,.0f} {unit}"
        value /= 1024
    raise AssertionError("the last unit returns")


def duration(seconds: float) -> str:
    """
    >>> duration(0.42), duration(42), duration(600), duration(7 * 3600), duration(4 * 86400)
    ('0.4 s', '42 s', '10 min', '7.0 h', '4.0 days')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def count(number: float) -> str:
    """
    >>> count(7.68e15)
    '7.68 P'
    >>> count(2560), count(3754622976), count(655360), count(12.4), count(1860736), count(25_600_000)
    ('2,560', '3.75 G', '655,360', '12', '1.86 M', '25.6 M')
    """
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if number >= 0.9995 * 10**power:
            return f"{number / 10**power:.3g} {letter}"
    return f"{number:,.0f}"


def several(number: float, noun: str) -> str:
    """
    >>> several(1, "seed"), several(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number:,g} {noun}{'' if number == 1 else 's'}"
