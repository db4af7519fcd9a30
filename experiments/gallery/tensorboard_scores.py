"""Scores in TensorBoard: a `Callback` that writes each epoch's to a folder, and needs tensorboardX.

    pip install tensorboardX && python -m experiments.gallery.tensorboard_scores && tensorboard --logdir runs/gallery

The history has one number per epoch and score, and those of validation rows under `val_`. Between organisations the
label party alone has scores, so give the callback there.

Expected output:

    3 epochs of loss, seconds, val_loss and 8 more in runs/gallery
"""

import sys

import optax

from experiments.gallery.people import people
from mmoe_jax import Bucketed, Categorical, MMoEBase, MMoEFuse, Task
from parties import Callback, Party, SplitModel, VerticalData

try:
    from tensorboardX import SummaryWriter
except ImportError as error:
    sys.exit(f"tensorboardX: saw none here ({error}), wanted `pip install tensorboardX`")


class TensorBoard(Callback):
    """Writes every score of an epoch to `folder`, under its name in the history."""

    def __init__(self, folder: str):
        self.writer = SummaryWriter(folder)

    def on_epoch_end(self, training):
        for name, values in training.history.items():
            self.writer.add_scalar(name, values[-1], training.epoch)

    def on_fit_end(self, training):
        self.writer.close()


table, adam, folder = people(), optax.adam(0.01), "runs/gallery"
frames = {"alice": table[["id", "education", "buys"]], "bob": table[["id", "age", "job"]]}
train, valid = VerticalData.from_frames(frames, on="id", label_party="alice", labels=["buys"]).split(0.7, seed=0)
parties = {
    "alice": Party([Categorical("education")], MMoEBase((8,)), adam),
    "bob": Party([Bucketed("age", width=10), Categorical("job")], MMoEBase((8,)), adam),
}
fuse = MMoEFuse(num_experts=2, expert_units_size=(8,), tower_units_size=())
model = SplitModel(parties, "alice", fuse, adam, [Task.binary("buys")])
history = model.fit(train, validation=valid, epochs=3, batch_size=50, callbacks=[TensorBoard(folder)], progress=False)
print(f"{model.epoch} epochs of loss, seconds, val_loss and {len(history) - 3} more in {folder}")
