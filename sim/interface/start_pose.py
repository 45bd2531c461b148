"""The pose in which a robot begins: a keyframe in simulation, measured values on the robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.errors import unknown
from sim.interface.names import Label, Text
from sim.interface.orientation import fold
from sim.interface.terms import ObservationTerm
from sim.interface.validators import (
    STRICT,
    Floats,
    Number,
    Positives,
    check_each,
    check_size,
    check_unique,
    spread,
)


@dataclass(frozen=True, config=STRICT)
class StartTerm:
    """Values of an observation term in the start pose."""

    term: Label  # name of the observation term
    values: tuple[Number, ...]  # values in the unit of the term, one per element
    tolerance: Positives  # largest difference with which a session may begin, in that unit

    def away(self, shown: Floats, term: ObservationTerm) -> Floats:
        """(..., count) difference of shown values (..., count) from the pose; angles fold."""
        difference = np.asarray(shown - np.array(self.values))
        return np.where(term.wrapped, fold(difference), difference) if term.wraps else difference


@dataclass(frozen=True, config=STRICT)
class StartPose:
    """The pose in which episodes begin, and near which sessions have to begin on the robot."""

    # Keyframe of model.xml in which episodes begin, instead of the default pose of the model.
    keyframe: Text
    # Measurements in that pose. A session that would begin in another one is refused. Empty: a
    # session may begin in any pose.
    measured: Annotated[tuple[StartTerm, ...], Field(max_length=1000)] = ()

    def check(self, observation: Sequence[ObservationTerm]) -> None:
        """Refuse terms that the robot does not have, and values that are not one per element.

        Raises:
            ValueError: names the term.
        """
        terms = {term.name: term for term in observation}
        check_unique("start_pose.measured: term", [each.term for each in self.measured])
        for each in self.measured:
            if each.term not in terms:
                raise unknown("observation term for start_pose.measured:", each.term, terms)
            count = terms[each.term].count
            check_size(each.term, "start_pose.measured.values", each.values, count)
            check_each(each.term, "start_pose.measured.tolerance", each.tolerance, count)

    def away(
        self, observation: Sequence[ObservationTerm], fields: Mapping[str, NDArray[Any]]
    ) -> str:
        """Describes the first element that is not in the pose; else empty.

        Args:
            observation: the robot's terms.
            fields: per term (size,), as measured.
        """
        terms = {term.name: term for term in observation}
        for each in self.measured:
            term = terms[each.term]
            values = term.values(np.asarray(fields[each.term], np.float64))
            far = np.abs(each.away(values, term)) / spread(each.tolerance, term.count)
            if not (far <= 1).all():  # so that NaN is away, too
                i = int(np.argmax(np.where(np.isnan(far), np.inf, far)))
                return (
                    f"{each.term}.{i} is {values[i]:.4g} {term.unit}, in the start pose "
                    f"{self.keyframe!r} it is {each.values[i]:g} within "
                    f"{spread(each.tolerance, term.count)[i]:g}"
                )
        return ""
