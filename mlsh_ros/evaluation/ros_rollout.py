"""Rollouts through running nodes: services, parameters, and the record of an episode."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import State as LifecycleState
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from typing_extensions import Self

from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.real_time import stopped
from mlsh_ros.messages.labeled_array import OUTCOME, trace_layout
from mlsh_ros.messages.topics import CALL_AGAIN
from mlsh_ros.nodes.node import FOREVER, LATCHED, TRACE
from policies.bundle.bundle import Bundle
from sim.errors import UserError

START_UP = 30.0  # s for all nodes to be active; DDS discovery alone takes up to five
CALL = 10.0  # s for a service to answer
DISCOVERED = 5.0  # s for skill_node to discover the nodes that a session needs
CALLS = 10  # of a service that asks for another one
PAUSE = 0.5  # s between them
AGAIN = 1.0  # s without an answer before a node is asked once more how it is


class RefusedError(UserError):
    """A service has answered that it does not do what was asked."""


class Remote:
    """A client of skill_node, master_node and sim_node in one namespace.

    Args:
        bundle: the one that the nodes run; its names define the layout of the traces.
        namespace: of the nodes.
        alive: raises if a node has ended, so that a wait for it ends.
    """

    def __init__(
        self, bundle: Bundle, namespace: str = "", alive: Callable[[], None] = lambda: None
    ) -> None:
        self.bundle, self.alive = bundle, alive
        self.prefix = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
        interface = bundle.interface
        self._layout = trace_layout(interface.observation_names, interface.action_names)
        self._ticks: list[tuple[dict[str, float], dict[str, Any]]] = []
        self._outcomes: list[dict[str, float]] = []
        self._new_data = threading.Condition()
        self.state = ""
        self._fault: Exception | None = None  # of the thread that listens

    def __enter__(self) -> Self:
        """Create the client's node."""
        from rclpy.experimental.events_executor import EventsExecutor

        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("mlsh_remote", namespace=self.prefix or None)
        self.node.create_subscription(
            Float64MultiArray, f"{self.prefix}/skill_node/trace", self._on_trace, TRACE
        )
        self.node.create_subscription(
            Float64MultiArray, f"{self.prefix}/sim_node/outcome", self._on_outcome, TRACE
        )
        self.node.create_subscription(
            String, f"{self.prefix}/skill_node/state", self._on_state, LATCHED
        )
        self._clients: dict[str, Any] = {}
        self._executor = EventsExecutor()
        self._executor.add_node(self.node)
        self._finished = Future()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Destroy the client's node."""
        self._finished.set_result(None)
        self._executor.wake()
        self._thread.join(timeout=2.0)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def wait_until_active(self, *nodes: str) -> None:
        """Wait for nodes to be active, and for skill_node to have discovered this client.

        Raises:
            UserError: one is not, in time; or another graph answers under the same names.
        """
        deadline = time.monotonic() + START_UP
        self._know_each_other()
        for name in nodes:
            client = self._client(GetState, f"{name}/get_state")
            while not self._is_active(client):
                if time.monotonic() > deadline:
                    raise UserError(f"{name} is not active after {START_UP:g} s")
                time.sleep(0.02)
        # Its traces are not kept for those that join later; its state is, and comes after them.
        while "skill_node" in nodes and not self.state:
            self.alive()
            if time.monotonic() > deadline:
                raise UserError(f"skill_node has not published its state after {START_UP:g} s")
            time.sleep(0.02)
        for topic in ("skill_node/trace", "sim_node/outcome"):
            if self.node.count_publishers(f"{self.prefix}/{topic}") > 1:
                raise UserError(
                    f"two nodes publish {topic!r}: another graph runs in the same ROS domain and "
                    "namespace; end it, or choose another domain"
                )

    def _know_each_other(self) -> None:
        """Create the clients of all services that `run_episode` uses.

        With Fast DDS the response to the first request of a client may be lost: the server
        responds before it has discovered the client (ros2/rmw_fastrtps#842). Endpoints are
        discovered in the order of their creation: a node that has responded to the newest client
        has discovered all of them.
        """
        for node in ("sim_node", "master_node"):
            self._client(SetParameters, f"{node}/set_parameters")
        for service in ("arm", "start", "stop"):
            self._client(Trigger, f"skill_node/{service}")
        self._client(Trigger, "sim_node/reset")

    def _is_active(self, client: Any) -> bool:
        self.alive()
        if not client.wait_for_service(timeout_sec=0.1):
            return False
        future = client.call_async(GetState.Request())
        deadline = time.monotonic() + AGAIN
        while not future.done() and time.monotonic() < deadline:
            self._check()
            time.sleep(0.001)
        if not future.done():  # lost; to ask again does no harm
            client.remove_pending_request(future)
            return False
        return bool(future.result().current_state.id == LifecycleState.PRIMARY_STATE_ACTIVE)

    def _client(self, kind: Any, name: str) -> Any:
        """Returns a service client; it is kept, because the executor may still wait on it."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f"{self.prefix}/{name}")
        return self._clients[name]

    def trigger(self, service: str, patience: float = 0.0) -> str:
        """Call a Trigger service, such as `skill_node/start`; returns its message.

        Args:
            service: its name in the namespace.
            patience: s for which it may refuse, because of nodes that it has yet to discover.

        Raises:
            UserError: it refuses or does not answer.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._trigger(service)
            except RefusedError:
                if time.monotonic() > deadline:
                    raise
            self._check()
            time.sleep(PAUSE)

    def _trigger(self, service: str) -> str:
        client = self._client(Trigger, service)
        if not client.wait_for_service(timeout_sec=CALL):
            raise UserError(f"service {service!r} is not available")
        for _ in range(CALLS):  # this request is no old one
            answer = self._result(client.call_async(Trigger.Request()), service)
            if answer.success or not answer.message.endswith(CALL_AGAIN):
                break
            time.sleep(PAUSE)
        if not answer.success:
            raise RefusedError(f"service {service!r} refuses: {answer.message}")
        return str(answer.message)

    def set_parameters(self, node: str, **values: bool | int | float | str) -> None:
        """Set parameters of a node.

        Raises:
            UserError: it refuses one.
        """
        client = self._client(SetParameters, f"{node}/set_parameters")
        request = SetParameters.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        if not client.wait_for_service(timeout_sec=CALL):
            raise UserError(f"node {node!r} is not available")
        answer = self._result(client.call_async(request), node)
        for result in answer.results:
            if not result.successful:
                raise UserError(f"node {node!r} refuses: {result.reason}")

    def run_episode(
        self,
        *,
        task: str,
        master: str,
        seed: int,
        number: int,
        ticks: int,
        realtime: bool,
        on_tick: Callable[[dict[str, float], float], None] = lambda *_: None,
    ) -> Episode:
        """Drive one episode through the nodes.

        Raises:
            RealTimeError: the computer did not keep real time.
            UserError: a node refuses, dies, faults or falls silent.
        """
        self.set_parameters("sim_node", task=task, seed=seed, episode=number)
        self.set_parameters("master_node", master=master)
        with self._new_data:
            self._ticks, self._outcomes = [], []
        self.trigger("sim_node/reset")
        if self.state == "disarmed":
            self.trigger("skill_node/arm", DISCOVERED)
        self.trigger("skill_node/start", DISCOVERED)
        heard, deadline, seen = 0, time.monotonic() + CALL, 0
        with self._new_data:
            while not (self._outcomes and self._outcomes[-1]["done"]):
                self._new_data.wait(0.5)
                self._check()
                if self.state.startswith("fault"):
                    raise stopped(f"episode {number} of {task}", self.state)
                if len(self._outcomes) > heard:
                    heard, deadline = len(self._outcomes), time.monotonic() + CALL
                if time.monotonic() > deadline:
                    raise UserError(
                        f"episode {number} of {task}: {heard} of {ticks} ticks, then nothing for "
                        f"{CALL:g} s; skill_node is {self.state!r}"
                    )
                value = sum(outcome["reward"] for outcome in self._outcomes)
                for trace, _ in self._ticks[seen:]:
                    on_tick(trace, value)
                seen = len(self._ticks)
        self.trigger("skill_node/stop")
        return self._record(task, master, number, realtime)

    def _traces(self) -> list[tuple[dict[str, float], dict[str, Any]]]:
        """Traces of the newest session; the last one of the previous session may arrive late."""
        return [t for t in self._ticks if t[0]["session"] == self._ticks[-1][0]["session"]]

    def _record(self, task: str, master: str, number: int, realtime: bool) -> Episode:
        with self._new_data:
            outcomes = [o for o in self._outcomes if o["episode"] == number]
            # Traces and outcomes come from two nodes: the last trace may be still under way.
            self._new_data.wait_for(lambda: len(self._traces()) >= len(outcomes), CALL)
            # In realtime skill_node may have ticked once more before it was stopped.
            ticks = self._traces()[: len(outcomes)]
        numbers = [int(outcome["tick"]) for outcome in outcomes]
        if len(ticks) != len(outcomes) or numbers != list(range(len(numbers))):
            raise UserError(
                f"episode {number} of {task}: {len(ticks)} traces for {len(outcomes)} ticks, the "
                f"last one number {numbers[-1]}: messages were lost"
            )
        scalars = [s for s, _ in ticks]
        vectors = [v for _, v in ticks]
        return Episode(
            task=task,
            master=master,
            number=number,
            observation=np.stack([v["observation"] for v in vectors]).astype(np.float32),
            skill=np.array([int(s["skill"]) for s in scalars]),
            action=np.stack([v["action"] for v in vectors]).astype(np.float32),
            command=np.stack([v["command"] for v in vectors]),
            reward=np.array([o["reward"] for o in outcomes]),
            success=bool(outcomes[-1]["success"]),
            late=sum(int(s["late"]) for s in scalars),
            lateness=np.array([s["lateness"] for s in scalars]) if realtime else None,
            compute=np.array([s["compute"] for s in scalars]) if realtime else None,
            missed=sum(int(s["missed"]) for s in scalars) if realtime else None,
        )

    def _result(self, future: Any, what: str) -> Any:
        deadline = time.monotonic() + CALL
        while not future.done():
            self._check()
            if time.monotonic() > deadline:
                raise UserError(f"{what!r} does not answer within {CALL:g} s")
            time.sleep(0.001)
        return future.result()

    def _check(self) -> None:
        """Raise if further waiting is pointless."""
        self.alive()
        if self._fault is not None:
            raise UserError(f"a message of the nodes cannot be used: {self._fault}")

    def _spin(self) -> None:
        try:
            self._executor.spin_until_future_complete(self._finished, timeout_sec=FOREVER)
        except Exception as error:  # kept for the thread that waits
            self._fault = error

    def _on_trace(self, message: Float64MultiArray) -> None:
        with self._new_data:
            self._ticks.append(self._layout.read(message))
            self._new_data.notify_all()

    def _on_outcome(self, message: Float64MultiArray) -> None:
        with self._new_data:
            self._outcomes.append(OUTCOME.read(message)[0])
            self._new_data.notify_all()

    def _on_state(self, message: String) -> None:
        with self._new_data:
            self.state = message.data
            self._new_data.notify_all()
