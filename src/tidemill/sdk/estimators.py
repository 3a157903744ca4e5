"""Scikit-learn estimators: the whole search behind ``fit``, the exported graph behind ``predict``.

What ``predict`` runs is the bundle's ONNX graph, so that a fitted estimator answers exactly as the shipped file does;
it can be pickled by its owner, cloned, put in a pipeline and cross-validated.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_feature_names, _check_n_features, check_array, check_is_fitted, column_or_1d

from tidemill.bundle.runtime import Bundle

TARGET = "target"


class _TidemillEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type hints
    """What the classifier and the regressor share: the table, the search, the bundle."""

    _kind: str | None
    _opened: Bundle

    def __init__(
        self,
        *,
        time: str | float | None = "60s",
        trials: int | None = None,
        objective: str | None = None,
        families: tuple[str, ...] | None = None,
        memory: str | int | None = None,
        cpus: int | None = None,
        random_state: int = 0,
        workspace: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        self.time = time
        self.trials = trials
        self.objective = objective
        self.families = families
        self.memory = memory
        self.cpus = cpus
        self.random_state = random_state
        self.workspace = workspace
        self.name = name

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.target_tags.required = True
        return tags

    def _table(self, X: Any, *, reset: bool) -> dict[str, Any]:
        """Turn ``X`` into columns by name, keeping a data frame's own columns and types."""
        _check_feature_names(self, X, reset=reset)
        if _is_frame(X):
            import narwhals.stable.v2 as nw

            frame = nw.from_native(X, eager_only=True)
            _check_n_features(self, X, reset=reset)
            # By place: pandas may call its columns by numbers.
            return {str(name): frame[:, place].to_arrow() for place, name in enumerate(frame.columns)}
        array = check_array(X, dtype=None, ensure_all_finite=False, estimator=self, input_name="X")
        if array.dtype.kind in "fc":
            # Infinities are refused like scikit-learn does; NaN means missing.
            array = check_array(array, dtype=np.float64, ensure_all_finite="allow-nan", estimator=self, input_name="X")
        elif array.dtype.kind == "O":
            _refuse_odd_objects(array)
        _check_n_features(self, array, reset=reset)
        return {f"x{i}": _plain_column(array[:, i]) for i in range(array.shape[1])}

    def _search(self, table: dict[str, Any], y: NDArray[Any]) -> None:
        """Run the search and keep the exported bundle's bytes."""
        from tidemill.sdk.fit import FitOptions, fit_to_bundle

        with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch:
            result = fit_to_bundle(
                {**table, TARGET: y},
                TARGET,
                out=Path(scratch) / "bundle.tm",
                options=FitOptions(
                    kind=self._kind,
                    objective=self.objective,
                    time=self.time,
                    trials=self.trials,
                    memory=self.memory,
                    cpus=self.cpus,
                    families=self.families,
                    name=self.name,
                    seed=self.random_state,
                    test_size=0.0,
                    keep_all_features=True,
                    in_process=self.cpus == 1 and self.time is None and self.memory is None,
                ),
                workspace=self.workspace or Path(scratch) / "workspace",
                report=False,
            )
            with result.study as study:
                self.leaderboard_ = study.leaderboard()
            self.bundle_files_ = _files(Path(scratch) / "bundle.tm")
        self._opened = self._open()

    def _bundle(self) -> Bundle:
        check_is_fitted(self, "bundle_files_")
        return self._opened

    def _open(self) -> Bundle:
        with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch:
            opened = Bundle.open(self.export(Path(scratch) / "bundle.tm"), threads=self.cpus or 0)
            opened.session()  # reads the graph while the folder is there
        return opened

    def __getstate__(self) -> dict[str, Any]:
        # The open session belongs to this process; the bundle's files are enough to open another.
        return {k: v for k, v in super().__getstate__().items() if k != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "bundle_files_" in self.__dict__:
            self._opened = self._open()

    def export(self, out: str | Path) -> Path:
        """Write the bundle folder.

        Parameters
        ----------
        out : path
            Folder to write; must not exist.

        Returns
        -------
        Path
            The folder.
        """
        check_is_fitted(self, "bundle_files_")
        folder = Path(out)
        folder.mkdir(parents=True)
        for name, data in self.bundle_files_.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class TidemillClassifier(ClassifierMixin, _TidemillEstimator):  # type: ignore[misc]
    """Search for the best classifier of a table within a budget.

    Parameters
    ----------
    time : str or float or None
        Wall-clock limit of ``fit``, ``"60s"``, ``"5m"``; None for none (then give ``trials``).
    trials : int or None
        Limit of finished trials; with a seed and ``time=None`` the result is reproducible.
    objective : str or None
        As on the command line; default maximises ROC AUC (binary) or minimises log loss.
    families : tuple of str or None
        Only these model families.
    memory : str or int or None
        Memory limit of all running trials together, ``"4GB"``.
    cpus : int or None
        Cores to use; None for all. With ``1``, and no limit of time or memory, everything runs in this process.
    random_state : int
        Seed.
    workspace : path or None
        Where the study is kept; None for a temporary place that is removed after ``fit``.
    name : str or None
        Name of the study in the workspace.

    Attributes
    ----------
    classes_ : ndarray
        Labels in the order of `predict_proba`'s columns.
    leaderboard_ : list of dict
        The finished trials, best first.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = TidemillClassifier(time=None, trials=2).fit(X, y)  # doctest: +SKIP
    >>> float(model.score(X, y)) > 0.9  # doctest: +SKIP
    True
    """

    _kind = None

    def fit(self, X: ArrayLike, y: ArrayLike) -> TidemillClassifier:
        """Search, export and keep the winner.

        Parameters
        ----------
        X : array or data frame, shape (n, n_features)
            Numbers, strings, booleans, dates; NaN and None are missing.
        y : array, shape (n,)
            Labels.
        """
        table = self._table(X, reset=True)
        labels = _checked_target(self, X, y, numeric=False)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"TidemillClassifier needs at least two classes, but got one class: {self.classes_.tolist()}."
            )
        # Codes with a prefix keep any label type apart from numbers; `classes_` maps them back.
        self._search(table, np.array([f"c{c}" for c in codes], dtype=object))
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of shape (n, n_classes), columns in the order of ``classes_``."""
        bundle = self._bundle()
        scores = bundle.predict_proba(self._table(X, reset=False)).astype(np.float64)
        # A class that is too rare to be learned is not in the bundle; it is never predicted.
        picked = np.zeros((len(scores), len(self.classes_)))
        picked[:, [int(label[1:]) for label in bundle.task.classes]] = scores
        return np.asarray(picked / picked.sum(axis=1, keepdims=True))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels of shape (n,), by the objective's own decision rule."""
        bundle = self._bundle()
        decided = bundle.predict(self._table(X, reset=False))
        codes = np.array([int(str(label)[1:]) for label in decided], dtype=np.int64)
        return np.asarray(self.classes_[codes])


class TidemillRegressor(RegressorMixin, _TidemillEstimator):  # type: ignore[misc]
    """Search for the best regressor of a table within a budget.

    Parameters and attributes as in `TidemillClassifier`; the default objective minimises RMSE.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> TidemillRegressor(time=None, trials=2).fit(X, y).predict(X[:1]).shape  # doctest: +SKIP
    (1,)
    """

    _kind = "regression"

    def fit(self, X: ArrayLike, y: ArrayLike) -> TidemillRegressor:
        """Search, export and keep the winner.

        Parameters
        ----------
        X : array or data frame, shape (n, n_features)
            Numbers, strings, booleans, dates; NaN and None are missing.
        y : array, shape (n,)
            Values.
        """
        table = self._table(X, reset=True)
        self._search(table, _checked_target(self, X, y, numeric=True))
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predicted values of shape (n,)."""
        return np.asarray(self._bundle().predict(self._table(X, reset=False)), dtype=np.float64)


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns") and (hasattr(X, "dtypes") or hasattr(X, "schema"))


def _plain_column(values: NDArray[Any]) -> NDArray[Any]:
    """Give a column of objects the type of its values, where they share one."""
    if values.dtype.kind != "O":
        return values
    kinds = {type(v) for v in values if v is not None and not (isinstance(v, float) and np.isnan(v))}
    if kinds and all(issubclass(k, (int, float, np.number)) and k is not bool for k in kinds):
        return np.array([np.nan if v is None else float(v) for v in values])
    return values


def _refuse_odd_objects(array: NDArray[Any]) -> None:
    for value in array.ravel():
        if value is not None and not isinstance(value, (str, bytes, bool, int, float, np.generic)):
            # The wording "argument must be" is what scikit-learn's own checks look for.
            raise TypeError(
                f"Every cell's argument must be a string, a number or a boolean, but got {type(value).__name__}."
            )


def _checked_target(estimator: Any, X: Any, y: Any, *, numeric: bool) -> NDArray[Any]:
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    values = column_or_1d(y, warn=True)
    if values.dtype.kind in "fc" or numeric:
        values = check_array(values, ensure_2d=False, dtype=np.float64 if numeric else None, input_name="y")
    rows = len(X) if hasattr(X, "__len__") else np.asarray(X).shape[0]
    if len(values) != rows:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: [{rows}, {len(values)}]")
    if rows < 2:
        raise ValueError(f"{type(estimator).__name__} needs at least two rows, but got n_samples={rows}.")
    return np.asarray(values)
