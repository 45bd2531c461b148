"""Which options of `mlsh finetune` go together, and what follows from them."""

import itertools

import pytest

from policies.training.adapt import OFF_POLICY_EPISODES
from policies.training.finetune_plan import SIMULATED, UNFREEZING, plan_of
from sim.errors import UserError

OPTIONS = ("learner", "from_recording", *SIMULATED, *UNFREEZING)


def plan(*given, learner=None, episodes=None, starts=False, unfreezes=False, topic=False):
    return plan_of(
        given,
        learner=learner,
        updates=7,
        episodes=episodes,
        baseline=True,
        starts_from_master=starts,
        unfreezes=unfreezes,
        reads_topic=topic,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("q", 7, OFF_POLICY_EPISODES, True)),
        ({"episodes": 9}, ("q", 7, 9, True)),
        ({"starts": True}, ("ppo", 7, None, True)),
        ({"unfreezes": True}, ("ppo", 7, None, True)),
        ({"learner": "ppo", "episodes": 9}, ("ppo", 7, 9, True)),
        ({"learner": "uniform"}, ("uniform", 0, None, False)),
    ],
)
def test_the_plan_of_a_training(options, expected):
    made = plan(**options)
    assert (made.learner, made.updates, made.episodes, made.baseline) == expected


def test_recordings_are_learned_from_once_and_alone():
    made = plan("from_recording")
    assert (made.learner, made.updates, made.baseline) == ("q", 1, False)


LAWS = [
    (recorded, learner, unfreezes, topic, extra)
    for recorded, learner, unfreezes, topic in itertools.product(
        (False, True), (None, "q", "ppo", "uniform"), (False, True), (False, True)
    )
    for extra in (None, *SIMULATED, *UNFREEZING)
]


@pytest.mark.parametrize(("recorded", "learner", "unfreezes", "topic", "extra"), LAWS)
def test_an_option_without_effect_is_refused_by_its_name(
    recorded, learner, unfreezes, topic, extra
):
    given = [name for name, is_there in (("from_recording", recorded), (extra, extra)) if is_there]
    given += ["learner"] * (learner is not None)
    chosen = learner or ("ppo" if unfreezes else "q")
    simulated = not recorded and chosen != "uniform"
    void = {
        "--reward-topic": topic and not recorded,
        "--learner": recorded and learner not in (None, "q"),
        "--unfreeze": unfreezes and (chosen != "ppo" or recorded),
        f"--{str(extra).replace('_', '-')}": (extra in SIMULATED and not simulated)
        or (extra in UNFREEZING and not unfreezes),
    }
    wrong = [name for name, is_void in void.items() if is_void]
    if not wrong:
        made = plan(*given, learner=learner, unfreezes=unfreezes, topic=topic)
        assert made.learner == chosen
        assert made.baseline is simulated
        return
    with pytest.raises(UserError) as refused:
        plan(*given, learner=learner, unfreezes=unfreezes, topic=topic)
    assert str(refused.value).split(":")[0].split()[0] in wrong
