"""The services of skill_node: arm, disarm, start, stop, reset."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from std_srvs.srv import Trigger

from mlsh_ros.control.clock import steady_time
from mlsh_ros.control.emergency_stop import TOPIC, EmergencyStop
from mlsh_ros.control.session import Session
from mlsh_ros.control.supervisor import State, Status, Supervisor
from mlsh_ros.nodes.arming_checks import ArmingChecks
from mlsh_ros.nodes.clock import steady
from mlsh_ros.nodes.inputs import side_node
from mlsh_ros.nodes.master_node import RESPONSE_TOPIC
from mlsh_ros.nodes.request_age import RequestAge

AUTO_ARM_PERIOD = 0.5  # s between two attempts to arm and start
AUTO_ARM_PATIENCE = 5.0  # s after which it is said why the robot is not armed
POLL = 0.02  # s between two looks for requests
ENDING = ("stop", "disarm")  # served at any age, and first: nothing keeps them waiting
MOST = 100  # requests of one service that are served in a row


class SessionServices:
    """Services that change the state of the supervisor.

    Their requests are taken by a timer of `node`, from a node without an executor: an executor
    does not tell how old a request is. One that waited, because the process stood still or was
    busy, must not start the robot.

    Args:
        node: skill_node; the services have its name.
        supervisor: of the robot's states.
        session: begins and ends driving.
        checks: conditions for arming and starting.
        estop: state of the emergency stop panels.
        forget_sensors: removes all samples.
        prepare: called in RUNNING, before a session begins.
        sensors_missing: returns the topics without a message so far, with the reason.
    """

    def __init__(
        self,
        node: Any,
        supervisor: Supervisor,
        session: Session,
        checks: ArmingChecks,
        estop: EmergencyStop,
        *,
        forget_sensors: Callable[[], None],
        prepare: Callable[[], None],
        sensors_missing: Callable[[], list[str]],
    ) -> None:
        self._node, self._supervisor, self._session = node, supervisor, session
        self._checks, self._estop, self._prepare = checks, estop, prepare
        self._forget_sensors, self._missing = forget_sensors, sensors_missing
        self._auto_arm_timer: Any = None
        self._auto_arm_since, self._auto_arm_refusal = 0.0, ""
        self._side = side_node(node, "services")
        self._services = [
            (
                self._side.create_service(Trigger, node.resolve_service_name(f"~/{name}"), _never),
                name,
                action,
            )
            for name, action in (
                ("stop", self._stop),
                ("disarm", self._disarm),
                ("arm", self._arm),
                ("start", self._start),
                ("reset", self._reset),
            )
        ]
        # By whose clock a request is dated: that of the caller, if it agrees with ours.
        stamped = bool(node.get_parameter("check_clock").value)
        self._dated = "source_timestamp" if stamped else "received_timestamp"
        self._age = RequestAge(lambda: checks.listening_since)
        self._poll_timer = node.create_timer(POLL, self._poll, clock=steady())

    def destroy(self) -> None:
        """Destroy the services."""
        self.cancel_auto_arm()
        self._node.destroy_timer(self._poll_timer)
        self._side.destroy_node()

    def begin_auto_arm(self) -> None:
        """Arm and start automatically as soon as all conditions are met."""
        self._auto_arm_since, self._auto_arm_refusal = steady_time(), ""
        self._auto_arm_timer = self._node.create_timer(
            AUTO_ARM_PERIOD, self._arm_and_start, clock=steady()
        )

    def cancel_auto_arm(self) -> None:
        """Stop arming automatically."""
        if self._auto_arm_timer is not None:
            self._node.destroy_timer(self._auto_arm_timer)
            self._auto_arm_timer = None

    def _poll(self) -> None:
        """Serve what ends a session, then at most one request of each other service."""
        self._age.look(steady_time())
        self.serve_endings()
        for service, name, action in self._services:
            if name not in ENDING:
                self._serve_next(service, name, action)

    def serve_endings(self) -> bool:
        """Serve all requests that end a session; True if there was one.

        Also between two things that keep the executor busy, however many of them come.
        """
        served = False
        for service, name, action in self._services:
            if name in ENDING:
                for _ in range(MOST):
                    if not self._serve_next(service, name, action):
                        break
                    served = True
        return served

    def _serve_next(self, service: Any, name: str, action: Callable[[], str]) -> bool:
        """Serve the next request of a service; False if there is none."""
        with service.handle:
            request, header = service.handle.service_take_request(Trigger.Request)
        if header is None or request is None:
            return False
        now, received = steady_time(), header.received_timestamp
        self._age.look(now)  # the one before may have taken long
        age = time.time() - getattr(header, self._dated) * 1e-9
        old = "" if name in ENDING else self._age.refusal(age, received, now)
        answer = self._serve(name, action, old)
        if name in ENDING:
            self._age.ends(received, steady_time())
        service.send_response(answer, header)
        return True

    def _serve(self, name: str, action: Callable[[], str], old: str) -> Trigger.Response:
        """Answer a request; `old` is the reason why it is too old to be served, or empty."""
        self.cancel_auto_arm()  # someone else decides now
        inactive = "" if self._supervisor.active else "skill_node is not active; activate it"
        refusal = inactive or old or action()
        message = f"cannot {name}: {refusal}" if refusal else self._supervisor.state.value
        return Trigger.Response(success=not refusal, message=message)

    def _arm(self) -> str:
        """Change from DISARMED to READY; returns the reason if that is refused."""
        if self._supervisor.state is not State.DISARMED:
            return self._here()
        requests = self._estop.requests

        def unchanged() -> bool:
            return self._estop.requests == requests

        if refusal := self._checks.not_fit():
            return refusal
        self._forget_sensors()  # what came before may be of a robot that has been moved since
        if self._supervisor.go(State.READY, unchanged):
            return ""
        return self._here() if unchanged() else f"topic {TOPIC!r} was true during the checks"

    def _disarm(self) -> str:
        failure = self._session.end()
        fault = self._supervisor.state is State.FAULT
        return "" if self._supervisor.go(State.DISARMED) else failure or self._here(hint=fault)

    def _start(self) -> str:
        """Change from READY to RUNNING; returns the reason if that is refused."""
        called, ready = steady_time(), self._supervisor.state is State.READY
        if ready and (refusal := self._checks.not_ready() or self._age.interrupted(called)):
            return refusal
        if ready and self.serve_endings():  # during these checks, which may take seconds
            return "stop or disarm was called after this request"
        return "" if self._session.start(self._prepare) else self._here()

    def _stop(self) -> str:
        return self._session.end()

    def _reset(self) -> str:
        """Change from FAULT to DISARMED, and remove panels that are gone; returns a refusal."""
        if failure := self._session.end():  # said once more: the fault may be of another cause
            self._session.failure = ""
            return f"{failure}; see that the robot is at rest, and call reset again"
        forgotten = self._estop.reset()
        if self._estop.pressed and (fault := self._checks.estop_fault()):
            return f"{fault.detail}; release it first"
        return "" if self._supervisor.reset() or forgotten else self._here(hint=False)

    def _here(self, *, hint: bool = True) -> str:
        """Describes the state that prevents a service; with a hint, the service to call first."""
        status = self._supervisor.status
        hints = {State.DISARMED: "; arm first", State.FAULT: "; reset first"}
        return f"the state is {describe(status)}{hints.get(status.state, '') if hint else ''}"

    def _arm_and_start(self) -> None:
        refusal = self._arm() if self._supervisor.state is State.DISARMED else ""
        if self._supervisor.state is State.READY:
            if missing := self._missing():
                refusal = f"nothing has come from {', '.join(missing)}"
            elif not self._node.publisher_count(RESPONSE_TOPIC):
                refusal = f"no node publishes {RESPONSE_TOPIC!r}"
            elif not (refusal := self._start()):
                self.cancel_auto_arm()
        # Once for each reason: all of them pass while the nodes come up.
        late = steady_time() - self._auto_arm_since > AUTO_ARM_PATIENCE
        reason = re.sub(r"[\d.]+", "", refusal)  # without ages, which grow
        if refusal and late and reason != self._auto_arm_refusal:
            self._auto_arm_refusal = reason
            self._node.get_logger().warning(f"does not start by itself yet: {refusal}")


def describe(status: Status) -> str:
    """Describes a state in one line, with its fault."""
    parts = (status.state.value, status.fault, status.detail)
    return ": ".join(part for part in parts if part)


def _never(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
    """Callback of a service whose node has no executor."""
    return response
