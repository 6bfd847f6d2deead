"""Check cells of the notebooks' exercises."""

from __future__ import annotations

from typing import Any

import numpy as np


def check(answer: Any, expected: Any, *, tolerance: float = 1e-3, hint: str = "") -> None:
    """Print whether an answer is right; None means not answered yet.

    Args:
        answer: a number, array or tensor, a sequence of them, or True / False.
        expected: the right answer.
        tolerance: largest absolute difference.
        hint: printed if the answer is wrong.
    """
    if answer is None or (isinstance(answer, (tuple, list)) and any(one is None for one in answer)):
        print("… not answered yet")  # noqa: T201
        return
    try:
        given, wanted = _numbers(answer), _numbers(expected)
        right = given.shape == wanted.shape and bool(np.allclose(given, wanted, rtol=0.0, atol=tolerance))
    except (TypeError, ValueError):
        right = False
    print("✓ right" if right else f"✗ not yet: got {answer}. {hint}".rstrip())  # noqa: T201


def _numbers(values: Any) -> Any:
    if isinstance(values, (tuple, list)):
        return np.concatenate([np.ravel(_numbers(one)) for one in values])
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
