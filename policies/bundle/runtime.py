"""Inference with ONNX Runtime: observation to master logits and skill action.

`load_skills` and `load_master` recompute the golden rows of the bundle before a network is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from policies.bundle.bundle import Bundle
from policies.bundle.onnx_reader import INPUT, OUTPUT
from policies.bundle.work import PIECE
from sim.errors import UserError, short

Float32 = NDArray[np.float32]
TOLERANCE = 1e-5  # absolute, of golden rows and of the export's parity gate


class Network:
    """One ONNX graph on one thread, so that the control loop does not compete with itself."""

    def __init__(self, data: bytes, where: str) -> None:
        self._where = where
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise UserError(f"{where}: ONNX Runtime refuses it ({_line(error)})") from None
        names = [x.name for x in (*self._session.get_inputs(), *self._session.get_outputs())]
        if names != [INPUT, OUTPUT]:
            raise UserError(f"{where}: inputs and outputs {short(names)}, not {[INPUT, OUTPUT]}")
        self._bind()

    def _bind(self) -> None:
        """Bind arrays of one row that ONNX Runtime uses in place: a fifth less time."""
        source, sink = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self._row = np.zeros((1, int(source.shape[-1])), np.float32)
        self._result = np.zeros((1, int(sink.shape[-1])), np.float32)
        self._binding = self._session.io_binding()
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        self._binding.bind_ortvalue_input(INPUT, make(self._row))
        self._binding.bind_ortvalue_output(OUTPUT, make(self._result))

    def __call__(self, observation: Float32) -> Float32:
        """Run (n, O) to (n, outputs). Not thread safe.

        Raises:
            UserError: the graph does not take such an observation.
        """
        try:
            if observation.shape == self._row.shape:
                self._row[:] = observation
                self._session.run_with_iobinding(self._binding)
                copy: Float32 = self._result.copy()
                return copy
            output: Float32 = self._session.run([OUTPUT], {INPUT: observation})[0]
        except Exception as error:
            raise UserError(f"{self._where}: ONNX Runtime fails ({_line(error)})") from None
        return output


@dataclass(frozen=True)
class Policy:
    """Skills and one master of a bundle, ready to run, one observation at a time."""

    skills: tuple[Network, ...]
    master: Network

    def logits(self, observation: Float32) -> Float32:
        """(K,) logits of the master for an observation (O,)."""
        logits: Float32 = self.master(observation[None])[0]
        return logits

    def action(self, skill: int, observation: Float32) -> Float32:
        """(A,) action of a skill for an observation (O,)."""
        action: Float32 = self.skills[skill](observation[None])[0]
        return action


def load_skills(bundle: Bundle) -> tuple[Network, ...]:
    """Load the skills; they must reproduce the golden rows.

    Raises:
        UserError: a skill does not reproduce them on this machine.
    """
    networks = []
    for k, (data, name) in enumerate(zip(bundle.skills, bundle.manifest.skill_files, strict=True)):
        network = Network(data, f"{bundle.source}/{name}")
        _compare(network, bundle, bundle.golden.action[k], name)
        networks.append(network)
    return tuple(networks)


def load_master(bundle: Bundle, name: str) -> Network:
    """Load a master; it must reproduce the golden rows.

    Raises:
        UserError: no such master, or it does not reproduce them on this machine.
    """
    network = Network(bundle.master(name), f"{bundle.source}/masters/{name}.onnx")
    _compare(network, bundle, bundle.golden.logits[name], f"masters/{name}.onnx")
    choice = bundle.golden.logits[name].argmax(axis=1)
    if (choice != bundle.golden.skill[name]).any():
        raise UserError(f"{bundle.source}: golden skills of master {name!r} contradict its logits")
    return network


def load_policy(bundle: Bundle, master: str) -> Policy:
    """Load skills and one master."""
    return Policy(load_skills(bundle), load_master(bundle, master))


def choose(logits: Float32, rng: np.random.Generator | None = None) -> int:
    """Returns the most probable skill, or with `rng` one drawn from the softmax."""
    if rng is None:
        return int(logits.argmax())
    weights = np.exp(logits - logits.max(), dtype=np.float64)
    return int(rng.choice(len(logits), p=weights / weights.sum()))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _compare(network: Network, bundle: Bundle, expected: Float32, name: str) -> None:
    rows = bundle.golden.observation
    pieces = [slice(begin, begin + PIECE) for begin in range(0, len(rows), PIECE)]
    # numpy's maximum of numbers and NaN is NaN; Python's is whichever comes first.
    error = float(np.max([np.abs(network(rows[p]) - expected[p]).max() for p in pieces]))
    if not error <= TOLERANCE:
        raise UserError(
            f"{bundle.source}: file {name!r} does not reproduce the golden rows: "
            f"off by {error:.2g}, at most {TOLERANCE:g} is accepted"
        )
