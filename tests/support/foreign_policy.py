"""A robot with joints, and policies of other people's exporters for it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

MODEL = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="base" pos="0 0 .1">
      <joint name="x" type="slide" axis="1 0 0" damping="5"/>
      <joint name="y" type="slide" axis="0 1 0" damping="5"/>
      <geom type="cylinder" size=".1 .05" mass="2"/>
      <body name="left" pos="0 .1 .1">
        <joint name="left" axis="0 1 0" range="-2 2" limited="true" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 0 0 .2" size=".02" mass=".2"/>
      </body>
      <body name="right" pos="0 -.1 .1">
        <joint name="right" axis="0 1 0" range="-2 2" limited="true" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 0 0 .2" size=".02" mass=".2"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="left_servo" joint="left" kp="8" kv=".4"/>
    <position name="right_servo" joint="right" kp="8" kv=".4"/>
  </actuator>
</mujoco>
"""

ROBOT = """
schema: 2
robot: arms
control_dt: 0.02
physics_dt: 0.01
observation:
  - {name: position, size: 2, unit: m, frame: odom, scale: 0.5, clip: null, noise: 0.0,
     max_age: 0.1, limit: null, inf_values: null, mujoco: {qpos: [x, y]},
     ros: {topic: odom, type: nav_msgs/msg/Odometry,
           fields: [pose.pose.position.x, pose.pose.position.y], required_values: {}}}
  - {name: joint_velocity, size: 2, unit: rad/s, frame: joint, scale: 0.1, clip: null, noise: 0.0,
     max_age: 0.1, limit: null, inf_values: null, mujoco: {qvel: [right, left]},
     ros: {topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["velocity[right]", "velocity[left]"], required_values: {}}}
  - {name: joint_position, size: 2, unit: rad, frame: joint, scale: [2.0, 0.5], clip: null,
     noise: 0.0, max_age: 0.1, limit: [-1.9, 1.9], inf_values: null, mujoco: {qpos: [right, left]},
     ros: {topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["position[right]", "position[left]"], required_values: {}}}
action:
  - {name: arms, size: 2, unit: rad, frame: joint, scale: [0.5, 0.25], offset: [-0.3, 0.4],
     limit: [-1.5, 1.5], smoothing_time: 0.0, rate_limit: 20.0, safe_command: [-0.3, 0.4],
     tracking: {term: joint_position, tolerance: 2.0, timeout: 1.0},
     stiffness: 8.0, damping: 0.4,
     mujoco: {actuators: [right_servo, left_servo]},
     ros: {topic: joint_command, type: sensor_msgs/msg/JointState,
           fields: ["position[right]", "position[left]"], required_values: {}}}
computed:
  - {name: last, kind: previous_action, scale: 2.0, clip: null}
  - {name: past, kind: history, terms: [joint_position, last, joint_velocity], ticks: 3,
     order: newest_first, layout: by_term, start: first_values}
"""

DESCRIPTION = {
    "schema": 2,
    "policy": "policy.onnx",
    "license": "MIT",
    "source": "made for a test",
    "control_dt": 0.02,
    "joints": ["left", "right"],
    "default_positions": [0.4, -0.3],
    "stiffness": 8.0,
    "damping": [0.4, 0.4],
    "observation": [
        {"constant": "command"},
        {"term": "joint_position", "offset": "default_positions"},
        {"term": "joint_velocity", "scale": 0.05},
        {"previous_action": True},
    ],
    "action": {"kind": "position", "scale": [0.2, 0.3]},
    "skills": {"slow": {"command": [0.5]}, "fast": {"command": [1.0]}},
}


def robot_folder(path: Path, text: str = ROBOT) -> str:
    """The robot's folder."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.xml").write_text(MODEL)
    (path / "robot.yaml").write_text(text)
    return str(path)


def model(nodes, inputs, outputs, weights, opset=18) -> onnx.ModelProto:
    """An ONNX model with one row of `inputs` and of `outputs`."""
    rows = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("obs", inputs), ("actions", outputs))
    ]
    tensors = [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "policy", rows[:1], rows[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def network(inputs=7, outputs=2, seed=0, hidden=16) -> onnx.ModelProto:
    """Two layers with ELU, as most policies for walking have."""
    rng = np.random.default_rng(seed)
    sizes = (inputs, hidden, outputs)
    weights, nodes, last = {}, [], "obs"
    for i, (a, b) in enumerate(pairwise(sizes)):
        weights[f"w{i}"] = (rng.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32)
        weights[f"b{i}"] = rng.normal(size=b).astype(np.float32) / 10
        out = "actions" if i else "h"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [out], transB=1))
        if not i:
            nodes.append(helper.make_node("Elu", [out], ["e"]))
            last = "e"
    return model(nodes, inputs, outputs, weights)


def description(folder: Path, made: onnx.ModelProto | None = None, **changes) -> Path:
    """A description and its policy in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(made or network(), str(folder / "policy.onnx"))
    data = {key: value for key, value in (DESCRIPTION | changes).items() if value is not ...}
    (folder / "skills.yaml").write_text(yaml.safe_dump(data))
    return folder / "skills.yaml"
