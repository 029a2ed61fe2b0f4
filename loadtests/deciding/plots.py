"""What came of the simulated rollouts, as plots."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.deciding.cells import NULLS
from loadtests.deciding.others import METHODS
from loadtests.deciding.ours import OURS
from loadtests.deciding.report import Found, quantile_of, share, taken
from loadtests.deciding.running import ROLLED_BACK, Ended

Drawn = Callable[[str, Sequence[Ended]], Sequence[float]]
"""For a cell and what came of it by one method: the bar's height, and where a line from its top ends if it has one."""

HARMFUL = ("errors_2pct", "slower_1.5", "slower_1.1")
BAR = 0.08


def _false(_cell: str, ended: Sequence[Ended]) -> Sequence[float]:
    return [100 * share(ended, ROLLED_BACK)]


def _bad(_cell: str, ended: Sequence[Ended]) -> Sequence[float]:
    return [sum(one.bad for one in ended) / len(ended)]


def _delay(cell: str, ended: Sequence[Ended]) -> Sequence[float]:
    took = taken(cell, ended, "seconds")
    return [value for p in (0.5, 0.9) if (value := quantile_of(took, p)) < math.inf]


PLOTS: Mapping[str, tuple[Sequence[str], Drawn, str]] = {
    "false_rollbacks": ([one.name for one in NULLS], _false, "good candidates taken back, %"),
    "bad_requests": (HARMFUL, _bad, "bad requests until the decision, on average"),
    "delay": (HARMFUL, _delay, "seconds to the rollback: median, and a line to the 90th percentile; none: never"),
}


def plot(found: Found, folder: Path) -> list[Path]:
    """As SVG; those of which no cell was simulated are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (cells, drawn, title) in PLOTS.items():
        if not (shown := [cell for cell in cells if cell in found]):
            continue
        figure, axes = pyplot.subplots(figsize=(11, 5), layout="constrained")
        _draw(axes, found, shown, drawn)
        axes.set_xticks(range(len(shown)), shown, rotation=20)
        axes.set_title(title)
        figure.legend(fontsize="small", ncols=6, loc="outside lower center")
        figure.savefig(written_to := folder / f"{name}.svg")
        pyplot.close(figure)
        written.append(written_to)
    return written


def _draw(axes: Any, found: Found, cells: Sequence[str], drawn: Drawn) -> None:
    """A bar for each method in each cell."""
    methods = [OURS, *METHODS]
    for place, method in enumerate(methods):
        at = [column + (place - len(methods) / 2) * BAR for column in range(len(cells))]
        values = [drawn(cell, found[cell][method]) if method in found[cell] else () for cell in cells]
        axes.bar(at, [one[0] if one else 0.0 for one in values], BAR, label=method,
                 color="black" if method == OURS else f"C{place - 1}")  # fmt: skip
        for x, one in zip(at, values, strict=True):
            axes.vlines(x, one[0], one[-1], color="grey", linewidth=1) if len(one) > 1 else None
