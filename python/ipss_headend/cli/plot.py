"""A curve in a terminal, from block characters."""

from collections.abc import Sequence
from itertools import pairwise

EIGHTHS = " ▁▂▃▄▅▆▇█"


def columns(values: Sequence[float], width: int) -> list[float]:
    """The values averaged into at most `width` columns."""
    if len(values) <= width:
        return list(values)
    edges = [round(place * len(values) / width) for place in range(width + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]


def plot(values: Sequence[float], *, width: int = 72, height: int = 8, unit: str = "") -> list[str]:
    """The values as lines of text, the highest at the top, with a scale at the left. Negative values stand at zero."""
    if not values:
        return []
    drawn = columns(values, width)
    most = max(*drawn, 0.0) if len(drawn) > 1 else max(drawn[0], 0.0)
    step = most / height or 1.0
    lines = []
    for row in range(height, 0, -1):
        filled = [min(max((value - (row - 1) * step) / step, 0.0), 1.0) for value in drawn]
        label = f"{row * step:8.0f} {unit}" if row in {height, (height + 1) // 2} else ""
        lines.append(f"{label:>{9 + len(unit)}} │" + "".join(EIGHTHS[round(share * 8)] for share in filled))
    lines.append(f"{'0 ' + unit:>{9 + len(unit)}} └" + "─" * len(drawn))
    return lines
