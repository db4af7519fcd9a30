"""A run that is killed when it is to write a checkpoint."""

from parties.party import participant


class Killed(Exception):
    """Ends a run where the test says."""


def kill_at(patch, write: int) -> None:
    """The run ends when a party's checkpoint is about to be written for the so manieth time."""
    done: list[None] = []
    whole = participant.write_checkpoint

    def counted(*arguments):
        if len(done) == write - 1:
            raise Killed
        done.append(whole(*arguments))

    patch.setattr(participant, "write_checkpoint", counted)
