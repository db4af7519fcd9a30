"""The experiments' pictures."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be set before this import
import numpy as np  # noqa: E402

NAMES = {"income_50k": "income above 50K", "marital_status": "never married"}
COLORS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8d6a9f")


def history(history: dict[str, list[float]], tasks: list[str], title: str, file: Path) -> None:
    """Loss and AUC by epoch, of training and validation, one colour per task."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    epochs = np.arange(1, len(history["loss"]) + 1)
    for axis, metric, unit in zip(axes, ("loss", "auc"), ("mean cross-entropy (nats)", "AUC"), strict=True):
        for task, color in zip(tasks, COLORS, strict=False):
            name = NAMES.get(task, task)
            axis.plot(epochs, history[f"{task}/{metric}"], "o-", color=color, label=f"{name}, training")
            axis.plot(epochs, history[f"val_{task}/{metric}"], "s--", color=color, label=f"{name}, validation")
        axis.set_xlabel("epoch", fontsize=13)
        axis.set_ylabel(unit, fontsize=13)
        axis.set_xticks(epochs)
        axis.tick_params(labelsize=12)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=12)
    figure.suptitle(title, fontsize=15)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def gates(weights: np.ndarray, tasks: list[str], title: str, file: Path) -> None:
    """Each task's mean gate weights; a whisker is one standard deviation over rows. `weights` are `[N, T, E]`."""
    _, _, experts = weights.shape
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    width = 0.8 / len(tasks)
    for t, (task, color) in enumerate(zip(tasks, COLORS, strict=False)):
        mean, spread = weights[:, t].mean(axis=0), weights[:, t].std(axis=0)
        place = np.arange(experts) + (t - (len(tasks) - 1) / 2) * width
        axis.bar(place, mean, width * 0.95, yerr=spread, capsize=5, color=color, label=NAMES.get(task, task))
        for x, value, whisker in zip(place, mean, spread, strict=True):
            axis.text(x, value + whisker + 0.02, f"{value:.2f}", ha="center", fontsize=12)
    axis.set_xticks(np.arange(experts), [f"expert {e + 1}" for e in range(experts)], fontsize=13)
    axis.set_ylabel("gate weight (sums to 1 per task)", fontsize=13)
    axis.set_xlabel("bar: mean over rows; whisker: one standard deviation", fontsize=12)
    axis.set_ylim(0, min(1.15, float(np.max(weights.mean(axis=0) + weights.std(axis=0))) + 0.2))
    axis.tick_params(axis="y", labelsize=12)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=12)
    figure.suptitle(title, fontsize=15)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def sweep(table, scores: list[str], title: str, file: Path) -> None:
    """Scores by epoch, one line per learning rate with a band of one standard deviation over seeds.

    Args:
        table: index (rate, epoch), columns (score, "mean" or "std").
        scores: the scores to draw, one plot each.
    """
    figure, axes = plt.subplots(1, len(scores), figsize=(11, 4.6), layout="constrained")
    rates = table.index.levels[0]
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(rates)))
    for axis, score in zip(np.atleast_1d(axes), scores, strict=True):
        for rate, color in zip(rates, colors, strict=True):
            lines = table.loc[rate][score]
            mean, spread = lines["mean"], lines["std"].fillna(0)
            axis.plot(lines.index, mean, "o-", color=color, label=f"learning rate {rate:g}")
            axis.fill_between(lines.index, mean - spread, mean + spread, color=color, alpha=0.25)
        task = score.removeprefix("val_").removesuffix("/auc")
        axis.set_title(NAMES.get(task, task), fontsize=14)
        axis.set_xlabel("epoch", fontsize=13)
        axis.set_ylabel("test AUC", fontsize=13)
        axis.set_xticks(lines.index)
        axis.tick_params(labelsize=12)
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].legend(fontsize=12)
    figure.suptitle(title, fontsize=15)
    figure.savefig(file, dpi=110)
    plt.close(figure)


# What an attack reads, in plain words; {reader} reads the messages that the other party sends.
ATTACKS = {
    "own_columns": "control: {reader}'s columns alone",
    "norm": "the length of each message",
    "cosine": "likeness to one known message",
    "nearest": "the most alike known messages",
    "ica": "independent components of messages",
    "head": "regression on the last epoch's messages",
    "head_epochs": "regression on all epochs' messages",
    "head_epochs_2000": "regression on all epochs' messages",
    "completion": "regression on what {reader} sent",
    "labels": "labels that were sent to {reader}",
}
CONTROL_COLOR = "#8a8a8a"


def leaks(table, tasks: list[str], file: Path, bound: dict[str, float] | None = None) -> None:
    """What an audit found: on the left the label party's labels, by attack and task; on the right the other's columns.

    Args:
        table: the lines of `SplitModel.audit` of two parties. Those with the prior "own" are drawn; of labels that a
            bound holds for, those with the prior "all", which it holds for.
        tasks: the label party's tasks.
        bound: task -> the leak that its protection allows, drawn as a line.
    """
    of_labels, attacks = table.target.map(lambda target: target in tasks), table.attack != "planted"
    labels = table[of_labels & attacks & (table.prior == ("all" if bound else "own"))]
    columns = table[~of_labels & attacks & (table.prior == "own")]
    giver, reader = labels.party.iloc[0], labels.to.iloc[0]
    rows = max(labels.attack.nunique(), columns.target.nunique())
    figure, axes = plt.subplots(1, 2, figsize=(17, 2.2 + 0.62 * rows), layout="constrained")
    _leaks_of_labels(axes[0], labels, tasks, bound or {})
    axes[0].set_title(f"What {reader} can read of {giver}'s labels", fontsize=16)
    beyond = "everyone's columns and the row's other labels" if bound else f"{reader}'s own columns"
    axes[0].set_xlabel(f"leak: 0 = nothing beyond {beyond}\n1 = every label", fontsize=13)
    _leaks_of_columns(axes[1], columns)
    axes[1].set_title(f"What {giver} can read of {reader}'s columns", fontsize=16)
    axes[1].set_xlabel(f"leak: 0 = nothing beyond {giver}'s own columns and labels\n1 = every row", fontsize=13)
    for axis in axes:
        axis.invert_yaxis()
        axis.axvline(0, color="black", linewidth=1)
        axis.set_xlim(min(-0.08, axis.get_xlim()[0]), 1.06)
        axis.set_xticks(np.linspace(0, 1, 6))
        axis.tick_params(axis="x", labelsize=12)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _leaks_of_labels(axis, labels, tasks: list[str], bound: dict[str, float]) -> None:
    attacks = list(dict.fromkeys(labels.attack))
    reader, height = labels.to.iloc[0], 0.8 / len(tasks)
    for t, (task, color) in enumerate(zip(tasks, COLORS, strict=False)):
        lines = labels[labels.target == task].set_index("attack").loc[attacks]
        colors = [CONTROL_COLOR if attack == "own_columns" else color for attack in attacks]
        _leak_bars(axis, np.arange(len(attacks)) + (t - (len(tasks) - 1) / 2) * height, lines, colors, 0.92 * height)
        axis.barh([0], [np.nan], color=color, label=NAMES.get(task, task))
        if task in bound:
            axis.axvline(bound[task], color=color, linestyle="--", label=f"bound, {NAMES.get(task, task)}")
    axis.barh([0], [np.nan], color=CONTROL_COLOR, label="control: must be 0, else void")
    axis.legend(fontsize=12, loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=3, frameon=False)
    hints = labels.drop_duplicates("attack").set_index("attack").hints
    known = {attack: f"{hints[attack]:,} labels known" if hints[attack] else "no label known" for attack in attacks}
    known |= {"cosine": "1 label known"} if "cosine" in known else {}
    words = [f"{ATTACKS.get(attack, attack).format(reader=reader)}\n{known[attack]}" for attack in attacks]
    axis.set_yticks(np.arange(len(attacks)), words, fontsize=12)


def _leaks_of_columns(axis, columns) -> None:
    asked = list(dict.fromkeys(columns.target))
    drawn = {"lookup": COLORS[2], "own_columns": CONTROL_COLOR}
    for (attack, color), shift in zip(drawn.items(), (-0.2, 0.2), strict=True):
        lines = columns[columns.attack == attack].set_index("target").loc[asked]
        _leak_bars(axis, np.arange(len(asked)) + shift, lines, [color] * len(asked), 0.37)
        known = f"regression on the last epoch's messages, {lines.hints.max():,} rows known"
        axis.barh([0], [np.nan], color=color, label=known if attack == "lookup" else "control: must be 0, else void")
    axis.legend(fontsize=12, loc="upper center", bbox_to_anchor=(0.4, -0.13), frameon=False)
    words = [target.replace(">=", " at least ").replace("=", " is ").replace("_", " ") for target in asked]
    axis.set_yticks(np.arange(len(asked)), words, fontsize=12)


def _leak_bars(axis, place: np.ndarray, lines, colors: list[str], height: float) -> None:
    """One bar per line, with its error as a whisker and as text; a line that is void is hatched and says so."""
    for y, color, line in zip(place, colors, lines.itertuples(), strict=True):
        void = not line.valid or not np.isfinite(line.leak)
        leak, error = np.nan_to_num([line.leak, line.error])
        look = {"color": "white", "edgecolor": color, "hatch": "///"} if void else {"color": color}
        axis.barh(y, leak, height, xerr=error, capsize=2, **look)
        text = "void" if void else f"{leak:.2f} ± {error:.2f}".replace("-0.00", "0.00")
        axis.text(1.09, y, text, va="center", fontsize=11, color=color)


PLACES = (  # of a name beside its point, in points, and how it is aligned
    {"xytext": (0, 9), "ha": "center"},
    {"xytext": (0, -19), "ha": "center"},
    {"xytext": (9, -4), "ha": "left"},
    {"xytext": (0, -33), "ha": "center"},
    {"xytext": (-9, -4), "ha": "right"},
)


def _name_points(axis, names: list[tuple[str, tuple[float, float]]]) -> None:
    """Write each name at the first place beside its point where it covers no other name and no point."""
    renderer = axis.figure.canvas.get_renderer()
    marks = axis.transData.transform([at for _, at in names])
    taken: list = []
    for name, at in names:
        for place in PLACES:
            text = axis.annotate(name, at, textcoords="offset points", fontsize=12, **place)
            box = text.get_window_extent(renderer)
            inside = axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1
            if place is PLACES[-1] or (inside and not box.count_overlaps(taken) and not box.count_contains(marks)):
                taken.append(box)
                break
            text.remove()


def tradeoff(lines: list[dict], tasks: list[str], file: Path) -> None:
    """Each defence by what it hides and what it costs: leak of the worst attack against AUC, one plot per task.

    Args:
        lines: one per defence and task: `defence`, `task`, `auc`, `auc_std`; at "all, 2000 labels" the line of the
            worst attack with the prior "all"; and `bound`, the leak that is proved to be the most, or None.
    """
    figure, axes = plt.subplots(1, len(tasks), figsize=(13, 5.2), layout="constrained", squeeze=False)
    named = []
    for axis, task, color in zip(axes[0], tasks, COLORS, strict=False):
        of_task = [line for line in lines if line["task"] == task]
        curves: dict[str, list[tuple[float, float]]] = {}  # of each defence that proves, one point per epsilon
        for line in of_task:
            if line["bound"] is not None:
                curves.setdefault(line["defence"].rpartition(" ")[0], []).append((line["bound"], line["auc"]))
        for curve in curves.values():
            points = zip(*sorted(curve), strict=True)
            (drawn,) = axis.plot(*points, "k--", marker="|", markersize=16)
        if curves:
            axis.legend([drawn], ["proved: no attack leaks more"], fontsize=12, loc="lower right")
        names: list[tuple[str, tuple[float, float]]] = []
        for line in of_task:
            worst = line["all, 2000 labels"]
            void = not worst["valid"] or worst["leak"] is None
            leak, name = (0, f"{line['defence']} (void)") if void else (worst["leak"], line["defence"])
            whiskers = {"xerr": worst["error"] or 0, "yerr": line["auc_std"]}
            face = "white" if void else color
            axis.errorbar(leak, line["auc"], **whiskers, fmt="o", capsize=3, color=color, mfc=face, markersize=9)
            names.append((name, (leak, line["auc"])))
        axis.set_title(NAMES.get(task, task), fontsize=15)
        axis.set_xlabel("leak to bob: 0 = nothing beyond all columns, 1 = every label", fontsize=12)
        axis.set_xlim(-0.08, 1.12)
        axis.margins(y=0.2)
        axis.tick_params(labelsize=12)
        axis.grid(alpha=0.3)
        named.append((axis, names))
    axes[0, 0].set_ylabel("AUC on the test rows (higher is better)", fontsize=13)
    title = "Defences: the upper left is best (leak of the worst attack, which knows 2,000 labels)"
    figure.suptitle(title, fontsize=15)
    figure.draw_without_rendering()  # lays out the axes, which then stay
    figure.set_layout_engine("none")
    for axis, names in named:
        _name_points(axis, names)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def wide_area(seconds: list[dict], scores: list[dict], file: Path) -> None:
    """On the left an epoch's seconds by rounds in flight, a line per round trip; on the right the AUC beside that of 1.

    Args:
        seconds: lines with `round_trip` (milliseconds), `in_flight`, `seconds`.
        scores: lines with `in_flight`, `seed`, `task`, `auc`; none, and there is nothing on the right.
    """
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    depths = sorted({line["in_flight"] for line in seconds})
    trips = sorted({line["round_trip"] for line in seconds})
    for round_trip, color in zip(trips, COLORS, strict=False):
        points = sorted((line["in_flight"], line["seconds"]) for line in seconds if line["round_trip"] == round_trip)
        axes[0].loglog(*zip(*points, strict=True), "o-", color=color, label=f"round trip {round_trip:g} ms")
        place = {"xytext": (0, -17 if round_trip == trips[0] else 7), "textcoords": "offset points", "ha": "center"}
        for depth, value in points:
            axes[0].annotate(f"{value:.2g}", (depth, value), fontsize=11, color=color, **place)
    axes[0].set_ylabel("seconds per epoch", fontsize=13)
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("")
    axes[0].margins(y=0.15)
    for t, (task, color) in enumerate(zip(dict.fromkeys(line["task"] for line in scores), COLORS, strict=False)):
        of = {d: np.array([s["auc"] for s in scores if (s["task"], s["in_flight"]) == (task, d)]) for d in depths}
        beside = [of[d].mean() - of[depths[0]].mean() for d in depths]
        spread = [of[d].std() for d in depths]
        at = np.array(depths) * (1 + 0.05 * t)
        axes[1].errorbar(at, beside, spread, fmt="o-", capsize=4, color=color, label=NAMES.get(task, task))
    axes[1].set_xscale("log")
    axes[1].axhline(0, color="black", linewidth=1)
    axes[1].set_ylabel(f"test AUC less that of {depths[0]} in flight\n(whisker: deviation over seeds)", fontsize=13)
    axes[1].set_visible(bool(scores))
    for axis in axes:
        axis.set_xlabel("rounds in flight", fontsize=13)
        axis.set_xticks(depths, [str(depth) for depth in depths], minor=False)
        axis.set_xticks([], minor=True)
        axis.tick_params(labelsize=12)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=12)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def synthetic(losses: dict[float, dict[str, np.ndarray]], file: Path) -> None:
    """How the runs' test losses lie: a histogram per model, side by side for each cosine of the two tasks' weights."""
    figure, axes = plt.subplots(1, len(losses), figsize=(15, 4.8), sharey=True, layout="constrained", squeeze=False)
    every = np.concatenate([values for of in losses.values() for values in of.values()])
    bins = np.geomspace(every.min(), every.max(), 30)
    for axis, (alike, of) in zip(axes[0], losses.items(), strict=True):
        for (name, values), color in zip(of.items(), COLORS, strict=False):
            axis.hist(
                values, bins, histtype="stepfilled", alpha=0.35, color=color, label=f"{name}: {values.mean():.3f}"
            )
            axis.hist(values, bins, histtype="step", linewidth=2, color=color)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(f"cosine of the tasks {alike:g}", fontsize=14)
        axis.set_xlabel("test loss of the first task", fontsize=13)
        axis.legend(title="mean", fontsize=12, title_fontsize=12)
        axis.tick_params(labelsize=12)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("runs", fontsize=13)
    figure.savefig(file, dpi=110)
    plt.close(figure)
