"""Scorers for scikit-learn, and its own metrics for less."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn import datasets, metrics
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import lossfuncs
from lossfuncs.frameworks.sklearn import accuracy_score, get_scorer, log_loss, make_scorer, top_k_accuracy_score

IRIS = datasets.load_iris(return_X_y=True)
CANCER = datasets.load_breast_cancer(return_X_y=True)
DIABETES = datasets.load_diabetes(return_X_y=True)
MODEL = make_pipeline(StandardScaler(), LogisticRegression())
PAIRS = [(log_loss, metrics.log_loss), (accuracy_score, metrics.accuracy_score), (top_k_accuracy_score, metrics.top_k_accuracy_score)]
IDS = [ours.__name__ for ours, _ in PAIRS]


def arguments(ours: Any, n: int = 300, classes: int = 4, dtype: Any = np.float64) -> tuple[Any, Any]:
    rng = np.random.default_rng(n + classes)
    labels = rng.permutation(np.arange(n) % classes)
    if ours is accuracy_score:
        return labels, rng.integers(0, classes, n)
    p = rng.dirichlet(np.ones(classes) * 0.3, n).astype(dtype)
    return labels, p / p.sum(axis=1, keepdims=True)


def both(ours: Any, theirs: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Results, or what was raised; and what was warned of."""
    found = []
    for function in (ours, theirs):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                result = function(*args, **options)
            except (ValueError, TypeError, ZeroDivisionError) as error:
                result = (type(error), str(error))
        found.append((result, [(w.category, str(w.message)) for w in said]))
    return found[0], found[1]


def agree(ours: Any, theirs: Any, *args: Any, rtol: float = 1e-12, **options: Any) -> Any:
    (ours_result, ours_said), (theirs_result, theirs_said) = both(ours, theirs, *args, **options)
    assert ours_said == theirs_said
    if isinstance(theirs_result, tuple):
        assert ours_result == theirs_result
    else:
        assert type(ours_result) is float
        assert ours_result == pytest.approx(theirs_result, rel=rtol, abs=1e-300)
    return ours_result


@pytest.mark.parametrize("n", [4, 300, 70000])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=IDS)
def test_a_function_agrees_with_scikit_learns(ours: Any, theirs: Any, weighted: bool, normalize: bool, n: int) -> None:
    w = np.random.default_rng(0).uniform(0.0, 2.0, n) if weighted else None
    agree(ours, theirs, *arguments(ours, n), normalize=normalize, sample_weight=w)


@pytest.mark.parametrize(("ours", "theirs"), [PAIRS[0], PAIRS[2]], ids=[IDS[0], IDS[2]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_of_any_kind_are_understood(ours: Any, theirs: Any, dtype: Any) -> None:
    labels, p = arguments(ours, dtype=dtype)
    rtol = 1e-5 if dtype is np.float32 else 1e-12
    for y in (labels, labels + 5, labels * 3 - 4, labels * 1000, labels.tolist(), labels.astype(np.int8), labels.astype(np.uint8),
              labels.astype(float), np.array(["d", "a", "c", "b"])[labels], labels == 1):  # fmt: skip
        agree(ours, theirs, y, p, rtol=rtol)
    for given in (np.arange(4), [0, 1, 2, 3], [0, 1, 2, 7], [3, 1, 2, 0], np.arange(5)):
        agree(ours, theirs, labels, p, labels=given, rtol=rtol)
        agree(ours, theirs, labels[labels > 0], p[labels > 0], labels=given, rtol=rtol)


def test_binary_probabilities_have_one_or_two_columns() -> None:
    labels, p = arguments(log_loss, classes=2)
    for y in (labels, 2 * labels - 1, labels + 1):
        for q in (p, p[:, 1], p[:, 1:], p[:, 1].astype(np.float32)):
            agree(log_loss, metrics.log_loss, y, q, rtol=1e-5 if q.dtype == np.float32 else 1e-12)
        agree(top_k_accuracy_score, metrics.top_k_accuracy_score, y, p[:, 1], k=1)


def test_sure_mistakes_cost_what_they_cost_in_scikit_learn() -> None:
    for dtype in (np.float32, np.float64):
        p = np.array([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], dtype)
        assert agree(log_loss, metrics.log_loss, np.array([1, 0, 2]), p, labels=[0, 1, 2], rtol=1e-6) > 5


def test_of_equal_scores_the_later_column_is_the_higher() -> None:
    scores = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.2], [0.3, 0.3, 0.1], [1.0, 0.0, 1.0]])
    for labels in ([0, 1, 2, 0], [2, 2, 0, 1], [1, 0, 2, 2]):
        for k in (1, 2, 3):
            agree(top_k_accuracy_score, metrics.top_k_accuracy_score, np.array(labels), scores, k=k)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=IDS)
def test_bad_input_meets_scikit_learns_complaint(ours: Any, theirs: Any) -> None:
    labels, p = arguments(ours)
    spoilt = p.astype(np.float64)
    spoilt[(3,) * p.ndim] = np.nan
    above = p * 1.5
    agree(ours, theirs, labels[:-1], p)
    agree(ours, theirs, labels[:0], p[:0])
    agree(ours, theirs, labels, spoilt)
    agree(ours, theirs, labels, above)
    agree(ours, theirs, labels, p * 0.9)
    agree(ours, theirs, labels, p, sample_weight=np.ones(7))
    agree(ours, theirs, labels, p, sample_weight=np.zeros(300))
    agree(ours, theirs, np.zeros(300, int), p)
    agree(ours, theirs, labels[:, None], p)


def test_k_of_all_classes_warns_as_scikit_learn_does() -> None:
    labels, p = arguments(top_k_accuracy_score)
    with pytest.warns(UndefinedMetricWarning):
        assert top_k_accuracy_score(labels, p, k=4) == 1.0


@pytest.mark.parametrize(
    ("scorer", "theirs", "data"),
    [
        (get_scorer("lossfuncs:log_loss"), "neg_log_loss", IRIS),
        (get_scorer("lossfuncs:accuracy"), "accuracy", IRIS),
        (get_scorer("lossfuncs:log_loss"), "neg_log_loss", CANCER),
        (make_scorer("AUC", exact=True), "roc_auc", CANCER),
        (make_scorer("mse"), "neg_brier_score", CANCER),
        (make_scorer(lossfuncs.losses.mean_absolute_error), "neg_mean_absolute_error", DIABETES),
        (make_scorer("RootMeanSquaredError"), "neg_root_mean_squared_error", DIABETES),
        (make_scorer(lossfuncs.metrics.R2Score()), "r2", DIABETES),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_scorer_gives_what_scikit_learns_does(scorer: Any, theirs: str, data: Any) -> None:
    model = LinearRegression() if data is DIABETES else MODEL
    y = data[1].astype(float)[:, None] if theirs == "r2" else data[1]
    np.testing.assert_allclose(
        cross_val_score(model, data[0], y, cv=3, scoring=scorer), cross_val_score(model, data[0], y, cv=3, scoring=theirs), rtol=1e-5
    )


def test_scorers_are_searched_with_in_parallel_with_labels_that_are_strings() -> None:
    y = datasets.load_iris().target_names[IRIS[1]]
    scoring = {"loss": get_scorer("lossfuncs:log_loss"), "top2": make_scorer("top_k_accuracy", k=2), "acc": make_scorer("accuracy"),
               "focal": make_scorer("categorical_focal_crossentropy", gamma=1.0)}  # fmt: skip
    search = GridSearchCV(MODEL, {"logisticregression__C": [0.1, 1.0]}, scoring=scoring, refit="loss", cv=3, n_jobs=2).fit(IRIS[0], y)
    assert search.best_params_ == {"logisticregression__C": 1.0}
    assert search.cv_results_["mean_test_acc"][1] > 0.9
    assert search.cv_results_["mean_test_top2"][1] >= search.cv_results_["mean_test_acc"][1]
    assert (search.cv_results_["mean_test_focal"] < 0).all()
    assert clone(search).get_params()["refit"] == "loss"


def test_a_fold_may_lack_a_class() -> None:
    few = IRIS[1][:60] < 1  # a test fold of two classes out of three
    model = MODEL.fit(*IRIS)
    found = get_scorer("lossfuncs:log_loss")(model, IRIS[0][:60], IRIS[1][:60])
    assert few.any()
    assert found == pytest.approx(-metrics.log_loss(IRIS[1][:60], model.predict_proba(IRIS[0][:60]), labels=[0, 1, 2]), rel=1e-12)


def test_a_scorer_is_pickled_cloned_and_printed() -> None:
    scorer = make_scorer("AUC", exact=True)
    for other in (pickle.loads(pickle.dumps(scorer)), clone(scorer)):
        assert other.get_params() == scorer.get_params()
    assert "AUC" in repr(scorer)


def test_sample_weights_are_routed() -> None:
    w = np.random.default_rng(0).uniform(0.1, 5.0, len(IRIS[1]))
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression(max_iter=500).set_fit_request(sample_weight=True)
        scores = {}
        for name, weighted in (("ours", True), ("unweighted", False)):
            scorer = get_scorer("lossfuncs:log_loss").set_score_request(sample_weight=weighted)
            scores[name] = cross_validate(model, *IRIS, cv=3, scoring=scorer, params={"sample_weight": w})["test_score"]
        their = metrics.get_scorer("neg_log_loss").set_score_request(sample_weight=True)
        scores["theirs"] = cross_validate(model, *IRIS, cv=3, scoring=their, params={"sample_weight": w})["test_score"]
    np.testing.assert_allclose(scores["ours"], scores["theirs"], rtol=1e-10)
    assert (np.abs(scores["ours"] - scores["unweighted"]) > 1e-6).all()


def test_logits_and_orders_are_read_from_decision_values() -> None:
    model = LinearSVC().fit(*CANCER)
    scores = model.decision_function(CANCER[0])
    assert make_scorer("AUC", exact=True)(model, *CANCER) == pytest.approx(metrics.roc_auc_score(CANCER[1], scores), abs=1e-9)
    loss = make_scorer("bce", from_logits=True)(model, *CANCER)
    assert loss == pytest.approx(-np.mean(np.logaddexp(0, scores * (1 - 2 * CANCER[1]))), rel=1e-9)


def test_names_without_the_prefix_are_scikit_learns() -> None:
    assert get_scorer("accuracy") is not None
    assert type(get_scorer("accuracy")) is type(metrics.get_scorer("accuracy"))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="Could not interpret"):
        get_scorer("lossfuncs:log_los")
    with pytest.raises(TypeError, match="a scorer is named by a string"):
        get_scorer(3)
    with pytest.raises(ValueError, match="needs predict_proba, which LinearSVC has not"):
        make_scorer("log_loss")(LinearSVC().fit(*CANCER), *CANCER)
    with pytest.raises(ValueError, match="gives 3 numbers, but a score is one"):
        make_scorer("F1Score")(MODEL.fit(*IRIS), *IRIS)


def test_the_readmes_example_runs(run_examples: Callable[[str], None]) -> None:
    run_examples("sklearn")


def test_the_accuracy_of_what_is_right_is_one_whatever_the_weights() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 40, 1001):
        labels = rng.integers(0, 3, n)
        for kind in ("float32", "float64"):
            assert accuracy_score(labels, labels, sample_weight=rng.random(n).astype(kind)) == 1.0


def test_labels_that_an_estimator_has_not_seen_are_no_others() -> None:
    """Their place among the sorted classes is that of another."""
    X = np.array([[0.0], [1.0], [2.0], [3.0]])
    model = LogisticRegression().fit(X, ["a", "a", "c", "c"])
    assert make_scorer("accuracy")(model, X, ["a", "a", "b", "b"]) == 0.5
    for metric in ("sparse_categorical_crossentropy", "binary_crossentropy", "AUC"):
        for unseen in ("b", "z"):
            with pytest.raises(ValueError, match=f"^y holds .*'{unseen}'.*, which is none of the classes that LogisticRegression knows$"):
                make_scorer(metric)(model, X, ["a", "a", "c", unseen])


def test_hinge_losses_are_of_margins() -> None:
    X, y = datasets.load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    assert make_scorer("hinge")(model, X, y) == pytest.approx(-metrics.hinge_loss(y, model.decision_function(X)))


def test_several_labels_a_sample_are_scored_each_and_several_outputs_refused() -> None:
    X, y = datasets.load_iris(return_X_y=True)
    labels = np.stack([y > 0, y > 1, X[:, 0] > 5.8], axis=1).astype(int)
    model = OneVsRestClassifier(LogisticRegression()).fit(X, labels)
    wanted = np.mean([metrics.log_loss(labels[:, i], model.predict_proba(X)[:, i]) for i in range(3)])
    assert make_scorer("binary_crossentropy")(model, X, labels) == pytest.approx(-wanted)
    with pytest.raises(ValueError, match="^MultiOutputClassifier has classes for each of 3 outputs: score the outputs one by one$"):
        make_scorer("binary_crossentropy")(MultiOutputClassifier(LogisticRegression()).fit(X, labels), X, labels)
