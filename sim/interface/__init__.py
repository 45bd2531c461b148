"""The interface of a robot: the one place where fields become observations and actions commands.

Training, evaluation, sim_node and skill_node all call `Interface.observe` and
`Interface.command`; nothing else in the project builds an observation or a command.
numpy and pydantic only: this package runs on the robot's own computer.

interface.py      `Interface`: all terms in vector order, and the two functions
terms.py          one term of an observation or an action
term_sources.py   its places in MuJoCo and in ROS
computed.py       terms that no sensor measures: previous action, constants, history
memory.py         values of earlier ticks that an observation needs
start_pose.py     the pose in which a robot begins
rays.py           a fan of rays, as in a LaserScan
orientation.py    quantities that are computed from a quaternion (the key `derive`)
validators.py     checks of the numbers in robot.yaml
names.py          checks of the names in robot.yaml
path_term.py      the term that draws the path of a robot
message_paths.py  field paths into ROS messages
"""

from sim.interface.computed import Constant, History, PreviousAction
from sim.interface.interface import Interface, interface_from_dict, interface_to_dict
from sim.interface.memory import ObservationMemory
from sim.interface.message_paths import Path, Step, element_path, parse_path, path_text
from sim.interface.names import Label, RobotName, Text
from sim.interface.orientation import DERIVED, fold, is_unit
from sim.interface.path_term import PATH_TERMS, path_fields, path_term
from sim.interface.rays import LASER_SCAN, Rays
from sim.interface.start_pose import StartPose, StartTerm
from sim.interface.term_sources import MujocoActuators, MujocoState, RosField, same_value
from sim.interface.terms import ActionTerm, ObservationTerm, Tracking
from sim.interface.validators import (
    LARGEST,
    STRICT,
    Floats,
    Integer,
    NonNegative,
    NonZero,
    Number,
    Positive,
    Range,
    Ranges,
    Setting,
    Whole,
    exceeds,
    ranges,
    spread,
    spread_range,
)

__all__ = [
    "DERIVED",
    "LARGEST",
    "LASER_SCAN",
    "PATH_TERMS",
    "STRICT",
    "ActionTerm",
    "Constant",
    "Floats",
    "History",
    "Integer",
    "Interface",
    "Label",
    "MujocoActuators",
    "MujocoState",
    "NonNegative",
    "NonZero",
    "Number",
    "ObservationMemory",
    "ObservationTerm",
    "Path",
    "Positive",
    "PreviousAction",
    "Range",
    "Ranges",
    "Rays",
    "RobotName",
    "RosField",
    "Setting",
    "StartPose",
    "StartTerm",
    "Step",
    "Text",
    "Tracking",
    "Whole",
    "element_path",
    "exceeds",
    "fold",
    "interface_from_dict",
    "interface_to_dict",
    "is_unit",
    "parse_path",
    "path_fields",
    "path_term",
    "path_text",
    "ranges",
    "same_value",
    "spread",
    "spread_range",
]
