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
