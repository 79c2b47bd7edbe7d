"""Objectives and metrics as XGBoost, LightGBM and CatBoost call them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn import datasets, metrics
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import lossfuncs
from lossfuncs.frameworks.boosting import (
    catboost_metric,
    catboost_objective,
    lightgbm_metric,
    lightgbm_objective,
    xgboost_metric,
    xgboost_objective,
)
from lossfuncs.table import LOSSES

CANCER = datasets.load_breast_cancer(return_X_y=True)
DIGITS = datasets.load_digits(return_X_y=True)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2.0, len(CANCER[1]))
TREE = {"max_depth": 3, "eta": 0.3, "nthread": 2}
LEAVES = {"num_leaves": 7, "verbosity": -1, "num_threads": 2, "boost_from_average": False}

BOOSTED = [entry for entry in LOSSES if entry.name not in ("dice", "tversky", "circle", "ctc")]
OPTIONS = {"categorical_generalized_cross_entropy": {"q": 0.6}}


def sample(entry: Any) -> tuple[Any, Any]:
    """Labels and scores, float64, for a loss."""
    rng = np.random.default_rng(1)
    several = entry.predictions == "distribution" or entry.name in ("cosine_similarity", "categorical_hinge")
    scores = rng.normal(size=(40, 4) if several else 40)
    labels: Any = {"binary": rng.integers(0, 2, 40), "sign": rng.integers(0, 2, 40), "count": rng.poisson(2.0, 40)}.get(
        entry.targets, rng.normal(size=scores.shape) if entry.targets == "real" else rng.uniform(0.5, 3.0, 40)
    )
    return (rng.integers(0, 4, 40) if entry.targets in ("one-hot", "index") else labels).astype(np.float64), scores


def value(entry: Any, labels: Any, scores: Any) -> Any:
    """The loss of each sample, straight from the library's functions."""
    options = dict(OPTIONS.get(entry.name, {}))
    p = scores
    if "from_logits" in entry.function.defaults:
        options["from_logits"] = True
    elif entry.predictions == "positive":
        p = np.exp(p)
    elif entry.predictions == "distribution":
        p = np.exp(p) / np.sum(np.exp(p), axis=-1, keepdims=True)
    t = np.eye(4)[labels.astype(int)] if entry.targets == "one-hot" else labels
    if p.ndim == 1:
        t, p = t[:, None], p[:, None]
    return entry.function(t, p, **options)


@pytest.mark.parametrize("entry", BOOSTED, ids=lambda entry: entry.name)
def test_the_gradient_is_that_of_the_loss_by_the_scores(entry: Any) -> None:
    labels, scores = sample(entry)
    objective = xgboost_objective(entry.name, **OPTIONS.get(entry.name, {}))
    gradient, hessian = objective(labels, scores)
    assert gradient.shape == hessian.shape == scores.shape
    assert (hessian > 0).all()
    flat = scores.reshape(len(scores), -1)
    for column in range(flat.shape[1]):
        step = np.zeros_like(flat)
        step[:, column] = 1e-5
        up, down = (value(entry, labels, (flat + sign * step).reshape(scores.shape)) for sign in (1, -1))
        np.testing.assert_allclose(gradient.reshape(flat.shape)[:, column], (up - down) / 2e-5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["mean_squared_error", "log_cosh", "poisson", "binary_crossentropy", "mean_squared_logarithmic_error"])
def test_the_second_derivative_is_that_of_the_gradient(name: str) -> None:
    (entry,) = (entry for entry in BOOSTED if entry.name == name)
    labels, scores = sample(entry)
    objective = lightgbm_objective(name)
    _, hessian = objective(labels, scores)
    difference = (objective(labels, scores + 1e-5)[0] - objective(labels, scores - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(hessian[difference > 0], difference[difference > 0], rtol=1e-5, atol=1e-8)


def test_the_part_of_a_softmax_second_derivative_that_is_never_negative_is_all_of_cross_entropys() -> None:
    labels, scores = sample(LOSSES[0]._replace(targets="index", predictions="distribution"))
    plain = catboost_objective("kl_divergence").objective(labels, scores)
    exact = catboost_objective("categorical_crossentropy").objective(labels, scores)
    np.testing.assert_allclose(plain, exact, atol=2e-7)  # kl_divergence clips at 1e-7


def test_where_a_loss_is_straight_its_slope_stands_in_for_the_second_derivative() -> None:
    gradient, hessian = xgboost_objective("huber", delta=1.0)(np.zeros(4), np.array([0.5, 3.0, -5.0, 0.25]))
    assert gradient.tolist() == [0.5, 1.0, -1.0, 0.25]
    assert hessian.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_negative_second_derivative_is_replaced() -> None:
    hessian = xgboost_objective("binary_focal_crossentropy", gamma=2.0, min_hessian=1e-3)(np.zeros(1), np.array([9.0]))[1]
    assert hessian.tolist() == [1e-3]


@pytest.mark.parametrize("name", ["binary_crossentropy", "sparse_categorical_crossentropy", "mean_absolute_error"])
def test_weights_multiply_both_derivatives(name: str) -> None:
    (entry,) = (entry for entry in BOOSTED if entry.name == name)
    labels, scores = sample(entry)
    w = np.linspace(0.5, 4.0, 40)
    for plain, weighted in zip(xgboost_objective(name)(labels, scores), xgboost_objective(name)(labels, scores, w), strict=True):
        np.testing.assert_allclose(weighted, plain * (w if plain.ndim == 1 else w[:, None]), rtol=1e-14)


def test_flat_scores_of_several_classes_are_read_class_by_class() -> None:
    labels, scores = np.array([0.0, 2.0, 1.0, 1.0]), np.random.default_rng(2).normal(size=(4, 3))
    objective = lightgbm_objective("sparse_categorical_crossentropy")
    for flat, whole in zip(objective(labels, scores.reshape(-1, order="F")), objective(labels, scores), strict=True):
        np.testing.assert_array_equal(flat.reshape((4, 3), order="F"), whole)


def test_xgboost_trains_as_with_its_own_binary_objective() -> None:
    data = xgboost.DMatrix(*CANCER, weight=WEIGHTS)
    own = xgboost.train({**TREE, "objective": "binary:logistic", "base_score": 0.5}, data, 10)
    log: dict[str, Any] = {}
    ours = xgboost.train(
        {**TREE, "base_score": 0.0, "disable_default_eval_metric": True}, data, 10, obj=xgboost_objective("bce"),
        custom_metric=xgboost_metric("AUC", exact=True), evals=[(data, "train")], evals_result=log, verbose_eval=False,
    )  # fmt: skip
    scores = ours.predict(data, output_margin=True)
    np.testing.assert_allclose(scores, own.predict(data, output_margin=True), atol=1e-6)
    assert log["train"]["AUC"][-1] == pytest.approx(metrics.roc_auc_score(CANCER[1], scores, sample_weight=WEIGHTS), abs=1e-6)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_xgboost_trains_as_with_its_own_softmax_objective(name: str) -> None:
    data = xgboost.DMatrix(*DIGITS)
    own = xgboost.train({**TREE, "objective": "multi:softprob", "num_class": 10, "base_score": 0.5}, data, 4)
    log: dict[str, Any] = {}
    ours = xgboost.train(
        {**TREE, "num_class": 10, "base_score": 0.5, "disable_default_eval_metric": True}, data, 4, obj=xgboost_objective(name),
        custom_metric=xgboost_metric("accuracy"), evals=[(data, "train")], evals_result=log, verbose_eval=False,
    )  # fmt: skip
    scores = ours.predict(data, output_margin=True)
    np.testing.assert_allclose(scores, own.predict(data, output_margin=True), atol=2e-6)
    assert log["train"]["accuracy"][-1] == pytest.approx(np.mean(scores.argmax(axis=1) == DIGITS[1]), abs=1e-6)


def test_an_xgboost_model_of_the_focal_loss_scores_as_with_a_hand_written_one() -> None:
    gamma = 2.0

    def focal(y: Any, z: Any) -> tuple[Any, Any]:
        def slope(z: Any) -> Any:
            z = z.astype(np.float64) * (2 * y - 1)  # the score for being right
            q, log_q = 1 / (1 + np.exp(-z)), -np.logaddexp(0, -z)
            return (2 * y - 1) * (1 - q) ** gamma * (gamma * q * log_q - (1 - q))

        return slope(z), np.maximum((slope(z + 1e-4) - slope(z - 1e-4)) / 2e-4, 1e-16)

    scores = []
    for objective in (focal, xgboost_objective("binary_focal_crossentropy", gamma=gamma)):
        model = xgboost.XGBClassifier(n_estimators=30, max_depth=3, n_jobs=2, objective=objective, base_score=0.5)
        model.fit(CANCER[0][::2], CANCER[1][::2])
        scores.append(model.predict(CANCER[0][1::2], output_margin=True))
    hand_written, ours = (metrics.roc_auc_score(CANCER[1][1::2], x) for x in scores)
    assert ours == pytest.approx(hand_written, abs=1e-3)
    assert ours > 0.98
    np.testing.assert_allclose(np.mean((scores[0] > 0) == CANCER[1][1::2]), np.mean((scores[1] > 0) == CANCER[1][1::2]), atol=4e-3)


def test_xgboosts_estimators_take_objective_metric_weights_and_several_outputs() -> None:
    focal, accuracy = xgboost_objective("binary_focal_crossentropy"), xgboost_metric("accuracy")
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=2, objective=focal, eval_metric=accuracy)
    model.fit(*CANCER, sample_weight=WEIGHTS, eval_set=[CANCER], verbose=False)
    assert model.evals_result()["validation_0"]["accuracy"][-1] > 0.95
    X = np.random.default_rng(0).normal(size=(200, 3))
    Y = np.stack([X[:, 0], -2 * X[:, 1]], axis=1)
    mse = xgboost_objective("mse")
    two = xgboost.XGBRegressor(n_estimators=30, max_depth=3, n_jobs=2, objective=mse, multi_strategy="multi_output_tree")
    assert np.mean((two.fit(X, Y).predict(X) - Y) ** 2) < 0.1 * np.var(Y)


def test_lightgbm_trains_as_with_its_own_binary_objective() -> None:
    def data() -> Any:
        return lightgbm.Dataset(*CANCER, weight=WEIGHTS, free_raw_data=False)

    own = lightgbm.train({**LEAVES, "objective": "binary"}, data(), 10)
    log: dict[str, Any] = {}
    train = data()
    ours = lightgbm.train(
        {**LEAVES, "objective": lightgbm_objective("bce")}, train, 10, feval=lightgbm_metric("bce"), valid_sets=[train],
        callbacks=[lightgbm.record_evaluation(log)],
    )  # fmt: skip
    scores = ours.predict(CANCER[0])
    np.testing.assert_allclose(scores, own.predict(CANCER[0], raw_score=True), rtol=1e-12)
    loss = metrics.log_loss(CANCER[1], 1 / (1 + np.exp(-scores)), sample_weight=WEIGHTS)
    assert log["training"]["bce"][-1] == pytest.approx(loss, rel=1e-6)


def test_lightgbms_estimators_train_as_with_their_own_softmax_objective() -> None:
    own = lightgbm.LGBMClassifier(n_estimators=4, n_jobs=2, verbose=-1, boost_from_average=False).fit(*DIGITS)
    ours = lightgbm.LGBMClassifier(
        n_estimators=4, n_jobs=2, verbose=-1, boost_from_average=False, objective=lightgbm_objective("sparse_categorical_crossentropy")
    )
    ours.fit(*DIGITS, eval_X=DIGITS[0], eval_y=DIGITS[1], eval_metric=lightgbm_metric("accuracy"))
    scores = ours.predict(DIGITS[0], raw_score=True)
    np.testing.assert_allclose(scores, own.predict(DIGITS[0], raw_score=True), rtol=1e-9, atol=1e-9)
    assert ours.evals_result_["valid_0"]["accuracy"][-1] == pytest.approx(np.mean(scores.argmax(axis=1) == DIGITS[1]), abs=1e-12)


def test_catboost_trains_as_with_its_own_binary_objective() -> None:
    common = {"iterations": 10, "verbose": 0, "thread_count": 2, "allow_writing_files": False}
    own = catboost.CatBoostClassifier(
        loss_function="Logloss", boost_from_average=False, leaf_estimation_method="Newton", leaf_estimation_iterations=1, **common
    )
    ours = catboost.CatBoostClassifier(loss_function=catboost_objective("bce"), eval_metric=catboost_metric("AUC", exact=True), **common)
    scores = [model.fit(*CANCER, sample_weight=WEIGHTS).predict(CANCER[0], prediction_type="RawFormulaVal") for model in (own, ours)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-9, atol=1e-9)
    (best,) = ours.get_best_score()["learn"].values()
    assert best == pytest.approx(metrics.roc_auc_score(CANCER[1], scores[1], sample_weight=WEIGHTS), abs=1e-4)


def test_catboost_trains_with_several_classes() -> None:
    model = catboost.CatBoostClassifier(
        iterations=3, depth=3, verbose=0, thread_count=2, allow_writing_files=False, classes_count=3, learning_rate=0.5,
        loss_function=catboost_objective("sparse_categorical_crossentropy"), eval_metric=catboost_metric("accuracy"),
    )  # fmt: skip
    X, y = datasets.load_iris(return_X_y=True)
    scores = model.fit(X, y).predict(X, prediction_type="RawFormulaVal")
    assert np.mean(scores.argmax(axis=1) == y) > 0.9
    (best,) = model.get_best_score()["learn"].values()
    assert best >= np.mean(scores.argmax(axis=1) == y) - 1e-12


@pytest.mark.parametrize(
    ("metric", "rising"),
    [("AUC", True), ("accuracy", True), ("mse", False), ("root_mean_squared_error", False), ("binary_focal_crossentropy", False),
     ("cosine_similarity", True), ("FalsePositives", False), ("Recall", True), (lossfuncs.losses.huber, False), ("R2Score", True),
     (lossfuncs.metrics.RootMeanSquaredError(), False), ("crossentropy", False), ("top_k_categorical_accuracy", True)],
)  # fmt: skip
def test_metrics_know_whether_more_is_better(metric: Any, rising: bool) -> None:
    assert catboost_metric(metric).is_max_optimal() is rising


def test_raw_scores_become_what_the_metric_wants() -> None:
    scores, labels = np.array([-2.0, 0.5, 3.0, -0.1]), np.array([0.0, 1.0, 1.0, 1.0])
    for given, raw in ((scores, True), (1 / (1 + np.exp(-scores)), False)):
        assert xgboost_metric("accuracy", raw=raw)(labels, given) == 0.75
        assert xgboost_metric("Recall", raw=raw)(labels, given) == pytest.approx(2 / 3)
        loss = np.mean(np.logaddexp(0, scores * (1 - 2 * labels)))
        assert xgboost_metric("bce", raw=raw)(labels, given) == pytest.approx(loss, rel=1e-6)
    assert xgboost_metric("poisson")(labels, scores) == pytest.approx(np.mean(np.exp(scores) - labels * scores), rel=1e-6)


@pytest.mark.parametrize(
    "thing", [xgboost_objective("categorical_focal_crossentropy", gamma=1.0), lightgbm_metric("AUC"), catboost_objective("mse")]
)
def test_they_are_pickled_and_copied(thing: Any) -> None:
    for other in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
        assert type(other) is type(thing)
        assert vars(other).keys() == vars(thing).keys()


def test_a_grid_search_over_processes_takes_them() -> None:
    model = xgboost.XGBRegressor(n_estimators=20, n_jobs=1, objective=xgboost_objective("log_cosh"), base_score=0.0)
    search = GridSearchCV(clone(model), {"max_depth": [1, 3]}, cv=2, n_jobs=2).fit(*CANCER)
    assert search.best_score_ > 0.7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xgboost_objective("dice"), "dice is no loss of a booster's scores: it wants y_pred to hold probability"),
        (lambda: xgboost_objective("ctc"), "ctc is no loss of a booster's scores"),
        (lambda: xgboost_objective("focall"), "Could not interpret loss identifier"),
        (lambda: xgboost_objective("bce", gama=1.0), "unexpected keyword argument 'gama'"),
        (lambda: xgboost_objective(max), "loss must be a string or a function of lossfuncs"),
        (lambda: xgboost_objective("bce", min_hessian=-1.0), "min_hessian must be a number >= 0"),
        (lambda: xgboost_metric("focall"), "Could not interpret"),
        (lambda: xgboost_objective("categorical_crossentropy")(np.zeros(3), np.zeros(3)), "needs a score for each class"),
        (lambda: xgboost_objective("categorical_crossentropy")(np.full(3, 5.0), np.zeros((3, 4))), "class numbers 0 to 3, got 5"),
        (lambda: xgboost_metric("F1Score")(np.array([0, 1]), np.eye(2)), "gives 2 numbers, but a booster's metric is one"),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_the_readmes_example_runs(run_examples: Callable[[str], None]) -> None:
    run_examples("xgboost")
