"""Columns that a caller leaves out, from the feature groups that an endpoint names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, NotFoundError, TidemillError
from tidemill.deploy.engine.refusal import Refusal, invalid_input

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tidemill.data.features.types import EntityKey, Feature
    from tidemill.deploy.engine.online import FollowedFeatures

_MOST_ON_LOOP = 32 << 10
"""Bytes of a request from which on its rows are completed beside the loop: it may have many."""
_SHOWN = 20


class Completion:
    """Completes the rows of one endpoint.

    Parameters
    ----------
    endpoint : str
        Its name.
    groups : sequence of str
        Names of feature groups; a column that two of them hold is taken from the first.
    online : callable
        Gives the groups; None where they can't be read.
    """

    def __init__(self, endpoint: str, groups: Sequence[str], online: Callable[[], FollowedFeatures | None]) -> None:
        self.endpoint = endpoint
        self.groups = tuple(groups)
        self._online = online

    def quick(self, size: int) -> bool:
        """True where a request of so many bytes may be completed on the loop."""
        online = self._online()
        return online is None or (online.quick and size <= _MOST_ON_LOOP)

    def entity_keys(self) -> dict[str, EntityKey]:
        """Entity keys of all groups by name."""
        online = self._online()
        if online is None:
            return {}
        found: dict[str, EntityKey] = {}
        for name in self.groups:
            for key in online.group(name).group.entity if online.features(name) else ():
                found.setdefault(key.name, key)
        return found

    def held(self) -> dict[str, str]:
        """Group by column."""
        online = self._online()
        if online is None:
            return {}
        return {column: name for name in reversed(self.groups) for column in online.features(name)}

    def columns(self, absent: Sequence[str], keys: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Read the columns that are absent and that a group holds.

        Parameters
        ----------
        absent : sequence of str
            Names of columns.
        keys : mapping of str to list
            Cells of the entity keys that are given, one for each row.

        Returns
        -------
        dict of str to list
            Cells as a caller would write them; None where nothing is known. A column that no group holds is left out.

        Raises
        ------
        Refusal
            400 for keys that are missing or wrong, 503 where a group is gone or the store can't be read.
        """
        online = self._online()
        if online is None:
            raise self._unavailable("The online features can't be read at the moment.")
        found: dict[str, Feature] = {}
        used: list[str] = []
        for name in self.groups:
            features = online.features(name)
            fresh = {n: features[n] for n in absent if n in features and n not in found}
            if fresh:
                found |= fresh
                used.append(name)
        gone = [name for name in self.groups if not online.features(name)]
        if gone and len(found) < len(absent):
            raise self._unavailable(f"The feature group {gone[0]!r} of {self.endpoint!r} is gone.")
        if not found:
            return {}
        return {n: _cells(values, found[n]) for n, values in self._read(online, used, list(found), keys).items()}

    def _read(
        self, online: FollowedFeatures, groups: Sequence[str], wanted: Sequence[str], keys: Mapping[str, Any]
    ) -> dict[str, NDArray[Any]]:
        from tidemill.data.features.online.features import complete_rows

        try:
            self._check(online, groups, wanted, keys)
            columns = complete_rows(online, groups, keys)
        except Refusal:
            raise
        except NotFoundError as error:  # it went between two looks
            raise self._unavailable(str(error)) from error
        except DataError as error:
            self._refuse_keys(online, groups, keys)
            raise self._unavailable(str(error)) from error
        except TidemillError as error:
            raise self._unavailable(str(error)) from error
        return {name: columns[name] for name in wanted}

    def _check(
        self, online: FollowedFeatures, groups: Sequence[str], wanted: Sequence[str], keys: Mapping[str, Any]
    ) -> None:
        needed = dict.fromkeys(n for name in groups for n in online.group(name).group.entity_names)
        if lacking := [n for n in needed if n not in keys]:
            columns = ", ".join(repr(n) for n in wanted[:_SHOWN])
            more = f" and {len(wanted) - _SHOWN} more" if len(wanted) > _SHOWN else ""
            names = ", ".join(repr(n) for n in lacking)
            raise invalid_input(f"Give the entity key {names}, or the columns that follow from it: {columns}{more}.")
        if any(not isinstance(keys[n], list) for n in needed):
            raise invalid_input("An entity key must be a list of cells, one for each row.")
        if any(isinstance(v, (list, dict)) for n in needed for v in keys[n]):
            raise invalid_input("An entity key must be a text or a whole number.")
        if len({len(keys[n]) for n in needed}) != 1:
            raise invalid_input("All entity keys must have the same length.")

    @staticmethod
    def _refuse_keys(online: FollowedFeatures, groups: Sequence[str], keys: Mapping[str, Any]) -> None:
        """Raise 400 if it is the caller's keys that are wrong."""
        from tidemill.data.features.online.features import entities_of

        try:
            for name in groups:
                group = online.group(name)
                for entity in entities_of(group, keys):
                    group.key(entity)
        except DataError as error:
            raise invalid_input(str(error)) from error

    @staticmethod
    def _unavailable(why: str) -> Refusal:
        return Refusal(503, "unavailable", why, retry_after_s=1, hint="Give all columns, or try again.")


def _cells(values: NDArray[Any], feature: Feature) -> list[Any]:
    """Cells in the feature's own type, so that they are read as those of the training data were."""
    cells: list[Any] = values.tolist()
    kind = feature.dtype
    if values.dtype == object:
        return cells
    if kind.value == "bool":
        return [None if v != v else bool(v) for v in cells]
    if kind.is_float:
        return [None if v != v else v for v in cells]
    return [None if v != v else int(v) for v in cells]
