"""Laws of the HTML report. Its looks are judged by eye."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mlsh_ros.cli.evaluate import show
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.number_format import parameters
from mlsh_ros.evaluation.report.plots import places_of, route_of, runs, skill_colors
from mlsh_ros.evaluation.report.report import render, write_report
from mlsh_ros.evaluation.report.verdict import verdict
from mlsh_ros.evaluation.scores import Evaluation, summarize
from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.golden import Golden
from policies.bundle.manifest import Family, Manifest, Master, Provenance, Score
from policies.bundle.task_compatibility import resolve_task
from policies.mlsh.config import config_to_dict
from policies.mlsh.presets import default_config
from policies.mlsh.skill_metrics import min_skill_distance
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.goals import goals_term
from sim.tasks.registry import find_task, make_family
from sim.tasks.task_id import TaskId

N, TICKS, SEED = 10, 50, 3
HOSTILE = "</td><script>alert('x')</script>&\"$\\frac"
VOID = {"meta", "br"}


def make_bundle(skills=2):
    family, _ = find_task(TaskId("moving_bandits", "goal-0"))
    provenance = Provenance(
        command="mlsh train moving_bandits --seed 0 <x>",
        seed=0,
        steps=1_500_000,
        updates=300,
        config={},
        versions={"python": "3.11", "torch": "2.8"},
        commit=None,
    )
    score = Score(value=37.0, random=3.0, task_blind=20.0, optimum=38.0, episodes=100)
    names = tuple(f"skill-{k}" for k in range(skills))
    manifest = Manifest(
        schema=2,
        name="demo",
        interface=load_robot("omni").interface.with_terms(family.terms),
        family=Family("moving_bandits", {}),
        decision_ticks=N,
        decision_lead=0,
        skills=names,
        skill_limits={},
        masters={
            f"goal-{i}": Master(f"moving_bandits/goal-{i}", score, provenance) for i in (0, 1)
        },
        provenance=provenance,
        files={f"skills/{k}.onnx": f"{k:064x}" for k in range(skills)},
        digest="5ca1ab1e" * 8,
    )
    empty = np.zeros((0, 0), np.float32)
    return Bundle(manifest, {}, Golden(empty, empty, {}, {}), Path("demo"))


def drive(task, master, number, *, clock=False, wrong=0, late=0, missed=0):
    """A point that goes to the goal that counts, the first `wrong` decisions to the other one."""
    family, index = find_task(TaskId.parse(task))
    layout = family.reset(index, episode_rng(SEED, number))
    slot, goals = int(layout["slot"]), layout["goals"]
    rng = np.random.default_rng([index, number])
    skill = np.repeat([1 - slot] * wrong + [slot] * (TICKS // N - wrong), N)
    position, velocity, path = np.zeros(2), np.zeros(2), []
    for k in skill:
        path.append(np.concatenate([position, velocity, goals.ravel()]))
        velocity = 0.7 * velocity + 0.3 * np.clip(4 * (goals[k] - position), -1, 1)
        position = position + 0.1 * velocity + rng.normal(0, 0.004, 2)
    reach = np.array([row[:2] for row in path[1:]] + [position]) - goals[slot]
    reward = (np.linalg.norm(reach, axis=1) < family.radius).astype(float)
    return Episode(
        task=task,
        master=master,
        number=number,
        observation=np.array(path, np.float32),
        skill=skill,
        action=np.zeros((TICKS, 2), np.float32),
        command=np.zeros((TICKS, 2)),
        reward=reward,
        success=bool(reward[-1]),
        late=late,
        lateness=np.abs(rng.standard_t(3, TICKS)) * 2e-4 if clock else None,
        compute=1e-3 + rng.gamma(2, 2e-4, TICKS) if clock else None,
        missed=missed if clock else None,
    )


def evaluate(*, episodes=8, clock=False, late=0, skills=2, **missed):
    tasks = [(f"moving_bandits/goal-{i}", f"goal-{i}") for i in (0, 1)]
    driven = [
        drive(
            task,
            master,
            n,
            clock=clock,
            wrong=(n % 7 == 5) * (1 + n % 3),
            late=late * (n == 5),
            **missed,
        )
        for task, master in tasks
        for n in range(episodes)
    ]
    cases = resolve_cases(make_bundle(skills))
    return summarize(cases, "ros-realtime" if clock else "sim", SEED, driven)


@pytest.fixture(scope="module")
def offline() -> Evaluation:
    return evaluate()


@pytest.fixture(scope="module")
def timed() -> Evaluation:
    return evaluate(clock=True, late=1)


@pytest.fixture(scope="module")
def offline_page(offline) -> str:
    """Drawn once for all that only read it."""
    return render(offline)


@pytest.fixture(scope="module")
def timed_page(timed) -> str:
    return render(timed)


def test_the_reference_page_has_the_keys_of_the_report(offline):
    """Those of the whole, of a task, of its reference returns and of a family, in this order."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "report-json.md").read_text()
    tables = [
        re.findall(r"^\| `(\w+)` \|", part, re.M) for part in text.split("| --- | --- |")[1:]
    ]
    data = json.loads(json.dumps(offline.to_dict()))
    task, family = data["tasks"][0], data["sharing"][0]
    assert tables == [list(data), list(task), list(task["reference_returns"]), list(family)]


@pytest.mark.parametrize("episodes", [1, 2])
def test_a_single_return_has_no_deviation(episodes, capsys):
    found = evaluate(episodes=episodes)
    (line, *_) = found.lines
    assert (line.return_deviation is None) == (episodes == 1)
    assert found.to_dict()["tasks"][0]["return_deviation"] == line.return_deviation
    show(found)
    assert ("±" in capsys.readouterr().out) == ("±" in render(found)) == (episodes > 1)


def rename(evaluation, task, master):
    """The same results under other names for the first task."""
    old = evaluation.lines[0].task
    lines = [
        replace(x, task=task, master=master) if x.task == old else x for x in evaluation.lines
    ]
    episodes = [
        replace(e, task=task, master=master) if e.task == old else e for e in evaluation.episodes
    ]
    return replace(evaluation, lines=lines, episodes=episodes)


class Page(HTMLParser):
    """Elements of a page; fails where one is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_needs_no_network(timed_page):
    text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", timed_page)
    assert not re.search(r"https?:|//[a-z]|\bsrc=|@import|<link", text)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "default-src 'none'" in text


def test_same_evaluation_gives_same_bytes(tmp_path, timed, timed_page):
    write_report(timed, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == timed_page.encode()
    assert render(evaluate(clock=True, late=1)) == timed_page


def test_matplotlibrc_changes_nothing(offline, offline_page):
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "svg.hashsalt": None}):
        before = dict(matplotlib.rcParams)
        assert render(offline) == offline_page
        assert dict(matplotlib.rcParams) == before


def test_is_well_formed_with_ids_used_once(timed_page):
    page = Page(timed_page)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_hostile_names_stay_text(offline, offline_page):
    text = render(rename(offline, HOSTILE, HOSTILE))
    page, plain = Page(text), Page(offline_page)
    assert page.tags.count("script") == plain.tags.count("script") == 1
    assert HOSTILE in page.text
    assert HOSTILE not in text


def test_names_that_utf8_cannot_say_are_written(tmp_path, offline):
    write_report(rename(offline, "bad\udcff/name", "m"), tmp_path / "r.html")
    assert "bad?/name" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_offline_has_no_clock_and_says_so(offline_page, timed_page):
    assert "An offline evaluation does not run in real time" in offline_page
    assert "p99" not in offline_page
    assert "does not run in real time" not in timed_page
    assert {"late p99", "compute p50", "compute p99"} <= set(Page(timed_page).text)


@pytest.mark.parametrize("count", [1, 2, 6, 13])
def test_every_skill_has_a_color_of_its_own_that_occurs(count):
    colors = skill_colors(count)
    assert len(set(colors)) == count
    text = render(evaluate(episodes=2, skills=max(2, count)))
    assert all(text.count(color) >= 3 for color in colors)  # table and two legends


def test_drawings_use_the_colors_of_the_skills_that_drove(offline_page):
    drawings = re.findall(r"<svg.*?</svg>", offline_page, flags=re.DOTALL)
    colored = [d for d in drawings if "Path of" in d or "Active skill" in d]
    assert len(colored) == 2 * 6 + 2
    both = [d for d in colored if "Active skill" in d]
    assert all(color in d for d in both for color in skill_colors(2))


def test_a_skill_has_the_same_color_in_every_drawing():
    evaluation = evaluate(episodes=1, skills=13)
    driven = [replace(e, skill=np.full(TICKS, 7)) for e in evaluation.episodes]
    drawings = re.findall(
        r"<svg.*?</svg>", render(replace(evaluation, episodes=driven)), flags=re.DOTALL
    )
    colored = [d for d in drawings if "Path of" in d or "Active skill" in d]
    assert len(colored) == 4
    assert all(skill_colors(13)[7] in d for d in colored)


def test_goal_that_counts_is_known_only_where_the_goals_are_the_ones_seen(offline, offline_page):
    bundle = offline.bundle
    by_task = {e.task: e for e in offline.episodes}
    found = {task: route_of(e, bundle, SEED).counts for task, e in by_task.items()}
    assert found == {"moving_bandits/goal-0": 0, "moving_bandits/goal-1": 1}
    episode = offline.episodes[0]
    assert route_of(episode, bundle, SEED + 1).counts is None
    assert route_of(replace(episode, task="unheard/of"), bundle, SEED).counts is None
    assert "the rewarded goal" in offline_page
    assert "the rewarded goal" not in render(replace(offline, seed=SEED + 1))


def test_places_have_the_coordinates_that_their_term_names():
    """Six numbers are two places in space, or three in the plane; seven are none."""
    row = np.arange(6.0)
    space, plane = goals_term(2, "base_link", axes="xyz"), goals_term(3, "base_link")
    np.testing.assert_array_equal(places_of(space, row), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(places_of(plane, row), [[0, 1], [2, 3], [4, 5]])
    assert len(places_of(plane, np.zeros(7))) == len(places_of(space, np.zeros(7))) == 0


def test_positions_are_drawn_in_their_unit(offline):
    manifest = offline.bundle.manifest
    scaled = [
        replace(t, scale=2.0) if t.name == "position" else t
        for t in manifest.interface.observation
    ]
    interface = replace(manifest.interface, observation=tuple(scaled))
    bundle = replace(offline.bundle, manifest=replace(manifest, interface=interface))
    episode = offline.episodes[0]
    np.testing.assert_allclose(
        route_of(episode, bundle, SEED).position, episode.observation[:, :2] / 2
    )


def test_a_robot_without_position_has_no_paths(offline):
    manifest = offline.bundle.manifest
    terms = [
        replace(t, name="place") if t.name == "position" else t
        for t in manifest.interface.observation
    ]
    manifest = replace(manifest, interface=replace(manifest.interface, observation=tuple(terms)))
    text = render(replace(offline, bundle=replace(offline.bundle, manifest=manifest)))
    assert "so no paths are drawn" in text
    assert "Path of" not in text


def test_runs_are_the_stretches_of_one_skill():
    assert runs(np.array([1, 1, 0, 0, 0, 1])) == [(0, 2, 1), (2, 5, 0), (5, 6, 1)]
    assert runs(np.array([2])) == [(0, 1, 2)]


def with_scores(evaluation, *scores, worst=0.61):
    """Lines whose normalized score and worst episode are the given ones; random 0, optimum 100."""
    from sim.envs.reference_returns import ReferenceReturns

    bounds = ReferenceReturns(random=0.0, task_blind=50.0, optimum=100.0)
    line = evaluation.lines[0]
    lines = [
        replace(
            line,
            task=f"t/{i}",
            return_mean=100 * s,
            return_worst=100 * worst,
            reference_returns=bounds,
        )
        for i, s in enumerate(scores)
    ]
    return replace(evaluation, lines=lines)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (
            (0.97, 0.98),
            "Both tasks are solved at 97 to 98 % of the optimum; the worst episode reached",
        ),
        ((0.97,), "The task is solved at 97 % of the optimum"),
        ((0.97, 0.97, 0.99), "All 3 tasks are solved at 97 to 99 % of the optimum"),
        ((0.6,), "The task reaches 60 % of the optimum"),
        ((0.6, 0.95), "1 of 2 tasks reaches 90 % of the optimum, the scores are 60 to 95 %"),
        ((0.4, 0.5), "None of 2 tasks reaches 90 % of the optimum, the scores are 40 to 50 %"),
        ((0.4, 0.5), "Over t it is no better than a controller that ignores the task."),
    ],
)
def test_verdict_in_plain_words(offline, scores, expected):
    text = verdict(with_scores(offline, *scores)).replace("\u00a0", " ")
    assert expected in text
    assert "the worst episode reached 61 %" in text


def shared(evaluation, *usage, value=1.0):
    """Tasks at `value` of the optimum, each with such a usage of the two skills."""
    made = with_scores(evaluation, *[value] * len(usage))
    lines = [replace(x, usage=u) for x, u in zip(made.lines, usage, strict=True)]
    episodes = [replace(evaluation.episodes[0], task=line.task) for line in lines]
    return replace(made, lines=lines, episodes=episodes)


def sharing_section(evaluation):
    """The section of the page on how tasks share the skills."""
    _, title, rest = render(evaluation).partition("<h2>Skills and tasks</h2>")
    assert title
    return rest.partition("</section>")[0]


def test_what_tasks_have_of_the_skills(offline):
    # Two skills that divide two tasks: 1 bit. Half of the time on one of them: the skills' share
    # over both is (3/4, 1/4), H = 0.811; of the tasks H = 0 and 1; 0.811 - 0.5 = 0.311.
    divided = shared(offline, (1.0, 0.0), (0.0, 1.0)).sharing
    assert [(s.family, s.tasks, s.possible) for s in divided] == [("t", 2, 1.0)]
    assert divided[0].mutual_information == pytest.approx(1.0)
    (partly,) = shared(offline, (1.0, 0.0), (0.5, 0.5)).sharing
    assert partly.mutual_information == pytest.approx(0.311, abs=1e-3)
    assert shared(offline, (1.0, 0.0)).sharing == []  # one task
    assert "needs at least two tasks" in sharing_section(shared(offline, (1.0, 0.0)))


def test_collapse_in_plain_words(offline):
    one, apart = [(1.0, 0.0)] * 2, [(1.0, 0.0), (0.0, 1.0)]
    told = "On t the skills have collapsed (masters choose alike on all tasks, 0.00 of 1.00 bits)"
    good, bad = shared(offline, *one, value=0.95), shared(offline, *one, value=0.1)
    collapsed = replace(good, lines=[good.lines[0], bad.lines[1]])
    assert told in verdict(collapsed)
    assert "t/1 at 10 %" in verdict(collapsed)
    assert "t/0 at" not in verdict(collapsed)
    assert "0.00 of 1.00 bits" in Page(sharing_section(collapsed)).text
    # Alike but good, or poor but apart, or changing within an episode, is no collapse.
    fine = shared(offline, *one, value=0.8)
    assert "all tasks are served" in Page(sharing_section(fine)).text
    assert "On t" not in verdict(fine)
    assert "On t not learned yet: t/0 at 60 %" in verdict(shared(offline, *apart, value=0.6))
    switching = shared(offline, *[(0.5, 0.5)] * 2, value=0.6)
    assert "On t no skill alone is enough" in verdict(switching)
    # With the settings of the training it says what to try.
    manifest = offline.bundle.manifest
    settings = config_to_dict(replace(default_config("moving_bandits", "omni"), seed=0))
    origin = replace(manifest.provenance, config=settings)
    bundle = replace(offline.bundle, manifest=replace(manifest, provenance=origin))
    assert "Try --set mlsh." in verdict(replace(collapsed, bundle=bundle))
    assert "Try" not in verdict(collapsed)


def test_an_evaluations_json_has_it_too(offline):
    data = offline.to_dict()
    (entry,) = data["sharing"]
    assert entry["family"] == "moving_bandits"
    assert 0.5 < entry["mutual_information"] <= entry["possible"] == 1.0
    assert data["skill_distance"] is None  # a bundle without graphs
    told = f"{entry['mutual_information']:.2f} of {entry['possible']:.2f} bits"
    assert told in sharing_section(offline)


def test_distance_of_skills():
    def skill(*action):
        return lambda obs: np.tile(np.array(action, np.float32), (len(obs), 1))

    seen = np.zeros((3, 4), np.float32)
    # Beyond the limits nothing counts: (1, 1) and (-1, -1) differ by 2, half of which is 1.
    assert min_skill_distance([skill(5, 1), skill(-1, -9)], seen) == 1.0
    # The nearest pair: (0, 0) and (1, 0): sqrt(1 / 2) / 2.
    near = min_skill_distance([skill(1, 0), skill(-1, 1), skill(0, 0)], seen)
    assert near == pytest.approx(np.sqrt(0.5) / 2)
    assert min_skill_distance([skill(1, 0)], seen) == 0.0


def test_a_bundles_skills_are_compared_on_what_was_seen(offline):
    shipped = load_bundle("moving_bandits")
    evaluation = summarize(resolve_cases(shipped), "sim", SEED, offline.episodes)
    assert 0.2 < evaluation.distance < 1  # each drives to a goal of its own
    told = f"The distance of the two most similar skills is {evaluation.distance:.2f}"
    assert told in sharing_section(evaluation)


def test_a_bundle_is_measured_on_the_family_that_it_was_trained_on(capsys):
    shipped = load_bundle("moving_bandits")
    with pytest.raises(UserError, match="nothing was driven"):
        summarize(resolve_cases(shipped), "sim", SEED, [])
    # held_out says what training did not see, not what there is.
    family = Family("moving_bandits", {"ticks": 20, "held_out": 1})
    own = replace(shipped, manifest=replace(shipped.manifest, family=family))
    cases = resolve_cases(own, master="goal-1")
    episodes = run_offline(cases, episodes=2, seed=SEED)
    assert [len(episode.skill) for episode in episodes] == [20, 20]
    result = summarize(cases, "sim", SEED, episodes)
    assert 0 < result.lines[0].reference_returns.optimum <= 20  # 1 per tick at best
    assert result.to_dict()["family_parameters"] == {"moving_bandits": {"ticks": 20}}
    show(result)
    said = "moving_bandits as the bundle was trained: ticks 20"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in render(result)
    # Another family has its own parameters.
    other = TaskId("ring_bandits", "sector-0")
    assert resolve_task(own, other) == find_task(other)


def test_verdict_counts_late_decisions(offline, timed):
    # 16 episodes of 50 ticks, a decision every 10: 80 decisions; one was late in each episode 5.
    assert verdict(timed).endswith("2 of 80 decisions came late. No tick was missed.")
    single = verdict(evaluate(episodes=1, clock=True))
    assert single.endswith("No decision came late. No tick was missed.")
    missed = evaluate(episodes=4, clock=True, missed=3)
    assert verdict(missed).endswith("No decision came late. 24 of 424 ticks were missed.")
    assert [line.punctuality for line in missed.lines] == [
        f"moving_bandits/goal-{i}: 12 of 212 ticks were missed" for i in (0, 1)
    ]
    assert [line["missed_ticks"] for line in missed.to_dict()["tasks"]] == [12, 12]
    offline = evaluate(episodes=4)
    assert [(line.missed_ticks, line.punctuality) for line in offline.lines] == [(None, "")] * 2
    assert verdict(offline).endswith("Offline, no decision can be late.")


def test_nothing_driven_is_a_report_too(offline):
    text = render(replace(offline, lines=[], episodes=[]))
    assert "No episode was driven." in text
    Page(text)


@pytest.mark.parametrize("name", ["file/report.html", "."])
def test_unwritable_path_is_one_line(tmp_path, offline, name):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"could not be written|is a folder") as caught:
        write_report(offline, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_of_two_masters_for_a_task_the_better_one_counts(offline):
    """Two skills divide two tasks: one bit, however many masters each task has."""
    made = shared(offline, (1.0, 0.0), (0.0, 1.0), value=0.95)
    worse = [
        replace(line, master="other", return_mean=0.1 * line.return_mean, usage=(0.5, 0.5))
        for line in made.lines
    ]
    both = replace(made, lines=[*made.lines, *worse])
    (found,) = both.sharing
    assert found.mutual_information == pytest.approx(1.0) == found.possible
    assert "Both tasks are solved" in verdict(both)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"radius": 0.5, "slots": 3}, ["radius 0.5", "slots 3"]),
        ({"rewards": {"alive": 2.0, "kernel": {"width": 1e-7}}},
         ["rewards.alive 2", "rewards.kernel.width 1e-07"]),
        ({"rewards": {}, "shown": True, "names": ("a", "b"), "file": None},
         ["rewards none", "shown True", "names ('a', 'b')", "file None"]),
    ],
)  # fmt: skip
def test_parameters_of_any_kind_are_said(values, expected):
    assert parameters(values) == expected


def test_changed_reward_weights_are_a_part_of_the_report(offline):
    name = "velocity_commands"
    default = make_family(name)
    first = next(iter(default.rewards.to_dict()))
    family = Family(name, {"rewards": {first: 0.125}})
    bundle = replace(offline.bundle, manifest=replace(offline.bundle.manifest, family=family))
    line = replace(offline.lines[0], task=f"{name}/{default.tasks[0]}")
    evaluation = replace(offline, bundle=bundle, lines=[line])
    assert evaluation.changed[name]["rewards"][first] != default.rewards.to_dict()[first]
    (change,) = evaluation.changes
    assert change.startswith(f"{name} as the bundle was trained: rewards.{first}")
    assert "0.125" in change
