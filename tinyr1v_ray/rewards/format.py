"""Whether a completion has the form that was asked for."""

from __future__ import annotations

from tinyr1v_ray.rewards.extract import TAGGED_ANSWER, last_boxed


def format_score(text: str) -> float:
    r"""1 for one `<think>...</think>` at the start, followed by a boxed or tagged answer; else 0.

    The reasoning may be empty: how much of it pays is LIPO's question, not the form's.

    >>> format_score("<think>3+4=7</think><answer>7</answer>"), format_score(r"<think></think> \boxed{7}")
    (1.0, 1.0)
    >>> format_score("<answer>7</answer>"), format_score("<think>7</think> 7")
    (0.0, 0.0)
    """
    if text.count("<think>") != 1 or text.count("</think>") != 1 or not text.lstrip().startswith("<think>"):
        return 0.0
    conclusion = text.partition("</think>")[2]
    return 1.0 if TAGGED_ANSWER.search(conclusion) or last_boxed(conclusion) is not None else 0.0
