"""Conclusions from the ticks, requests and responses of a session, which are recorded in part.

`completeness` draws them while a recording is made, `replay` in a finished one.
"""

from __future__ import annotations

from collections.abc import Collection, Sized


def is_driven(ticks: Sized, requests: Sized) -> bool:
    """True if skill_node had the session; a response alone may be to another skill_node.

    Args:
        ticks: recorded ones of the session.
        requests: to the master, recorded ones of the session.
    """
    return bool(len(ticks) or len(requests))


def newest_tick(ticks: Collection[int], asked: Collection[int]) -> int:
    """Number of the newest tick that was made; -1: none is known.

    Args:
        ticks: recorded ones of the session.
        asked: ticks whose observation a request or a response is about. skill_node asks at a tick
            after it has made all those before it.
    """
    return max(max(ticks, default=-1), max(asked, default=0) - 1)
