"""The mirror image of a training's observations and actions, and of which steps it holds.

A step of a task that is its own mirror image, seen in the mirror, is a step of the same task: the
same skill may learn from it. Of other hidden tasks it is a step of another task, which a skill of
its own may serve: these steps are not mirrored. Skills that see which task counts are one policy
for both tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.config import TrainConfig
from policies.mlsh.networks import Normalizer
from sim.errors import UserError, short
from sim.interface.mirror import ElementMirror, TermMirror
from sim.physics.mirror_check import check_mirror
from sim.physics.robot_model import Robot
from sim.tasks.base import HasMirror, TaskFamily

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Symmetry:
    """Mirror images in a training.

    Attributes:
        observation: of observations as the interface has them.
        action: of actions.
        tasks: (tasks,) True for tasks whose steps the same skill may learn from in the mirror.
    """

    observation: ElementMirror
    action: ElementMirror
    tasks: NDArray[np.bool_]

    def normalized(self, x: Float32, normalizer: Normalizer) -> Float32:
        """Mirror images of normalized observations (..., O), normalized likewise."""
        shift, scale = normalizer.shift_and_scale
        mirror = self.observation
        factor = mirror.signs * scale / scale[mirror.order]
        constant = (mirror.signs * shift[mirror.order] - shift) * scale
        image = np.clip(
            x[..., mirror.order] * factor + constant, -Normalizer.CLIP, Normalizer.CLIP
        )
        return np.asarray(image, np.float32)


def find_symmetry(config: TrainConfig, robot: Robot, family: TaskFamily) -> Symmetry | None:
    """The mirror images that a training uses; None if it uses none.

    Raises:
        UserError: the robot states none or one that does not hold, or the family states none and
            skills are to learn from mirrored steps; or with settings that have no effect.
    """
    how, where = config.regularization.symmetry, "regularization.symmetry"
    if how == "none":
        return None
    if robot.mirror is None:
        raise UserError(
            f"{where} {how}: robot {robot.name!r} states no mirror image; the key `mirror` of its "
            f"robot.yaml does, or set {where} to none"
        )
    stated = isinstance(family, HasMirror)
    if how == "augmentation" and not stated:
        raise UserError(
            f"{where} {how}: task family {family.name!r} states no mirror image of its tasks "
            "(`mirrored_tasks`); with `loss` every skill is made symmetric by itself"
        )
    interface = robot.interface.with_terms(family.terms)
    more = family.mirror if isinstance(family, HasMirror) else {}
    for name, image in more.items():
        if not isinstance(image, TermMirror):
            raise UserError(
                f"task family {family.name!r}: mirror of {name!r} is no TermMirror: {short(image)}"
            )
    named = f"robot {robot.name!r}: mirror"
    mirror = robot.mirror.of_observation(interface, more, named)
    action = robot.mirror.of_action(interface, named)
    check_mirror(robot, robot.mirror)
    tasks = _symmetric_tasks(config, family)
    if not tasks.any():
        raise UserError(
            f"{where} {how}: no task of family {family.name!r} is its own mirror image, and the "
            "skills do not see which one counts: nothing could be mirrored. Valid: none"
        )
    return Symmetry(mirror, action, tasks)


def _symmetric_tasks(config: TrainConfig, family: TaskFamily) -> NDArray[np.bool_]:
    count = len(family.tasks)
    if not isinstance(family, HasMirror):
        return np.ones(count, bool)
    images = np.array(family.mirrored_tasks, np.intp)
    whole = np.arange(count)
    if images.shape != (count,) or not np.isin(images, [-1, *whole]).all():
        raise _wrong(family, f"are {family.mirrored_tasks}, of tasks 0 to {count - 1}, -1 is none")
    known = images >= 0
    if (images[images[known]] != whole[known]).any():
        raise _wrong(family, f"{family.mirrored_tasks} are no pairs")
    hidden = config.network.hidden_from_skills
    if family.shows_task and not any(term.name in hidden for term in family.terms):
        return np.ones(count, bool)
    return np.asarray(images == whole)


def _wrong(family: TaskFamily, text: str) -> UserError:
    return UserError(f"task family {family.name!r}: mirrored_tasks {text}")
