"""Pictures of a report: inline SVG by Matplotlib, with text as text, and colours that the page decides."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# What is drawn in these colours gets the page's own, so that light, dark and paper can differ.
INK, PAPER = "#010203", "#fdfcfb"
SERIES = ("#0a0101", "#0a0202", "#0a0303", "#0a0404", "#0a0505", "#0a0606")
COLORS = {INK: "var(--ink)", PAPER: "var(--paper)"} | {c: f"var(--s{i})" for i, c in enumerate(SERIES)}
STYLES = ("-", "--", ":", "-.")  # of lines that differ otherwise by colour alone
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmoe-jax",
    "text.parse_math": False,  # a name may hold dollars
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Picture(NamedTuple):
    """An SVG element, and what it shows."""

    title: str
    svg: str


def history(
    values: Mapping[str, Sequence[float | None]], labels: Mapping[str, str], title: str, prefix: str
) -> Picture:
    """Scores after each epoch: those of `labels`, name -> what the legend says."""

    def draw(axis: Any) -> None:
        for at, (name, label) in enumerate(labels.items()):
            line = [float("nan") if value is None else value for value in values[name]]
            axis.plot(range(1, len(line) + 1), line, marker="o", markersize=4, label=_label(label), **_look(at))
        axis.set_xlabel("epoch (one pass over all rows)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=9, frameon=False)

    return _picture(draw, title, prefix)


def roc(curves: Mapping[str, Mapping[str, Any]], title: str, prefix: str) -> Picture:
    """The ROC curve of each task."""

    lines = {task: (curve["false_positives"], curve["true_positives"]) for task, curve in curves.items()}
    axes = "share of the class 0 above the threshold", "share of the class 1 above it"
    return _beside_diagonal(lines, axes, "by chance", "", title, prefix)


def calibration(curves: Mapping[str, Mapping[str, Any]], title: str, prefix: str) -> Picture:
    """How often predictions come true, by bins."""

    lines = {task: (curve["predicted"], curve["observed"]) for task, curve in curves.items()}
    axes = "predicted probability (mean of a tenth of the scale)", "share that came true"
    return _beside_diagonal(lines, axes, "as predicted", "o", title, prefix)


def gates(weights: Mapping[str, Any], tasks: Sequence[str], title: str, prefix: str) -> Picture:
    """How much each task listens to each expert: means over rows, with standard deviations."""

    def draw(axis: Any) -> None:
        width = 0.8 / len(tasks)
        for t, task in enumerate(tasks):
            mean, std = weights["mean"][t], weights["std"][t]
            at = [e + (t - (len(tasks) - 1) / 2) * width for e in range(len(mean))]
            look = {"ecolor": INK, "capsize": 2, "color": SERIES[t % len(SERIES)]}
            axis.bar(at, mean, width * 0.9, yerr=std, label=_label(task), **look)
        axis.set_xticks(range(len(weights["mean"][0])), [f"expert {e + 1}" for e in range(len(weights["mean"][0]))])
        axis.set_ylabel("weight (sums to 1 per task)")
        axis.set_ylim(0, None)
        axis.legend(fontsize=9, frameon=False)

    return _picture(draw, title, prefix)


def _beside_diagonal(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axes: tuple[str, str],
    diagonal: str,
    marker: str,
    title: str,
    prefix: str,
) -> Picture:
    """A line per task in the unit square, beside its diagonal."""

    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label=diagonal)
        for at, (task, line) in enumerate(lines.items()):
            axis.plot(*line, marker=marker, markersize=4, label=_label(task), **_look(at))
        axis.set_xlabel(axes[0])
        axis.set_ylabel(axes[1])
        axis.legend(fontsize=9, frameon=False)

    return _picture(draw, title, prefix)


def _label(name: str) -> str:
    """The name as a legend shows it: Matplotlib leaves out one that begins with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


def _look(at: int) -> dict[str, Any]:
    return {"color": SERIES[at % len(SERIES)], "linestyle": STYLES[at % len(STYLES)], "linewidth": 1.8}


def _picture(draw: Any, title: str, prefix: str) -> Picture:
    """A picture of one axis.

    Args:
        prefix: of its ids, which no other picture of the page has.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The figure belongs to no backend of the process, and the user's own settings are out of it.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has the font of any name
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.add_subplot()
        axis.patch.set_alpha(0)
        figure.patch.set_alpha(0)
        draw(axis)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Picture(title, _inline(file.getvalue(), title, prefix))


def _inline(text: str, title: str, prefix: str) -> str:
    """A whole SVG file as an element of a page: named, with ids of its own and the page's colours."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(text)
    for child in [child for child in root if child.tag == f"{{{SVG}}}metadata"]:
        root.remove(child)
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name == f"{{{XLINK}}}href" and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            else:
                value = re.sub(r"url\(#", f"url(#{prefix}-", value)
                for color, ours in COLORS.items():
                    value = value.replace(color, ours)
                element.set(name, value)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    heading = ElementTree.Element(f"{{{SVG}}}title", {"id": f"{prefix}-title"})
    heading.text = title
    root.insert(0, heading)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title")
    return ElementTree.tostring(root, encoding="unicode")
