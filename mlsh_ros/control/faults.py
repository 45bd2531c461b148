"""All faults that stop the robot, by name, with their descriptions.

docs/reference/faults.md is generated from here, with the files that raise each of them. A new
fault also gets a row in docs/safety.md and docs/troubleshooting.md.
"""

from __future__ import annotations

FAULTS = {
    "sensors_missing": "no message arrived on a sensor topic after `start`",
    "sensors_stale": "a sensor value is older than its term's max_age, by arrival or by stamp",
    "limit": "an observation exceeds the limit of its term, or of the active skill",
    "tracking": "a measurement differs from its command for too long",
    "invalid_value": "an observation or an action is not finite",
    "invalid_decision": "the master selected a skill that does not exist",
    "master_silent": "too many consecutive decisions of the master are late or did not arrive",
    "skill_chatter": "the master switches skills too often",
    "deadline": "too many ticks were missed without one in time between them",
    "clock_jumped": "the clock jumped while the robot was moving",
    "clock_stopped": "simulated time does not advance while the robot is to move",
    "estop": "an emergency stop was received",
    "estop_lost": "no messages arrive on the emergency stop topic",
    "second_publisher": "two nodes publish a topic that permits only one: commands, decisions, "
    "a sensor or the clock",
    "no_receiver": "no node receives a topic of the commands, so that the robot is not driven",
    "start_out_of_limit": "the robot's measured state is outside the limits of its commands, or "
    "not in its start pose",
    "watchdog": "the watchdog stops the robot because commands are missing or violate a rule",
    "watchdog_lost": "no working watchdog: it is silent, not active, does not receive the "
    "commands, has another interface or clock, or there are two",
    "internal": "an unexpected error in the program",
}

# In simulation these say that the computer did not keep real time.
LATE = ("sensors_stale", "master_silent", "deadline", "clock_stopped", "watchdog_lost")


class FaultError(Exception):
    """A fault that stops the robot and is latched.

    Args:
        name: one of FAULTS.
        detail: the observed value and the accepted one.
    """

    def __init__(self, name: str, detail: str) -> None:
        assert name in FAULTS, name
        super().__init__(f"{name}: {detail}")
        self.name, self.detail = name, detail
