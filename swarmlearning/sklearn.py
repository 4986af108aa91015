"""The callback for scikit-learn: estimators with `partial_fit`, whose program calls the hooks.

from swarmlearning.sklearn import SwarmCallback
model = SGDClassifier(loss="log_loss")
swarm = SwarmCallback(128, 2, model=model, initData=(x[:10], y[:10]), classes=[0, 1])
swarm.on_train_begin()
for batch in batches:
    model.partial_fit(*batch)
    swarm.on_batch_end()
swarm.on_train_end()
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics
from sklearn.base import is_classifier

from swarmlearning.callback import SwarmCallbackBase
from swarmlearning.errors import SwarmError
from swarmlearning.settings import SLPlatforms
from swarmlearning.tensors import Array

__all__ = ["SwarmCallback", "SwarmError"]

# Where estimators keep what they learn: linear ones, and multilayer perceptrons (lists of arrays).
WEIGHTS = (("coef_", "intercept_"), ("coefs_", "intercepts_"))
# Functions of sklearn.metrics that want probabilities; and of those, for two classes that of the
# second alone.
OF_PROBABILITIES = frozenset(
    {"log_loss", "roc_auc_score", "brier_score_loss", "average_precision_score"}
)
OF_THE_SECOND = OF_PROBABILITIES - {"log_loss"}


class SwarmCallback(SwarmCallbackBase):
    """Merges the weights of a scikit-learn estimator with its peers. See SwarmCallbackBase.

    Beside the common parameters:

    model           the estimator; its `partial_fit` trains between the hooks
    initData        (x, y): where the estimator has no weights yet, one `partial_fit` with these few
                    samples makes them; their values do not matter, as the first merge follows
    classes         all labels, for a classifier's first `partial_fit`; the same on all nodes
    weight_attrs    names of the attributes to merge, for estimators other than linear ones and
                    multilayer perceptrons; each an array of floats, or a list of such
    lossFunction    name in sklearn.metrics, or function(y_true, y_pred, **lossFunctionArgs);
                    default: log_loss where the estimator has probabilities, else the share of
                    wrong predictions; for regressors mean_squared_error
    metricFunction  likewise, with metricFunctionArgs; default: the estimator's own `score`

    `adsValData` is (x, y) or (x, y, sample_weight).
    """

    platforms = (SLPlatforms.SKLEARN,)

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        self.model: Any = params.get("model")
        if self.model is None:
            raise SwarmError("Scikit-Learn model is None")
        if not callable(getattr(self.model, "partial_fit", None)):
            raise SwarmError(
                f"{type(self.model).__name__} has no partial_fit, so it cannot learn in steps "
                "between merges"
            )
        if getattr(self.model, "average", False):
            raise SwarmError(
                "an estimator with average=True trains weights that it does not show; "
                "leave average out"
            )
        if self.valData is not None and self.valX is None:
            raise SwarmError("adsValData has to be (x, y) or (x, y, sample_weight)")
        self._attributes = self._find_attributes(params)
        self._loss = _function(params, "lossFunction")
        self._metric = _function(params, "metricFunction")
        if self.valData is not None:
            self._calculateLocalLossAndMetrics()  # complains now, not after the first round

    def _find_attributes(self, params: Mapping[str, Any]) -> Sequence[str]:
        """The attributes that hold the weights; makes them exist. Raises SwarmError."""
        given = params.get("weight_attrs")
        kinds = WEIGHTS if given is None else (tuple(given),)
        for names in kinds:
            if self._has(names):
                return names
        if params.get("initData") is None:
            raise SwarmError(
                "the estimator has no weights before its first partial_fit; "
                "give initData=(x, y) with a few samples, and classes for a classifier"
            )
        x, y = params["initData"]
        classes = params.get("classes")
        self.model.partial_fit(x, y, **({} if classes is None else {"classes": classes}))
        for names in kinds:
            if self._has(names):
                return names
        raise SwarmError(
            f"{type(self.model).__name__} has neither coef_ nor coefs_; "
            "name the attributes to merge in weight_attrs"
            if given is None
            else f"{type(self.model).__name__} lacks one of {', '.join(kinds[0])}"
        )

    def _has(self, names: Sequence[str]) -> bool:
        return all(hasattr(self.model, name) for name in names)

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        """Names and arrays, in an order that is the same on all nodes.

        Labels stand in the names, so that estimators for other classes are refused, not mixed.
        """
        classes = getattr(self.model, "classes_", None)
        known = ""
        if classes is not None:
            digest = hashlib.sha256(repr(np.asarray(classes).tolist()).encode()).hexdigest()
            known = f"{len(classes)} classes {digest[:8]}/"
        for name in self._attributes:
            value = getattr(self.model, name)
            parts = value if isinstance(value, list) else [value]
            for index, array in enumerate(parts):
                if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                    raise SwarmError(
                        f"{name} of {type(self.model).__name__} is not an array of floats"
                    )
                yield f"{known}{name}{f'/{index}' if isinstance(value, list) else ''}", array

    def _saveModelWeightsToDict(self) -> dict[str, Array]:
        return dict(self._arrays())

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, Array]) -> None:
        for name, array in self._arrays():
            # In place: a perceptron's optimizer holds on to these very arrays.
            array[...] = inDict[name]

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        weights = {} if self.valSampleWeight is None else {"sample_weight": self.valSampleWeight}
        if self._metric is not None:
            metric = self._metric(self, weights)
        else:
            metric = self.model.score(self.valX, self.valY, **weights)
        return float((self._loss or _default_loss)(self, weights)), float(metric)


Measure = Callable[[SwarmCallback, dict[str, Any]], Any]


def _function(params: Mapping[str, Any], parameter: str) -> Measure | None:
    """What a parameter asks for as a function of callback and sample weights. Raises SwarmError."""
    value, args = params.get(parameter), params.get(f"{parameter}Args") or {}
    if value is None:
        return None
    if not isinstance(args, Mapping):
        raise SwarmError(f"{parameter}Args has to be a dictionary")
    if isinstance(value, str):
        function = getattr(metrics, value, None)
        if value.startswith("_") or not callable(function):
            raise SwarmError(f"{parameter}: sklearn.metrics has no function {value!r}")
        return lambda callback, weights: function(
            callback.valY, _predictions(callback, value), **weights, **args
        )
    if not callable(value):
        raise SwarmError(f"{parameter} has to be a name in sklearn.metrics or a function")
    return lambda callback, _: value(callback.valY, callback.model.predict(callback.valX), **args)


def _predictions(callback: SwarmCallback, name: str) -> Any:
    """What the function `name` of sklearn.metrics wants to compare with the labels."""
    model, x = callback.model, callback.valX
    if name == "hinge_loss":
        return model.decision_function(x)
    if name not in OF_PROBABILITIES:
        return model.predict(x)
    probabilities = model.predict_proba(x)
    if name in OF_THE_SECOND and probabilities.shape[1] == 2:
        return probabilities[:, 1]
    return probabilities


def _default_loss(callback: SwarmCallback, weights: dict[str, Any]) -> Any:
    model, x, y = callback.model, callback.valX, callback.valY
    if not is_classifier(model):
        return metrics.mean_squared_error(y, model.predict(x), **weights)
    if hasattr(model, "predict_proba"):
        labels = model.classes_
        return metrics.log_loss(y, model.predict_proba(x), labels=labels, **weights)
    return 1 - metrics.accuracy_score(y, model.predict(x), **weights)
