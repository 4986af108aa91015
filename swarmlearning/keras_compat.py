"""Lets programs that were written for Keras 2 save their model under Keras 3.

Keras 2 wrote `model.save("some/dir")` as a SavedModel directory; Keras 3 refuses a path without
`.keras` or `.h5`, and it does so after the training. With this change such a call writes what the
program's author had: the SavedModel directory, and beside its files a `model.keras` that
`load_model` reads.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

_FILES = (".keras", ".h5", ".hdf5")


def install(model_class: Any) -> None:
    """Extend `model_class.save`; once, and only where it is Keras 3's."""
    original = model_class.save
    if not hasattr(model_class, "export") or hasattr(original, "keras_2_paths"):
        return
    if model_class.__module__.startswith("tf_keras"):
        return

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
