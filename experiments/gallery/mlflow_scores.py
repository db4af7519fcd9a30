"""Scores in MLflow: a `Callback` that logs each epoch's, and the settings once; it needs mlflow or mlflow-skinny.

    pip install mlflow && python -m experiments.gallery.mlflow_scores && mlflow ui

MLflow's own `MLFLOW_TRACKING_URI` says where to. Between organisations the label party alone has scores, so give the
callback there.

Expected output:

    3 epochs of loss, seconds, val_loss and 8 more in one run
"""

import sys

import optax

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Task
from parties import Callback, Party, SplitModel, VerticalData

try:
    import mlflow
except ImportError as error:
    sys.exit(f"mlflow: saw none here ({error}), wanted `pip install mlflow`")


class MLflow(Callback):
    """Logs the settings when training begins, and every score of an epoch, to the run that is active."""

    def on_fit_begin(self, training):
        model = training.model
        tasks = ", ".join(task.name for task in model.tasks)
        mlflow.log_params({"parties": ", ".join(model.parties), "tasks": tasks, "seed": model.seed})

    def on_epoch_end(self, training):
        mlflow.log_metrics({name: values[-1] for name, values in training.history.items()}, step=training.epoch)


table, adam = people(), optax.adam(0.01)
frames = {"alice": table[["id", "education", "buys"]], "bob": table[["id", "age", "job"]]}
train, valid = VerticalData.from_frames(frames, on="id", label_party="alice", labels=["buys"]).split(0.7, seed=0)
parties = {
    "alice": Party([Categorical("education")], MMoEBase((8,)), adam),
    "bob": Party([Bucketed("age", width=10), Categorical("job")], MMoEBase((8,)), adam),
}
fuse = MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=())
model = SplitModel(parties, "alice", fuse, adam, [Task.binary("buys")])
with mlflow.start_run():
    history = model.fit(train, validation=valid, epochs=3, batch_size=50, callbacks=[MLflow()], progress=False)
print(f"{model.epoch} epochs of loss, seconds, val_loss and {len(history) - 3} more in one run")
