"""All faults that stop the robot, by name, with their descriptions.

docs/reference/faults.md is generated from here, with the files that raise each of them. A new
fault also gets a row in docs/safety.md and docs/troubleshooting.md.
"""

from __future__ import annotations

FAULTS = {
    "sensors_missing": "a sensor topic stayed silent after `start`",
    "sensors_stale": "a sensor value is older than its term's max_age, or stamped so",
    "limit": "an observation is beyond the limit of its term, or of the active skill",
    "tracking": "the robot does not do what it is told: a measurement is away from its command",
    "invalid_value": "an observation or an action is not finite",
    "invalid_decision": "the master named a skill that does not exist",
    "master_silent": "too many decisions in a row did not come",
    "skill_chatter": "the master changes the skill too often",
    "deadline": "too many ticks in a row could not begin in time",
    "clock_jumped": "the clock was set, or went back, while the robot was moving",
    "clock_stopped": "simulated time stands still, and the robot was to move",
    "estop": "the emergency stop topic says stop",
    "estop_lost": "the emergency stop topic has fallen silent",
    "second_publisher": "two nodes publish what only one may: commands, decisions, a sensor, time",
    "start_out_of_limit": "the robot stands where no command may begin",
    "watchdog": "the watchdog found the commands standing still or wrong, and stops the robot",
    "watchdog_lost": "nobody watches: the watchdog is silent, not active, hears no command, "
    "has another interface or clock, or there are two",
    "internal": "an error that nobody expected",
}


class FaultError(Exception):
    """A reason to stop the robot and stay stopped.

    Args:
        name: one of FAULTS.
        detail: what was seen, with the value and what would have been right.
    """

    def __init__(self, name: str, detail: str) -> None:
        assert name in FAULTS, name
        super().__init__(f"{name}: {detail}")
        self.name, self.detail = name, detail
