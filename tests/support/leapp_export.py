"""Exports a small policy of the Go2 with LEAPP, as Isaac Lab's exporter annotates it.

Run with the package `leapp` 0.7.2 and torch installed:
`python -m tests.support.leapp_export tests/support/foreign_policies/leapp`. The network has random
weights. Names, kinds, order of the joints, quaternion, feedback and gains are those that
`isaaclab.utils.leapp` writes for a velocity task.
"""

import shutil
import sys
from pathlib import Path

TASK = "Velocity-Flat-Go2"
# Isaac Lab has the joints of all legs side by side.
JOINTS = [
    f"{leg}_{part}_joint" for part in ("hip", "thigh", "calf") for leg in ("FL", "FR", "RL", "RR")
]
DEFAULT = [position for position in (0.0, 0.8, -1.5) for _ in range(4)]  # rad
SCALE = [scale for scale in (0.125, 0.25, 0.25) for _ in range(4)]  # rad per unit of the output
STIFFNESS, DAMPING = 20.0, 0.5  # N m/rad, N m s/rad
FREQUENCY = 50  # Hz
# Per export: where the direction of gravity comes from, and LEAPP's way to write ONNX.
EXPORTS = {
    "go2_orientation": ("robot_root_quat_w", "onnx-dynamo"),
    "go2_gravity": ("robot_projected_gravity_b", "onnx-torchscript"),
}


def export(folder: Path, name: str, gravity_from: str, backend: str) -> None:
    """Write `name` with its YAML, ONNX and initial values into a folder."""
    import leapp
    import torch
    from leapp import GraphConfigs, InputKindEnum, OutputKindEnum, TensorSemantics, annotate

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(45, 24), torch.nn.ELU(), torch.nn.Linear(24, 12)
    ).requires_grad_(False)
    network[2].weight *= 0.5
    default, scale = torch.tensor([DEFAULT]), torch.tensor([SCALE])

    def state(prop, value, kind, names):
        """An input that is read from the robot, as `TracedProxyArray` annotates it."""
        connection = {"isaaclab_connection": f"state:robot:{prop}"}
        given = TensorSemantics(f"robot_{prop}", value, kind, names, extra=connection)
        return annotate.input_tensors(TASK, given)

    def write(label, value, kind, method):
        connection = {"isaaclab_connection": f"write:robot:{method}"}
        return TensorSemantics(label, value, kind, JOINTS, extra=connection)

    def projected_gravity():
        """The observation term, as `_wrap_projected_gravity` has it."""
        if gravity_from == "robot_projected_gravity_b":
            value = torch.tensor([[0.0, 0.0, -1.0]])
            return state("projected_gravity_b", value, InputKindEnum.VECTOR3D, ["x", "y", "z"])
        value, names = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), ["qx", "qy", "qz", "qw"]
        quaternion = state("root_quat_w", value, InputKindEnum.BODY_ROTATION, names)
        down = torch.zeros((*quaternion.shape[:-1], 3))
        down[..., 2] = -1.0
        xyz, w = quaternion[..., :3], quaternion[..., 3:4]
        t = torch.cross(xyz, down, dim=-1) * 2.0
        return down - w * t + torch.cross(xyz, t, dim=-1)

    leapp.start(name, save_path=str(folder), max_cached_io=2)
    action = torch.zeros(1, 12)
    for _ in range(2):
        velocity = state(
            "root_ang_vel_b", torch.zeros(1, 3), InputKindEnum.BODY_ANGULAR_VELOCITY, [*"xyz"]
        )
        gravity = projected_gravity()
        command = annotate.input_tensors(
            TASK,
            TensorSemantics(
                "base_velocity",
                torch.zeros(1, 3),
                InputKindEnum.COMMAND_BODY_VELOCITY,
                ["lin_vel_x", "lin_vel_y", "ang_vel_z"],
                extra={"isaaclab_connection": "command:base_velocity"},
            ),
        )
        position = state("joint_pos", default.clone(), InputKindEnum.JOINT_POSITION, JOINTS)
        speed = state("joint_vel", torch.zeros(1, 12), InputKindEnum.JOINT_VELOCITY, JOINTS)
        last = annotate.state_tensors(TASK, {"last_action": action})
        parts = [velocity * 0.25, gravity, command, position - default, speed * 0.05, last]
        action = torch.clamp(network(torch.cat(parts, dim=-1)), -100.0, 100.0).clone()
        target = action * scale + default
        annotate.update_state(TASK, {"last_action": action})
        gains = [
            write(
                "joint_pos_kp_gains",
                torch.full((1, 12), STIFFNESS),
                OutputKindEnum.KP,
                "write_joint_stiffness_to_sim_index",
            ),
            write(
                "joint_pos_kd_gains",
                torch.full((1, 12), DAMPING),
                OutputKindEnum.KD,
                "write_joint_damping_to_sim_index",
            ),
        ]
        annotate.output_tensors(
            TASK,
            [
                write(
                    "joint_pos",
                    target.clone(),
                    OutputKindEnum.JOINT_POSITION,
                    "set_joint_position_target_index",
                )
            ],
            static_outputs=gains,
            export_with=backend,
        )
    leapp.stop()
    leapp.compile_graph(visualize=False, graph_configs=GraphConfigs(frequency=FREQUENCY))


def main(folder: Path) -> None:
    """Write all exports, without LEAPP's log."""
    for name, (gravity_from, backend) in EXPORTS.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        export(folder, name, gravity_from, backend)
        for log in (folder / name).glob("log*"):
            shutil.rmtree(log) if log.is_dir() else log.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
