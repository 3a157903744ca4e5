"""Which steps each treatment parameter stands for.

A treatment is chosen by a few parameters, ``treatment.category`` and so on; each value of each stands for a
short list of steps. The parameters are worked off in the order of `STAGES`. A new step is a file with its class
and one line in `CHOICES`; `tests/models/tabular/treatment` runs the conformance suite over whatever stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill.core.errors import NotFoundError
from tidemill.models.tabular._base import FeatureKind
from tidemill.models.tabular.treatment._base import FittedStep, Step
from tidemill.models.tabular.treatment.codes import FillCodes, FittedFillCodes
from tidemill.models.tabular.treatment.cross import FittedPairs, FittedProducts, Pairs, Products
from tidemill.models.tabular.treatment.impute import FittedImpute, Impute
from tidemill.models.tabular.treatment.onehot import FittedOneHot, OneHot
from tidemill.models.tabular.treatment.quantile import FittedQuantile, Quantile
from tidemill.models.tabular.treatment.scale import FittedScale, Scale
from tidemill.models.tabular.treatment.select import FittedSelect, Select
from tidemill.models.tabular.treatment.spline import FittedSpline, Spline
from tidemill.models.tabular.treatment.tables import FittedTable, Frequency, TargetMean
from tidemill.models.tabular.treatment.tokens import FittedTfIdf, TfIdf

STAGES = ("cross", "missing", "number", "tokens", "category", "codes", "select")

CHOICES: dict[str, dict[str, tuple[Step, ...]]] = {
    # Two columns made into one.
    "cross": {"none": (), "pairs": (Pairs(),), "products": (Products(),), "both": (Pairs(), Products())},
    # Gaps in numbers: left to the family, or filled.
    "missing": {"native": (), "impute": (Impute(),)},
    # Numbers: as they are, on one scale, bent to a normal distribution, cut into pieces.
    "number": {
        "raw": (),
        "standard": (Scale("standard"),),
        "robust": (Scale("robust"),),
        "quantile": (Quantile(),),
        "spline": (Spline(),),
        "fine spline": (Spline(pieces=24),),
        "quantile and spline": (Quantile(), Spline(pieces=16, keep=True)),
    },
    # Counts of words.
    "tokens": {"all": (), "top": (Select(most=100, kind=FeatureKind.COUNT),), "tfidf": (TfIdf(),)},
    # Categories: "both" is the code and the mean target; "mixed" is one-hot for few categories, else the mean target.
    "category": {
        "code": (),
        "onehot": (OneHot(),),
        "target": (TargetMean(),),
        "both": (TargetMean(keep=True),),
        "frequency": (Frequency(),),
        "mixed": (OneHot(largest=16), TargetMean()),
        "full": (TargetMean(keep=True), OneHot()),
    },
    # Not a parameter of its own: follows "missing" for codes that no step has replaced.
    "codes": {"native": (), "impute": (FillCodes(),)},
    "select": {"all": (), "varying": (Select(),), "half": (Select(share=0.5),)},
}

DEFAULTS = {param: next(iter(choices)) for param, choices in CHOICES.items()}

FITTED: dict[str, type[FittedStep]] = {
    k.kind: k
    for k in (
        FittedFillCodes,
        FittedImpute,
        FittedOneHot,
        FittedPairs,
        FittedProducts,
        FittedQuantile,
        FittedScale,
        FittedSelect,
        FittedSpline,
        FittedTable,
        FittedTfIdf,
    )
}


def steps_of(choices: Mapping[str, Any]) -> tuple[Step, ...]:
    """List the steps that some choices stand for; parameters that are left out have their defaults.

    Raises
    ------
    NotFoundError
        For a parameter or a choice that isn't registered.
    """
    for param in choices:
        if param not in CHOICES:
            raise NotFoundError.of("treatment parameter", param, CHOICES)
    chosen = {**DEFAULTS, **choices}
    # Codes that no step has replaced are the category stage's affair, but missing ones follow the choice for missing.
    chosen["codes"] = chosen["missing"]
    steps: list[Step] = []
    for param in STAGES:
        known = CHOICES[param]
        if chosen[param] not in known:
            raise NotFoundError.of(f"choice of the treatment parameter {param!r} named", str(chosen[param]), known)
        steps += known[chosen[param]]
    return tuple(steps)
