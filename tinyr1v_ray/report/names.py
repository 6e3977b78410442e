"""What models are called in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tinyr1v_ray.report.outcomes import Model

ALGORITHM_NAMES = {
    "lipo": "LIPO",
    "grpo": "GRPO",
    "dapo": "DAPO",
    "dr_grpo": "Dr. GRPO",
    "quality_first": "Quality first",
    "ddca": "DDCA",
    "length_penalty": "Length penalty",
    "dler": "DLER",
    "function": "Own advantage",
}
KNOWN_NAMES = {
    "amm": "AMM",
    "wudi": "WUDI",
    "average": "Average",
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "dare": "DARE",
    "iso_c": "Iso-C",
    "ram": "RAM",
    "ram_plus": "RAM+",
    "resmerge": "ResMerge",
    "swudi": "SWUDI",
    "amm_no_importance": "AMM without importance",
    "amm_no_compatibility": "AMM without compatibility",
    "amm_no_projection": "AMM without projection",
    "mixture": "Mixture training",
    "mixture_equal": "Mixture training, equal steps",
    "sequential": "Sequential training",
    "sequential_equal": "Sequential training, equal steps",
    "base": "Base",
}


def labels_of(models: Sequence[Model]) -> dict[str, str]:
    """A label for each name; where two models would share one, the name is added."""
    labels = {model.name: _label(model) for model in models}
    counts = Counter(labels.values())
    return {name: f"{label} ({name})" if counts[label] > 1 else label for name, label in labels.items()}


def _label(model: Model) -> str:
    if model.role == "base":
        return "Base"
    if model.home:
        how = ALGORITHM_NAMES.get(model.algorithm, model.algorithm)
        swept = model.role == "baseline" and model.algorithm == "lipo" and model.boost is not None
        return f"{how} on {model.home}, boost\N{NO-BREAK SPACE}{model.boost:g}" if swept else f"{how} on {model.home}"
    if model.role == "merged":
        return merge_label(model.name, model.algorithm)
    is_for_all = model.name.removesuffix("_equal") in ("mixture", "sequential")
    return KNOWN_NAMES[model.name] if is_for_all else _as_words(model.name)


def merge_label(name: str, method: str) -> str:
    """Of a merged model by its name and its method.

    >>> merge_label("amm", "amm"), merge_label("mine", "ties"), merge_label("ties_dense", "ties")
    ('AMM', 'TIES (mine)', 'Ties dense')
    """
    if method in KNOWN_NAMES and not name.startswith(method):
        return f"{KNOWN_NAMES[method]} ({name})"
    return KNOWN_NAMES[name] if name in KNOWN_NAMES and method in KNOWN_NAMES else _as_words(name)


def _as_words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
