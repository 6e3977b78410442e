"""The configuration reference is the schema's own words."""

from pathlib import Path

from tinyr1v_ray.config.base import known_keys
from tinyr1v_ray.config.reference import ENTRIES, SCHEMAS, reference

REFERENCE = Path(__file__).parents[2] / "configs" / "REFERENCE.md"


def test_the_reference_is_up_to_date():
    assert REFERENCE.read_text() == reference(), "the schema was changed: run `make reference`"


def test_every_setting_of_every_command_stands_in_it():
    text = reference()
    for schema in (SCHEMAS | ENTRIES).values():
        keys = list(known_keys(schema))
        leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
        assert leaves and not [key for key in leaves if f"| `{key}` |" not in text]


def test_every_setting_says_what_it_means():
    bare = [line for line in reference().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert not bare
