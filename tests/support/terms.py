"""Terms of an interface, made by hand."""

from sim.interface import (
    ActionTerm,
    MujocoActuators,
    MujocoState,
    ObservationTerm,
    RosField,
)


def term(name, topic, kind, fields, inf_values=None):
    return ObservationTerm(
        name=name,
        size=len(fields),
        unit="m",
        frame="odom",
        scale=1.0,
        clip=None,
        noise=0.0,
        max_age=0.5,
        limit=None,
        inf_values=inf_values,
        mujoco=MujocoState(task=name),
        ros=RosField(topic=topic, type=kind, fields=tuple(fields), required_values=()),
    )


def action_term(name, topic, kind, fields):
    return ActionTerm(
        name=name,
        size=len(fields),
        unit="m/s",
        frame="base_link",
        scale=1.0,
        offset=0.0,
        limit=(-1.0, 1.0),
        smoothing_time=0.0,
        rate_limit=5.0,
        tracking=None,
        safe_command=(0.0,) * len(fields),
        mujoco=MujocoActuators(tuple(f"{name}_{i}" for i in range(len(fields)))),
        ros=RosField(topic=topic, type=kind, fields=tuple(fields), required_values=()),
    )


JOINTS = term(
    "joints", "joint_states", "sensor_msgs/msg/JointState", ["position[a]", "position[b]"]
)
