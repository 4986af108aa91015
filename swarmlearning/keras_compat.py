"""Lets programs that were written for Keras 2 run under Keras 3, and under the later tf_keras.

Three habits of theirs fail or change their meaning today, two of them only after hours of training:

    model.save("some/dir")      wrote a SavedModel directory; Keras 3 refuses a path without
                                `.keras` or `.h5`. Now it writes what the author had, the SavedModel
                                directory, and beside its files a `model.keras` for `load_model`.
    SGD(decay=1e-6)             divided the learning rate by 1 + decay · steps; Keras 3 ignores the
                                argument, tf_keras raises. Now it becomes that schedule.
    Adam(lr=0.001)              an older name of learning_rate; both raise.

Nothing else changes: calls that Keras accepts today do what they do without this module. On by
default; SWARM_KERAS_COMPAT=false in the program's environment leaves Keras alone.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SWITCH = "SWARM_KERAS_COMPAT"
_FILES = (".keras", ".h5", ".hdf5")


def install(keras: Any, environment: Mapping[str, str] = os.environ) -> None:
    """Extend the classes of `keras`, which is Keras 3's or tf_keras' module; once."""
    if environment.get(SWITCH, "").lower() == "false":
        return
    _extend_save(keras.Model)
    schedule = keras.optimizers.schedules.InverseTimeDecay
    for optimizer in vars(keras.optimizers).values():
        if isinstance(optimizer, type) and issubclass(optimizer, keras.optimizers.Optimizer):
            _extend_arguments(optimizer, schedule)


def _extend_save(model_class: Any) -> None:
    original = model_class.save
    if not hasattr(model_class, "export") or hasattr(original, "keras_2_paths"):
        return
    if model_class.__module__.startswith("tf_keras"):
        return  # still writes directories

    @functools.wraps(original)
    def save(
        self: Any, filepath: Any, overwrite: bool = True, save_format: Any = None, **kwargs: Any
    ) -> Any:
        path = os.fspath(filepath)
        if path.endswith(_FILES):
            # The extension says it all; Keras 3 only warns about the parameter.
            return original(self, filepath, overwrite=overwrite, **kwargs)
        if save_format not in (None, "tf"):
            return original(self, filepath, overwrite=overwrite, save_format=save_format, **kwargs)
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        self.export(path, verbose=False)
        return original(self, directory / "model.keras", overwrite=overwrite)

    save.keras_2_paths = True  # type: ignore[attr-defined]
    model_class.save = save


def _extend_arguments(optimizer_class: Any, schedule: Any) -> None:
    original = vars(optimizer_class).get("__init__")
    if original is None or hasattr(original, "keras_2_arguments"):
        return
    signature = inspect.signature(original)
    if "learning_rate" not in signature.parameters:
        return

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if "lr" in kwargs:
            kwargs["learning_rate"] = kwargs.pop("lr")
        decay = kwargs.pop("decay", None)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        rate = bound.arguments["learning_rate"]
        if decay and isinstance(rate, numbers.Real):
            bound.arguments["learning_rate"] = schedule(rate, decay_steps=1, decay_rate=decay)
        original(*bound.args, **bound.kwargs)

    __init__.keras_2_arguments = True  # type: ignore[attr-defined]
    optimizer_class.__init__ = __init__
