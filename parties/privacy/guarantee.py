"""What a protection proves, for whom and of what, and the epsilon that it spends."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from parties.errors import ModelError


class RandomisedResponse(NamedTuple):
    """One release of a label of K classes, randomised with epsilon."""

    epsilon: float
    classes: int

    def dp_event(self) -> Any:
        """As `dp_accounting` names it: a label is drawn anew with probability K / (e^epsilon + K - 1)."""
        from dp_accounting import dp_event

        anew = self.classes / (math.exp(self.epsilon) + self.classes - 1)
        return dp_event.RandomizedResponseDpEvent(noise_parameter=anew, num_buckets=self.classes)


class Guarantee(NamedTuple):
    """What a protection says of itself.

    Attributes:
        unit: "label", one label of a row, or "row", all labels of a row together.
        adjacency: the data sets that nobody can tell apart.
        event: task -> what was released of its labels; with unit "row" the same for all; {} where nothing is proved.
        proved: whether differential privacy is proved. Else nothing but measurements speak for the protection.
        covers: what is protected from whom.
    """

    unit: str
    adjacency: str
    event: Mapping[str, RandomisedResponse]
    proved: bool
    covers: str


class Spent(NamedTuple):
    """The epsilon of a label of each task, and of all labels of a row."""

    tasks: dict[str, float]
    row: float


def spent(guarantee: Guarantee, delta: float = 0.0, releases: int = 1) -> Spent | None:
    """The epsilon that a guarantee spends, by privacy loss distributions (`dp_accounting`); None if nothing is proved.

    Epochs, rounds and batch sizes do not enter: labels are randomised once, and whoever receives a batch knows which
    rows are in it, so that no sampling amplifies.

    Args:
        delta: the probability with which the bound may fail; 0 for pure differential privacy.
        releases: how many models, each with a key of its own, were trained on the same rows.

    Raises:
        ModelError: an argument out of range; or `dp-accounting` is not installed.
    """
    if type(releases) is not int or releases < 1:
        raise ModelError(field="releases", seen=repr(releases), wanted="an int of at least 1")
    if not isinstance(delta, int | float) or not 0 <= delta < 1:
        raise ModelError(field="delta", seen=repr(delta), wanted="a probability below 1")
    if not guarantee.proved:
        return None
    accounting = _accounting()

    def epsilon(*events: RandomisedResponse) -> float:
        accountant = accounting.pld.PLDAccountant(accounting.NeighboringRelation.REPLACE_ONE)
        for event in events * releases:  # one by one: version 0.6 takes a count of randomised responses for 1
            accountant.compose(event.dp_event())
        return float(accountant.get_epsilon(delta))

    tasks = {task: epsilon(event) for task, event in guarantee.event.items()}
    together = guarantee.unit == "row"
    return Spent(tasks, max(tasks.values()) if together else epsilon(*guarantee.event.values()))


def gaussian_epsilon(norm: float, deviation: float, delta: float = 1e-5) -> float:
    """The epsilon by which normal noise of that deviation tells two runs apart whose messages differ by that norm.

    Of a norm that bounds every change it would be differential privacy (Dong et al., "Gaussian differential privacy",
    2022); of a `Change` it is what that one label spent, a lower bound of what the run spends.

    Raises:
        ModelError: `dp-accounting` is not installed.
    """
    if norm == 0:
        return 0.0
    accounting = _accounting()
    accountant = accounting.pld.PLDAccountant(accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)  # two means
    accountant.compose(accounting.dp_event.GaussianDpEvent(deviation / norm))
    return float(accountant.get_epsilon(delta))


def _accounting() -> Any:
    """The package `dp_accounting`; raises ModelError where it is not installed."""
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError as error:
        raise ModelError(field="dp_accounting", seen=str(error), wanted="pip install mmoe-jax[privacy]") from error
    return dp_accounting
