"""The pure functions of an audit: leaks, priors, attacks, controls and certificates, on planted data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from experiments.leaks import isotropic, max_norm
from parties.errors import ModelError
from parties.privacy.attacks import ON_LABELS, Attack, Hints, View, head, ica, labels, nearest
from parties.privacy.audit import CONTROL, PLANTED, Targets, audit
from parties.privacy.certificate import coins, epsilon_lower_bound
from parties.privacy.leak import above_conditional_median, leak, prior, weighted_auc
from parties.privacy.logistic import cross_fitted, fit_logistic, linear

N = 2000
KEY = jax.random.key(0)
seeds = st.integers(0, 2**32 - 1)
of_row, components = jax.jit(leak), jax.jit(ica().score)


def drawn(seed: int, rows: int = N):
    """Columns of three kinds, the chance of a label by a function of them, and labels drawn by it."""
    rng = np.random.default_rng(seed)
    columns = np.column_stack([rng.normal(size=rows), rng.integers(0, 3, rows), rng.random(rows) < 0.2])
    chance = 1 / (1 + np.exp(-(columns @ rng.normal(size=3) + rng.normal() * 0.5)))
    return rng, columns.astype(np.float32), chance, (rng.random(rows) < chance).astype(np.float32)


# the leak


@given(seeds)
def test_a_function_of_the_columns_leaks_nothing(seed):
    rng, columns, chance, label = drawn(seed)
    for score in (chance, columns @ rng.normal(size=3), np.sin(columns @ rng.normal(size=3) * 5), columns[:, 1]):
        found = of_row(score, label, chance)
        assert abs(found.leak) < 4 * found.error


@given(seeds)
def test_the_label_leaks_all_and_its_opposite_minus_all(seed):
    _, _, chance, label = drawn(seed)
    for sign in (1, -1):
        assert of_row(sign * label, label, chance).leak == pytest.approx(sign, abs=1e-5)
    assert of_row(np.zeros(N), label, chance).leak == pytest.approx(0, abs=1e-5)


@given(seeds)
def test_coins_leak_what_their_auc_says(seed):
    rng = np.random.default_rng(seed)
    coin = rng.integers(0, 2, N).astype(float)
    score = coin + rng.normal(size=N)
    found = of_row(score, coin, np.full(N, 0.5))
    assert found.leak == pytest.approx(2 * roc_auc_score(coin, score) - 1, abs=1e-5)
    assert found.rows == pytest.approx(N / 2)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
@given(seed=seeds)
def test_randomised_labels_leak_the_hyperbolic_tangent(epsilon, seed):
    """Where the prior has the columns by which the label was drawn, whatever these are."""
    rng, _, chance, label = drawn(seed)
    kept = rng.random(N) < 1 / (1 + np.exp(-epsilon))
    found = of_row(np.where(kept, label, 1 - label), label, chance)
    assert abs(found.leak - np.tanh(epsilon / 2)) < 4 * found.error


@given(seeds, st.booleans())
def test_the_weighted_auc_is_scikit_learns(seed, ties):
    rng = np.random.default_rng(seed)
    score, label = rng.normal(size=N), rng.integers(0, 2, N).astype(float)
    score = np.round(score) if ties else score.astype(np.float32)
    weights = rng.random(N) * (rng.random(N) < 0.7)
    area, _, total = jax.jit(weighted_auc)(score, label, weights)
    assert area == pytest.approx(roc_auc_score(label, score, sample_weight=weights), abs=1e-5)
    assert total == pytest.approx(weights.sum(), rel=1e-5)


def test_the_error_is_the_deviation_over_samples():
    areas, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        label, weights = rng.integers(0, 2, 400).astype(float), rng.random(400)
        area, error, _ = jax.jit(weighted_auc)(label + 1.5 * rng.normal(size=400), label, weights)
        areas.append(float(area))
        errors.append(float(error))
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.15)


def test_rows_that_are_known_or_missing_are_left_out():
    rng, _, chance, label = drawn(1)
    score, known = rng.normal(size=N), rng.random(N) < 0.3
    missing = np.where(known, np.nan, label)
    rest = of_row(score[~known], label[~known], chance[~known])
    for found in (
        of_row(score, label, chance, known),
        of_row(score, missing, chance),
        of_row(np.where(known, np.nan, score), label, chance),
    ):
        np.testing.assert_allclose(np.array(found), np.array(rest), rtol=1e-5, atol=1e-6)


def test_one_class_has_no_leak():
    assert np.isnan(of_row(np.arange(5.0), np.ones(5), np.full(5, 0.5)).leak)


# priors


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_the_regression_is_scikit_learns(ridge):
    _, columns, _, label = drawn(2)
    weights = np.random.default_rng(0).integers(0, 2, N).astype(np.float32)
    ours = fit_logistic(columns, label[:, None], weights[:, None], ridge)[:, 0]
    theirs = LogisticRegression(C=1 / ridge, tol=1e-8).fit(columns, label, sample_weight=weights)
    np.testing.assert_allclose(ours, [*theirs.coef_[0], *theirs.intercept_], atol=5e-3)


@given(seeds)
def test_columns_that_tell_nothing_leak_nothing(seed):
    """Though the rate of a label differs between samples, and a fitted prior follows it."""
    rng = np.random.default_rng(seed)
    label = (rng.random((N, 1)) < 0.4).astype(np.float32)
    columns, score = rng.normal(size=(2, N, 3)).astype(np.float32)
    chance, fitted = np.asarray(prior(columns, label)), np.asarray(cross_fitted(score, label))
    found = of_row(fitted[0, :, 0], label[:, 0], chance[0, :, 0])
    assert abs(found.leak) < 4 * found.error


def test_a_prior_of_no_columns_is_the_rate():
    label = np.array([[0], [1], [1], [np.nan]], np.float32)
    assert np.asarray(prior(np.zeros((4, 0), np.float32), label)) == pytest.approx(2 / 3)


@given(seeds)
def test_a_fitted_prior_leaves_nothing_to_its_columns(seed):
    rng, columns, _, label = drawn(seed)
    chance = np.asarray(prior(columns, label[:, None]))[0, :, 0]
    for score in (columns[:, 0], columns @ rng.normal(size=3)):
        found = of_row(score, label, chance)
        assert abs(found.leak) < max(0.02, 4 * found.error)


def test_half_of_the_rows_lie_above_their_conditional_median():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(N, 2)).astype(np.float32)
    values = (np.exp(columns[:, 0]) * (1 + rng.random(N))).astype(np.float32)
    values[:5] = np.nan
    above = np.asarray(above_conditional_median(columns, values))
    assert np.isnan(above[:5]).all() and np.nanmean(above) == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(above[5:], columns[5:, 0])[0, 1]) < 0.1 < np.corrcoef(values[5:], columns[5:, 0])[0, 1]


# attacks


def planted(tasks: int, seed: int = 0, rows: int = N, noise: float = 0.0):
    """Cotangents C = R W of residuals R of labels that depend on nothing, in 20 numbers per row."""
    rng = np.random.default_rng(seed)
    label = (rng.random((rows, tasks)) < rng.uniform(0.2, 0.8, tasks)).astype(np.float32)
    residuals = label - np.clip(rng.beta(2, 2, (rows, tasks)), 0.01, 0.99)
    cotangents = residuals @ rng.normal(size=(tasks, 20)) + noise * rng.normal(size=(rows, 20))
    view = View(jnp.zeros((1, rows, 20)), jnp.asarray(cotangents, jnp.float32)[None], jnp.zeros((rows, 0)))
    return label, residuals, view


def hinted(label, rows=40) -> Hints:
    return Hints(jnp.arange(rows), jnp.asarray(label[:rows]))


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
@given(seed=seeds)
def test_independent_components_find_the_tasks(tasks, seed):
    label, residuals, view = planted(tasks, seed)
    found = np.asarray(components(KEY, view, hinted(label)))
    correlations = np.abs(np.corrcoef(found.T, residuals.T)[:tasks, tasks:])
    assert sorted(correlations.argmax(axis=1)) == list(range(tasks))
    assert correlations.max(axis=1).min() > 0.95


@pytest.mark.parametrize("attack", [nearest(), head()], ids=lambda attack: attack.name)
@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_forty_labels_read_the_rest(attack, tasks):
    label, _, view = planted(tasks)
    found = np.asarray(attack.score(KEY, view, hinted(label)))
    least = 0.95 if attack.name == "head" else 0.6  # residuals of the other tasks turn the direction that nearest reads
    for task in range(tasks):
        assert of_row(found[:, task], label[:, task], np.full(N, label[:, task].mean())).leak > least


@pytest.mark.parametrize("attack", ON_LABELS, ids=lambda attack: attack.name)
def test_an_attack_compiles_and_reads_nothing_where_nothing_is(attack):
    rng = np.random.default_rng(0)
    label = (rng.random((N, 2)) < 0.4).astype(np.float32)
    cotangents = rng.normal(size=(3, N, 20)).astype(np.float32)
    cotangents[0, 5] = cotangents[2, 9] = np.nan
    view = View(jnp.asarray(rng.normal(size=(3, N, 20))), jnp.asarray(cotangents), jnp.zeros((N, 0)))
    found = np.asarray(jax.jit(attack.score)(KEY, view, hinted(label, rows=min(attack.hints or 40, N // 2))))
    assert len(found) == N and np.isfinite(found).sum() >= found.size - 3
    for score in found.T:
        for task in (0, 1):
            there = of_row(score, label[:, task], np.full(N, 0.4), np.arange(N) < N // 2)
            assert abs(there.leak) < 5 * there.error


def test_received_labels_are_read_with_the_columns():
    rng, columns, _, label = drawn(4)
    noisy = np.where(rng.random(N) < 0.73, label, 1 - label)
    view = View(jnp.zeros((1, N, 1)), jnp.zeros((1, N, 1)), jnp.asarray(columns), jnp.asarray(noisy)[:, None])
    found = labels().score(KEY, view, hinted(label[:, None], rows=400))
    flat = np.full(N, label.mean())
    assert of_row(found[:, 0], label, flat).leak > of_row(noisy, label, flat).leak + 0.05


# the table


def table(label, view, columns, attacks=ON_LABELS, real=None, names=None, hints=40):
    targets = Targets(
        names or tuple(f"task {t}" for t in range(label.shape[1])), label, real or (False,) * label.shape[1]
    )
    lines = audit(KEY, ("alice", "bob"), view, targets, {"own": [columns] * label.shape[1]}, hints, attacks)
    return {(line.attack, line.target): line for line in lines}


def test_a_table_has_every_attack_and_its_controls():
    label, _, view = planted(2, noise=0.01)
    columns = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)
    lines = table(label, view, columns)
    assert {attack for attack, _ in lines} == {CONTROL, PLANTED, *(attack.name for attack in ON_LABELS)}
    for target in ("task 0", "task 1"):
        assert lines["head", target].leak > 0.95 and lines["head", target].hints == 40
        assert lines["head_epochs_2000", target].hints == N // 2
        assert abs(lines[CONTROL, target].leak) < 0.1 and lines[PLANTED, target].leak > 0.95
        assert lines["norm", target].auc >= 0.5 and lines["head", target].valid


@pytest.mark.parametrize(("change", "least"), [(max_norm, 0.6), (isotropic, 0.3)])
def test_controls_that_are_known_to_be_broken_are_broken(change, least):
    """Six epochs of the same residuals, each with noise of its own."""
    label, _, view = planted(2)
    epochs = jnp.stack([change(jax.random.key(epoch), view.cotangents[0]) for epoch in range(6)])
    lines = table(label, view._replace(cotangents=epochs), np.zeros((N, 1), np.float32))
    for target in ("task 0", "task 1"):
        attacks = [line for (attack, of), line in lines.items() if of == target and attack not in (CONTROL, PLANTED)]
        worst = max(line.leak for line in attacks)
        assert worst > least and lines[CONTROL, target].leak == pytest.approx(0, abs=0.1)


def test_a_prior_that_is_wrong_makes_the_table_void():
    """The label is a function of the columns, and the regression cannot say it with chances of 0 and 1."""
    label, _, view = planted(1)
    lines = table(label, view, np.column_stack([label, np.zeros((N, 1))]).astype(np.float32))
    assert abs(lines[CONTROL, "task 0"].leak) > 0.5 and not any(line.valid for line in lines.values())


def test_a_table_of_one_row_is_refused():
    label, _, view = planted(1, rows=3)
    label[1:] = np.nan
    with pytest.raises(ModelError, match="party 'alice': audit: saw 1 rows with a target, of 3, wanted at least 2"):
        table(label, view, np.zeros((3, 1), np.float32))


def test_a_users_own_attack_has_its_lines():
    label, _, view = planted(1)
    first = Attack("first", lambda key, view, hints: view.cotangents[-1][:, :1], hints=0)
    line = table(label, view, np.zeros((N, 1), np.float32), (first,))["first", "task 0"]
    assert abs(line.leak) > 0.9 and line.hints == 0


@pytest.mark.thorough
def test_classes_share_a_line_and_numbers_are_read_above_their_median():
    rng = np.random.default_rng(0)
    classes = np.eye(3, dtype=np.float32)[rng.integers(0, 3, N)]
    numbers = rng.normal(size=(N, 1)).astype(np.float32)
    label = np.hstack([classes, numbers])
    cotangents = np.hstack([classes - 1 / 3, numbers]) @ rng.normal(size=(4, 20))
    view = planted(1)[2]._replace(cotangents=jnp.asarray(cotangents, jnp.float32)[None])
    lines = table(label, view, np.zeros((N, 1), np.float32), real=(False,) * 3 + (True,), names=("c", "c", "c", "x"))
    assert lines["head_epochs_2000", "c"].leak > 0.95 and lines["head_epochs_2000", "x"].leak > 0.95
    assert lines["completion", "x"].leak == pytest.approx(0, abs=0.1)


# certificates


def test_all_guesses_right_certify_a_large_epsilon_and_half_none():
    assert epsilon_lower_bound(1000, 1000) == pytest.approx(np.log(0.05 ** (1 / 1000) / (1 - 0.05 ** (1 / 1000))))
    assert epsilon_lower_bound(500, 1000) == epsilon_lower_bound(0, 1000) == 0


@given(st.integers(1, 3000), st.data())
def test_the_bound_is_the_binomials(guesses, data):
    binom = pytest.importorskip("scipy.stats").binom
    correct = data.draw(st.integers(0, guesses))
    bound = epsilon_lower_bound(correct, guesses)

    def chance(epsilon):
        return binom.sf(correct - 1, guesses, 1 / (1 + np.exp(-epsilon)))

    assert bound == 0 or chance(bound) == pytest.approx(0.05, abs=1e-6)
    assert bound > 0 or chance(1e-6) > 0.05


@pytest.mark.parametrize("epsilon", [pytest.param(0.5, marks=pytest.mark.thorough), 1.0, 2.0])
def test_the_bound_is_not_above_the_truth_in_nineteen_of_twenty_runs(epsilon):
    right = np.random.default_rng(0).binomial(500, 1 / (1 + np.exp(-epsilon)), 400)
    above = np.mean([epsilon_lower_bound(int(correct), 500) > epsilon for correct in right])
    assert above < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (1, 5, 1.0)])
def test_a_bound_of_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"correct of .* guesses"):
        epsilon_lower_bound(*arguments)


def test_coins_are_fair_and_repeatable():
    drawn_once = coins(1000, 2, seed=3)
    assert drawn_once.shape == (1000, 2) and set(np.unique(drawn_once)) == {0, 1}
    assert abs(drawn_once.mean() - 0.5) < 0.05 and (drawn_once == coins(1000, 2, seed=3)).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_that_of_jax_privacy(seed):
    """Whose guesses are the canaries that score above a threshold, each guessed to be in."""
    auditing = pytest.importorskip("jax_privacy.auditing", reason="needs Python 3.11")
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(size=(2, 400)) + [[2], [0]]
    theirs = auditing.CanaryScoreAuditor(inside, outside).epsilon_one_run(
        0.05, 1e-12, threshold_strategy=auditing.Explicit(1.0)
    )
    ours = epsilon_lower_bound(int((inside >= 1).sum()), int((inside >= 1).sum() + (outside >= 1).sum()))
    assert 0.5 < ours == pytest.approx(theirs, abs=1e-4)


def test_cross_fitting_covers_every_row():
    _, columns, chance, label = drawn(5)
    logits = np.asarray(cross_fitted(columns, label[:, None]))[0, :, 0]
    assert np.corrcoef(logits, np.log(chance / (1 - chance)))[0, 1] > 0.95
    whole = np.asarray(linear(columns, fit_logistic(columns, label[:, None], np.ones((N, 1)))))[:, 0]
    assert np.abs(logits - whole).max() < 0.5
