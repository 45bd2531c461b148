"""Decides whether a service request may be too old to be served. Does not import ROS."""

from __future__ import annotations

import math
from collections.abc import Callable

from mlsh_ros.messages.topics import CALL_AGAIN

OLD = 1.0  # s after which a request is not served any more
PAUSE = 0.2  # s between two looks for requests from which on the process may have stood still


class RequestAge:
    """Tells requests that waited, or that a later one has overtaken.

    A date alone does not tell: while the whole process stands still, as a stopped or suspended one
    does, nothing is received, and what has come meanwhile is dated as new afterwards. For OLD
    seconds after a pause the age of a request is therefore unknown.

    Args:
        listening_since: returns the time since which another thread of the process has run
            without a pause, s; this one may itself be busy with a request.
    """

    def __init__(self, listening_since: Callable[[], float]) -> None:
        self._listening_since = listening_since
        self._looked, self._since = math.inf, -math.inf  # s, of the looks for requests
        self._ended = -1, -math.inf  # when a stop was received, ns, and when it was served, s

    def look(self, now: float) -> None:
        """Note a look for requests, s."""
        if now - self._looked > PAUSE:
            self._since = now
        self._looked = now

    def ends(self, received: int, now: float) -> None:
        """Note that a request that ends a session is served, which was received at a time, ns."""
        self._ended = max(self._ended[0], received), now

    def refusal(self, age: float, received: int, now: float) -> str:
        """Returns the reason that a request is not served; empty if it is.

        Args:
            age: s, by the clock that dates requests; below 0 if that clock is ahead, or was set.
            received: ns, by our clock.
            now: s, of `look`.
        """
        if age > OLD:
            return f"this request is {age:.1f} s old, at most {OLD:g} s is accepted; {CALL_AGAIN}"
        if age < -OLD:
            return (
                f"this request is dated {-age:.1f} s after now, at most {OLD:g} s is accepted; "
                f"{CALL_AGAIN}"
            )
        # The process stood still if neither this thread nor the other one ran.
        if now - min(self._since, self._listening_since()) < OLD:
            return (
                f"skill_node stood still less than {OLD:g} s ago, and this request may be an old "
                f"one; {CALL_AGAIN}"
            )
        ended, served = self._ended  # by our clock; `age` may be up to OLD too small
        if received <= ended and now - served < 2 * OLD:
            return "stop or disarm was called after this request"
        return ""

    def interrupted(self, called: float) -> str:
        """Returns why a request that is being served since a time, s, must not move anything."""
        if self._listening_since() > called:
            return f"skill_node stood still while it checked; {CALL_AGAIN}"
        return ""
