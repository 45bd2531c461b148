"""Robots that use every feature of robot.yaml, and which robots fit a task family."""

from pathlib import Path

import yaml

from sim.interface import Interface, interface_from_dict
from sim.physics.robot_model import Robot, load_robot
from sim.tasks.base import TaskFamily

ODD_MODEL = """
<mujoco model="odd">
  <option timestep="0.01" integrator="implicitfast" gravity="0 0 -9.81"/>
  <worldbody>
    <body name="base">
      <inertial pos="0 0 0" mass="5" diaginertia=".1 .1 .1"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <site name="imu"/>
      <body name="arm" pos="0 0 .2">
        <joint name="elbow" type="hinge" axis="0 0 1" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass=".5"/>
      </body>
    </body>
    <body name="ball" pos="9 9 9"><freejoint name="loose"/><geom size=".1"/></body>
  </worldbody>
  <actuator>
    <position name="bend" joint="elbow" kp="5" kv="1"/>
    <velocity name="go_y" joint="y" kv="50"/>
    <velocity name="go_x" joint="x" kv="50" ctrlrange="-.8 .9"/>
  </actuator>
  <sensor>
    <framepos name="hand" objtype="body" objname="arm"/>
    <jointpos name="angle" joint="elbow"/>
    <accelerometer name="shake" site="imu"/>
  </sensor>
</mujoco>
"""

ODD_ROBOT = """
schema: 2
robot: odd
control_dt: 0.05
physics_dt: 0.01
observation:
  - {name: angle, size: 1, unit: rad, frame: arm, scale: 2.0, clip: [-0.5, 0.5], noise: 0.01,
     max_age: 0.1, limit: null, inf_values: null,
     mujoco: {sensor: angle},
     ros: {topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["position[elbow]"], required_values: {}}}
  - {name: position, size: 2, unit: m, frame: odom, scale: 1.0, clip: null, noise: 0.02,
     max_age: 0.1, limit: null, inf_values: null,
     mujoco: {qpos: [x, y]},
     ros: {topic: odom, type: nav_msgs/msg/Odometry, fields: [pose.x, pose.y],
           required_values: {}}}
  - {name: shake, size: 3, unit: m/s^2, frame: base, scale: 0.1, clip: null, noise: 0.0,
     max_age: 0.1, limit: null, inf_values: null,
     mujoco: {sensor: shake},
     ros: {topic: imu, type: sensor_msgs/msg/Imu, fields: [a.x, a.y, a.z], required_values: {}}}
  - {name: rates, size: 2, unit: mixed, frame: arm, scale: -1.0, clip: null, noise: 0.0,
     max_age: 0.1, limit: null, inf_values: null,
     mujoco: {qvel: [elbow, x]},
     ros: {topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["velocity[elbow]", "velocity[x]"], required_values: {}}}
action:
  - {name: arm, size: 1, unit: rad, frame: arm, scale: 0.5, offset: 0.2, limit: [-0.3, 0.9],
     smoothing_time: 0.0, rate_limit: 4.0, tracking: null, safe_command: [0.2],
     mujoco: {actuators: [bend]},
     ros: {topic: arm, type: std_msgs/msg/Float64, fields: [data], required_values: {}}}
  - {name: drive, size: 2, unit: m/s, frame: base, scale: -0.8, offset: 0.0, limit: [-0.8, 0.7],
     smoothing_time: 0.0, rate_limit: 2.0, tracking: null, safe_command: [0.0, 0.0],
     mujoco: {actuators: [go_x, go_y]},
     ros: {topic: cmd_vel, type: geometry_msgs/msg/Twist, fields: [linear.x, linear.y],
           required_values: {}}}
"""


def odd_robot(folder: Path) -> Robot:
    """A robot with all that omni lacks: sensors, joints out of order, noise, clip, offset."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "robot.yaml").write_text(ODD_ROBOT)
    (folder / "model.xml").write_text(ODD_MODEL)
    return load_robot(str(folder))


def odd_interface() -> Interface:
    """Of that robot, without its files."""
    data = yaml.safe_load(ODD_ROBOT)
    del data["schema"]
    return interface_from_dict(data, "odd")


def lacks(interface: Interface, family: type[TaskFamily]) -> list[str]:
    """Observation terms that the family needs and the robot does not have, or in another size."""
    have = {term.name: term.size for term in interface.observation}
    need = getattr(family, "term_sizes", {})
    missing = [name for name in family.requires if name not in have]
    return missing + [name for name, size in need.items() if have.get(name, size) != size]
