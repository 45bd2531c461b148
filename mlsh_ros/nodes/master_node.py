"""master_node: answers each decision request of skill_node with a skill."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from std_msgs.msg import Float64MultiArray, String

from mlsh_ros.bringup.params import MASTER_NODE
from mlsh_ros.messages.labeled_array import request_layout, response_layout
from mlsh_ros.nodes.node import EXCHANGE, LATCHED, CoreNode, array_message, run
from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.runtime import Network, choose, load_master
from sim.errors import UserError

REQUEST_TOPIC, RESPONSE_TOPIC = "decision/request", "decision/response"


class MasterNode(CoreNode):
    """Wiring: decision/request -> master network -> decision/response."""

    def __init__(self) -> None:
        super().__init__("master_node", MASTER_NODE)
        self.bundle: Bundle | None = None  # None: not configured
        self._masters: dict[int, Network] = {}  # per fingerprint of their bundle
        self._next: tuple[Bundle, str, Network] | None = None  # accepted, see `_use`
        self.check_changes(self._on_parameters)
        self.add_post_set_parameters_callback(self._after_parameters)

    def configure(self) -> None:
        """Load the bundle and connect."""
        # The parameters may have changed since the node began.
        bundle = load_bundle(str(self.get_parameter("bundle").value))
        manifest = bundle.manifest
        self._masters = {}
        self._use(*self._loaded(bundle, str(self.get_parameter("master").value)))
        self._request = request_layout(manifest.interface.observation_names)
        self._answer_layout = response_layout(manifest.skills)
        self._answer = array_message(self._answer_layout)
        self._said: tuple[tuple[float, ...], int] | None = None  # question, skill
        self._rng = None
        if not self.values["greedy"]:
            # One seed for every start would record the same decisions again and again.
            given = int(self.values["seed"])
            seed = int(np.random.default_rng().integers(2**31)) if given < 0 else given
            self._rng = np.random.default_rng(seed)
            self.get_logger().info(f"skills are drawn, seed {seed}")
        self._name_publisher = self.made(
            self.create_publisher(String, "~/master", LATCHED), self.destroy_publisher
        )
        self._publisher = self.made(
            self.create_lifecycle_publisher(Float64MultiArray, RESPONSE_TOPIC, EXCHANGE),
            self.destroy_publisher,
        )
        requests = self.listen(
            Float64MultiArray, REQUEST_TOPIC, self._on_request, EXCHANGE, self.warn_refused
        )
        self.made(requests, self.destroy_subscription)

    def activate(self) -> None:
        """Publish the name of the master."""
        self._name_publisher.publish(String(data=self.master_name))
        self.get_logger().info(f"active: master {self.master_name!r}")

    def cleanup(self) -> None:
        """Disconnect."""
        self.bundle = None
        super().cleanup()

    def _loaded(self, bundle: Bundle, name: str) -> tuple[Bundle, str, Network]:
        name = name or self._default(bundle)
        return bundle, name, load_master(bundle, name)

    def _use(self, bundle: Bundle, name: str, network: Network) -> None:
        # Those of another bundle stay: skill_node says whose master it asks.
        self._masters[bundle.fingerprint] = network
        self.bundle, self.master_name = bundle, name

    def _default(self, bundle: Bundle) -> str:
        task, masters = str(self.values["task"]), bundle.manifest.masters
        if not masters:
            raise UserError(f"bundle {bundle.manifest.name!r} has no master yet")
        own = [name for name, master in masters.items() if master.task == task]
        if task and not own:
            raise UserError(
                f"no master was trained on task {task!r}; name one of: {', '.join(masters)}"
            )
        return own[0] if own else next(iter(masters))

    def _on_parameters(self, given: dict[str, Any]) -> None:
        self._next = None
        if self.bundle is None or not given.keys() & {"bundle", "master"}:
            return
        bundle = self.bundle
        if "bundle" in given:
            bundle = load_bundle(str(given["bundle"]))
            bundle.check_replaces(self.bundle)
        self._next = self._loaded(bundle, str(given.get("master", self.master_name)))

    def _after_parameters(self, changes: list[Any]) -> None:
        """After all parameters are accepted: use the new master."""
        taken, self._next = self._next, None
        if taken is None or not {change.name for change in changes} & {"bundle", "master"}:
            return
        self._use(*taken)
        self._name_publisher.publish(String(data=self.master_name))

    def _on_request(self, message: Float64MultiArray) -> None:
        scalars, vectors = self._request.read(message, REQUEST_TOPIC)
        master = self._masters.get(int(scalars["bundle"]))
        if master is None:
            self.get_logger().warning(
                "asked for the master of a bundle that is not loaded here; set the parameter "
                "'bundle' of master_node first",
                throttle_duration_sec=1.0,
            )
            return
        logits = master(vectors["observation"].astype(np.float32)[None])[0]
        if not np.isfinite(logits).all():
            # Silence is the safe answer: skill_node keeps its skill and then stops.
            self.get_logger().error(f"logits are not finite: {logits.tolist()}")
            return
        self._answer.data = self._answer_layout.pack(
            scalars["session"],
            scalars["macro"],
            scalars["tick"],
            self._choose((scalars["session"], scalars["macro"], scalars["bundle"]), logits),
            vectors=(logits,),
        )
        self._publisher.publish(self._answer)

    def _choose(self, question: tuple[float, ...], logits: Any) -> int:
        """Returns the skill for a request; a repeated request gets the same skill."""
        if self._said is None or self._said[0] != question:
            self._said = question, choose(logits, self._rng)
        return self._said[1]


def main() -> NoReturn:
    """Entry point."""
    run(MasterNode)


if __name__ == "__main__":
    main()
