"""The pages under docs/reference that are written from the code.

`python -m tests.support.reference` writes them again; tests/docs compares them with it.
A key's meaning is the comment beside its field, or the row of the table that the field is made
of, so that it is written once.
"""

import ast
import dataclasses
import inspect
import io
import json
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter

import mlsh_ros
from mlsh_ros.bringup.graphs import GRAPHS
from mlsh_ros.bringup.params import NODES, Param
from mlsh_ros.cli import main
from mlsh_ros.cli.app import app
from mlsh_ros.cli.interrupt import INTERRUPTED
from mlsh_ros.control.faults import FAULTS
from mlsh_ros.evaluation.measured import Measured
from mlsh_ros.evaluation.scores import SCHEMA, Evaluation, SkillSharing, TaskScore
from policies.bundle import held
from policies.mlsh import config
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.mlsh.presets import default_config
from policies.skill_import import description as foreign
from policies.training.verdict import Verdict
from sim.envs.reference_returns import ReferenceReturns
from sim.interface import computed, interface, mirror, rays, start_pose, terms
from sim.physics import signals, simulation_only
from sim.physics.robot_model import load_robot
from sim.randomization import schema
from sim.tasks import rewards as package
from sim.tasks.registry import FAMILIES, make_family
from sim.tasks.rewards import TERMS, Rewards
from sim.tasks.rewards.parts import SOURCES

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PRODUCT = Path(mlsh_ros.__file__).parent
UNITS = ("true", "false", "null", "s", "m", "rad", "m/s", "rad/s")  # these stay in lower case
WRITTEN = "<!-- Written from the code by `python -m tests.support.reference`. -->"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or "-"


def _page(title: str, *parts: str) -> str:
    return "\n".join([f"# {title}\n", f"{WRITTEN}\n", *(part.strip() + "\n" for part in parts)])


# Dataclasses --------------------------------------------------------------------------------


def comments(cls: type) -> dict[str, str]:
    """What the source says beside and directly above each field of a dataclass."""
    source = inspect.getsource(cls)
    found, above, name, depth = {}, [], None, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string == "def":  # the fields come before the methods
            break
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if name is None:
                above.append(text)
            else:
                found[name] = f"{found[name]} {text}".strip()
        elif token.type == tokenize.NEWLINE:
            above, name = [], None
        elif token.type == tokenize.NL:
            if not token.line.strip():
                above = []
        elif token.type == tokenize.NAME and name is None and not depth:
            name = token.string
            found[name] = " ".join(above)
    return {f.name: found.get(f.name, "") for f in dataclasses.fields(cls)}


def kind(part: dict[str, Any], names: dict[str, str]) -> str:
    """A JSON schema in words; `names` has the words for what stands in its definitions."""
    if ref := part.get("$ref"):
        name = ref.rpartition("/")[2]
        return names.get(name, f"[{name}](#{name.lower()})")
    if "const" in part or "enum" in part:
        return ", ".join(f"`{value}`" for value in part.get("enum", [part.get("const")]))
    if choices := part.get("anyOf") or part.get("oneOf"):
        return " or ".join(dict.fromkeys(kind(each, names) for each in choices))
    sort = part.get("type", "any value")
    if sort == "array":
        if "prefixItems" in part:
            return f"[{', '.join(kind(each, names) for each in part['prefixItems'])}]"
        inner = kind(part.get("items", {}), names)
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if sort == "object":
        inner = part.get("additionalProperties")
        return f"mapping to {kind(inner, names)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "boolean": "true or false", "null": "null", "integer": "integer"}
    return words.get(sort, sort) + _bounds(part)


def _bounds(part: dict[str, Any]) -> str:
    bounds = [
        (">", "exclusiveMinimum"),
        ("≥", "minimum"),
        ("<", "exclusiveMaximum"),
        ("≤", "maximum"),
    ]
    shown = [(sign, part[key]) for sign, key in bounds if key in part]
    shown = [f"{sign} {value:g}" for sign, value in shown if abs(value) < 1e9]
    return f" {' and '.join(shown)}" if shown else ""


def keys(cls: type, names: dict[str, str]) -> str:
    """The table of a dataclass's keys."""
    whole = TypeAdapter(cls).json_schema()
    said = {} if issubclass(cls, schema.Section) else comments(cls)
    rows = []
    for field in dataclasses.fields(cls):
        part = whole["properties"][field.name]
        sort = names.get(field.name) or kind(part, names)
        required = field.name in whole.get("required", ())
        shown = "required" if required else _shown(part.get("default", {}))
        rows.append(
            (f"`{field.name}`", sort, shown, sentence(said.get(field.name) or part["description"]))
        )
    return table(("key", "value", "default", "meaning"), rows)


def _shown(value: Any) -> str:
    """A default as YAML has it; of what has keys of its own, theirs say it."""
    return "`{}`" if isinstance(value, dict) else f"`{json.dumps(value)}`"


def sentence(text: str) -> str:
    """A comment with a capital letter and a full stop."""
    if not text:
        return text
    known = text.split()[0].strip(":,.;") in UNITS
    first = text[0] if known else text[0].upper()
    return f"{first}{text[1:]}" + ("" if text.endswith(".") else ".")


def sections(classes: Iterable[tuple[type, str]], names: dict[str, str] | None = None) -> str:
    """A section with the keys of each dataclass."""
    parts = [f"## {cls.__name__}\n\n{lead}\n\n{keys(cls, names or {})}" for cls, lead in classes]
    return "\n".join(parts)


# Pages --------------------------------------------------------------------------------------


def commands() -> str:
    """cli.md."""
    tree = typer.main.get_command(app)
    index = table(
        ("command", "purpose"),
        [(f"[`mlsh {name}`](#mlsh-{name})", _first(c.help)) for name, c in tree.commands.items()],
    )
    statuses = table(
        ("exit status", "meaning"),
        [
            ("0", "The command succeeded."),
            ("1", "An input is wrong. One line on standard error names it."),
            ("2", "The command line is wrong, or a limit of `--fail-above` was exceeded."),
            (str(main.INTERNAL), "Internal error. A file that the message names has the details."),
            (str(INTERRUPTED), "Interrupted by Ctrl-C; `mlsh train` also by SIGTERM or SIGHUP."),
        ],
    )
    lead = "`mlsh COMMAND --help` prints the same text. `mlsh replay` has a further exit status, "
    lead += "see [record and replay](../record-and-replay.md)."
    parts = [_command(name, each) for name, each in tree.commands.items()]
    return _page("Command line", index, lead, statuses, *parts)


def _first(text: str | None) -> str:
    return (text or "").partition("\n\n")[0]


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(
        [f"mlsh {name}"]
        + [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
        + ["[OPTIONS]"]
    )
    rows = [
        (f"`{p.name.upper()}`", "required" if p.required else _default(p), p.help or "")
        for p in arguments
    ]
    rows += [
        (_spelled(p), "required" if p.required else _default(p), p.help or "") for p in options
    ]
    shown = table(("argument or option", "default", "meaning"), rows) if rows else ""
    return f"## mlsh {name}\n\n{command.help or ''}\n\n```text\n{usage}\n```\n\n{shown}"


def _spelled(option: Any) -> str:
    return ", ".join(f"`{word}`" for word in [*option.opts, *option.secondary_opts])


def _default(param: Any) -> str:
    value = param.default
    if value is None or value == "" or value is False or callable(value):
        return ""
    if value is True and param.secondary_opts:
        return f"`{param.opts[0]}`"
    return f"`{value}`"


def robot_yaml() -> str:
    """robot-yaml.md."""
    lead = (
        "`robot.yaml` describes the measurements of a robot and the commands that it takes. "
        "`schema: 2` is its first key. Unknown keys are refused. "
        "[Your own robot](../add-a-robot.md) writes one."
    )
    classes = [
        (interface.Interface, "The keys at the top level, beside `schema`."),
        (terms.ObservationTerm, "An entry of the list `observation`."),
        (terms.MujocoState, "`mujoco` of an observation term."),
        (rays.Rays, "`mujoco.rays` of an observation term."),
        (terms.RosField, "`ros` of an observation term or an action term."),
        (terms.ActionTerm, "An entry of the list `action`."),
        (terms.Tracking, "`tracking` of an action term."),
        (terms.MujocoActuators, "`mujoco` of an action term."),
        (computed.PreviousAction, "An entry of the list `computed`."),
        (computed.Constant, "An entry of the list `computed`."),
        (computed.History, "An entry of the list `computed`."),
        (start_pose.StartPose, "`start_pose` at the top level."),
        (start_pose.StartTerm, "An entry of the list `start_pose.measured`."),
        (
            simulation_only.SimulationOnly,
            "Further keys at the top level, which only simulation and training read: nothing of "
            "them is in a bundle.",
        ),
        (signals.Signal, "An entry of the list `signals`."),
        (mirror.Mirror, "`mirror` at the top level."),
        (mirror.TermMirror, "`mirror` of a term."),
    ]
    names = {"required_values": "mapping from path to number or text"}
    return _page("robot.yaml", lead, sections(classes, names))


def skill_description() -> str:
    """skill-description.md."""
    lead = (
        "`mlsh import-skill` reads a file that describes a policy of another trainer. "
        "`schema: 2` is its first key. [Import a policy](../import-a-policy.md) explains it."
    )
    classes = [
        (foreign.SkillDescription, "The keys at the top level, beside `schema`."),
        (foreign.Input, "An entry of the list `observation`."),
        (foreign.Output, "`action`."),
        (held.Elements, "Elements of a term, as the value of a constant in place of numbers."),
        (foreign.InputHistory, "`history`."),
        (
            foreign.LeappDescription,
            "The keys at the top level, beside `schema`, of a file that names LEAPP's YAML.",
        ),
    ]
    return _page("Description of a policy", lead, sections(classes))


def sim_params_yaml() -> str:
    """sim-params-yaml.md."""
    lead = (
        "A sim-parameter file (`--sim-params`) describes one robot: every value is a number. "
        f"`{schema.RANGES}` in a robot's folder describes a range of robots: every number may "
        "be a range `[low, high]`, from which each episode draws its own value. "
        "`schema: 2` is the first key of both. A missing key means that the value is nominal. "
        "[Simulation parameters](../sim-params.md) explains how they act."
    )
    classes = [
        (schema.SimParams, "The keys at the top level, beside `schema`."),
        (schema.Dynamics, "`physics`: bodies, joints and ground."),
        (schema.Actuator, "An entry of `actuators`, by the name of the MuJoCo actuator."),
        (schema.Sensor, "An entry of `sensors`, by the name of the observation term."),
        (schema.Imu, "`imu`: how the IMU is mounted."),
        (schema.Pushes, "`pushes`: sudden changes of the base's velocity."),
    ]
    text = sections(classes).replace("[number, number]", "number or range")
    return _page("Sim parameters and domain_randomization.yaml", lead, _nominal(text))


def _nominal(text: str) -> str:
    """A range of one value is shown as that value."""
    for value in ("0.0", "1.0"):
        text = text.replace(f"`[{value}, {value}]`", f"`{value}`")
        text = text.replace(f"[{value}, {value}]", value)
    return text


def settings() -> str:
    """config.md."""
    base = default_config("moving_bandits", "omni")
    values = config.config_to_dict(base)
    meaning = {
        f"{prefix}{name}": text
        for prefix, cls in (
            ("", config.TrainConfig),
            ("mlsh.", config.MlshConfig),
            ("master.", config.PpoConfig),
            ("skill.", config.PpoConfig),
            ("network.", config.NetworkConfig),
            ("regularization.", config.RegularizationConfig),
            ("curriculum.", config.CurriculumConfig),
            ("exploration.", config.ExplorationConfig),
        )
        for name, text in comments(cls).items()
    }
    rows = [
        (f"`{name}`", f"`{json.dumps(_value(values, name))}`", sentence(meaning.get(name, "")))
        for name in config.setting_names(base)
    ]
    lead = (
        "`config.yaml` of a run folder holds the settings of a training run. "
        "`mlsh train FAMILY --set KEY=VALUE` changes one; `mlsh train --list-settings` prints "
        "them. The defaults below are those of `moving_bandits`."
    )
    head = ("setting", "default", "meaning")
    new_tasks = (
        "## Masters for new tasks\n\n`mlsh finetune` and `mlsh eval-transfer` have these settings "
        "too, with `--learner q`, which is the default. With `--learner ppo` the section `master` "
        "counts.\n\n" + table(head, _offpolicy())
    )
    families = (
        "## Task families\n\n`family_parameters.NAME` sets a parameter of the "
        "[task family](task-families.md). These families recommend other defaults:"
    )
    parts = [f"### {name}\n\n```yaml\n{text}```" for name, text in _by_family(values)]
    return _page("Training settings", lead, table(head, rows), new_tasks, families, *parts)


def _offpolicy() -> Iterator[tuple[str, str, str]]:
    for name, text in comments(OffPolicyConfig).items():
        default = getattr(OffPolicyConfig, name)
        yield f"`offpolicy.{name}`", f"`{json.dumps(default)}`", sentence(text)


def _value(values: dict[str, Any], name: str) -> Any:
    for key in name.split("."):
        values = values[key]
    return values


def _by_family(base: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = config.setting_names(default_config("moving_bandits", "omni"))
    for family in sorted(FAMILIES):
        robot = make_family(family).robot
        values = config.config_to_dict(default_config(family, robot))
        own = [
            f"{name}: {json.dumps(_value(values, name))}\n"
            for name in names
            if name not in ("family", "robot") and _value(values, name) != _value(base, name)
        ]
        if own:
            yield family, "".join(own)


def parameters() -> str:
    """parameters.md."""
    lead = (
        "Launch arguments are given as `NAME:=VALUE` to `ros2 launch mlsh_ros robot.launch.py`, "
        "`ros2 launch mlsh_ros sim.launch.py`, `mlsh launch robot` or `mlsh launch sim`. "
        "Node parameters without a launch argument go into a parameter file (`params_file`), see "
        "`config/params.example.yaml`. Parameters marked *live* may change while the node runs."
    )
    launch = []
    for graph in GRAPHS.values():
        rows = []
        for argument in graph.arguments:
            value = "required" if argument.required else f"`{argument.default or chr(39) * 2}`"
            choices = ", ".join(f"`{c}`" for c in argument.choices)
            rows.append((f"`{argument.name}`", value, choices, argument.description))
        head = ("argument", "default", "choices", "meaning")
        launch.append(f"## {graph.name}.launch.py\n\n{table(head, rows)}")
    nodes = [
        f"## {name}\n\n{table(('parameter', 'default', 'range', 'meaning'), map(_row, params))}"
        for name, params in NODES.items()
    ]
    return _page("Launch arguments and node parameters", lead, *launch, *nodes)


def _row(param: Param) -> tuple[str, str, str, str]:
    bounds = ", ".join(f"`{c}`" for c in param.choices)
    if param.low is not None and param.high is not None:
        bounds = f"{param.low:g} to {param.high:g}"
    live = "" if param.read_only else " *Live.*"
    return f"`{param.name}`", f"`{json.dumps(param.default)}`", bounds, param.description + live


def faults() -> str:
    """faults.md."""
    lead = (
        "A fault stops the robot and stays until a person resets it. `skill_node/state` and "
        "`/diagnostics` carry its name. [Safety](../safety.md#faults) says how fast each is "
        "detected, [troubleshooting](../troubleshooting.md#faults) lists causes and remedies."
    )
    raised = raised_in()
    rows = [(f"`{name}`", meaning, raised[name]) for name, meaning in FAULTS.items()]
    return _page("Faults", lead, table(("fault", "meaning", "raised in mlsh_ros/"), rows))


def raised_in() -> dict[str, str]:
    """The files of the control package and of the nodes that have each fault's name."""
    files: dict[str, list[str]] = {name: [] for name in FAULTS}
    for path in sorted([*PRODUCT.glob("control/*.py"), *PRODUCT.glob("nodes/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in files and path.stem != "faults":
                name = str(path.relative_to(PRODUCT))
                if name not in files[node.value]:
                    files[node.value].append(name)
    return {name: ", ".join(f"`{file}`" for file in found) for name, found in files.items()}


def task_families() -> str:
    """task-families.md."""
    rows, parts = [], []
    for family, cls in sorted(FAMILIES.items()):
        made = make_family(family)
        robot = load_robot(made.robot).interface
        tasks = ", ".join(made.tasks)
        terms = ", ".join(f"`{term.name}` ({term.unit})" for term in made.terms)
        rows.append((f"[`{family}`](#{family})", f"`{robot.robot}`", tasks, terms or "none"))
        parts.append(f"## {family}\n\n{_purpose(cls)}\n\n{_family_parameters(cls)}")
    lead = (
        "The shipped task families, the robot that each is meant for, and their tasks. Each is a "
        "file in `sim/tasks`, with its reward and its definition of success. Its terms are added "
        "to the robot's observation. "
        "`mlsh train FAMILY --set family_parameters.NAME=VALUE` changes a parameter. Lengths are "
        "from 0.001 to 1000 m, a `scale` is from 0.01 to 100."
    )
    return _page("Task families", lead, table(("family", "robot", "tasks", "terms"), rows), *parts)


def _purpose(cls: type) -> str:
    """The first paragraphs of a family's module and class, as one paragraph."""
    whole = [inspect.getdoc(each) or "" for each in (sys.modules[cls.__module__], cls)]
    return " ".join(" ".join(text.partition("\n\n")[0].split()) for text in whole)


def _family_parameters(cls: type) -> str:
    said: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            said |= {name: text for name, text in comments(base).items() if text}
    rows = [
        (f"`{field.name}`", _default_of(field.default), sentence(said.get(field.name, "")))
        for field in dataclasses.fields(cls)
    ]
    return table(("parameter", "default", "meaning"), rows)


def _default_of(value: Any) -> str:
    if isinstance(value, Rewards):
        return "[weights](rewards.md#weights-for-walking)"
    return f"`{json.dumps(value)}`"


def rewards() -> str:
    """rewards.md."""
    rows = []
    for name, term in TERMS.items():
        takes = "; ".join(f"`{key}`: {text}" for key, text in term.parameters.items())
        needs = ", ".join(f"`{need}`" for need in term.needs)
        says = (inspect.getdoc(term.function) or "").rstrip(".")
        rows.append((f"`{name}`", says, term.unit, takes, needs, term.source))
    head = ("term", "value", "unit", "parameters", "needs", "used as")
    lead = (
        "The named terms that a task family can list in `rewards`, with a weight each. What a "
        "tick brings is the weight times the value. [Your own task](../add-a-task.md"
        "#a-reward-of-named-terms) has an example; `metrics.csv` and TensorBoard have what each "
        "term brings per tick, `reward/TASK/TERM`."
    )
    sources = [
        (f"`{need}`", f"`{each.quantity}` of `{each.of}`") for need, each in SOURCES.items()
    ]
    signals = (
        "## What terms need\n\nTerms read [signals](../add-a-task.md#5-a-reward-that-reads-the-"
        "simulation) of the simulation, which no policy observes. The base is the body "
        "`base_link` on a free joint, joints are those that the actions drive, feet are the geoms "
        'of a `<tuple name="feet">` in `<custom>` of `model.xml`. `command` is the method of the '
        "family with this name, `pose` are servos whose action 0 is a pose.\n\n"
        + table(("need", "signal"), sources)
    )
    weights = (Path(package.__file__).with_name("walking.yaml")).read_text(encoding="utf-8")
    walking = f"## Weights for walking\n\n```yaml\n{weights}```"
    return _page("Reward terms", lead, table(head, rows), signals, walking)


def report_json() -> str:
    """report-json.md."""
    whole = [
        ("schema", f"{SCHEMA}: the version of these keys."),
        *_meanings(Measured),
        *((key, sentence(comments(Evaluation)[key])) for key in ("backend", "seed")),
        ("family_parameters", "Per family, the parameters that are not its defaults."),
        ("tasks", "A list with the scores of every task and master, below."),
        ("sharing", "A list with what every family of more than one task uses of skills, below."),
        ("skill_distance", "Distance of the nearest two skills, 0 to 1."),
    ]
    score = [*_meanings(TaskScore), ("normalized", "0 for a random policy, 1 for the optimum.")]
    lead = (
        "`mlsh evaluate -o FOLDER` writes `report.html` and, for programs, `report.json`. Numbers "
        "have the units of SI; what was not measured is `null`."
    )
    head = ("key", "meaning")
    return _page(
        "report.json",
        lead,
        table(head, [(f"`{key}`", text) for key, text in whole]),
        "## tasks\n\n" + table(head, [(f"`{key}`", text) for key, text in score]),
        "The keys of `reference_returns`:\n\n"
        + table(head, [(f"`{key}`", text) for key, text in _meanings(ReferenceReturns)]),
        "## sharing\n\n" + table(head, [(f"`{k}`", t) for k, t in _meanings(SkillSharing)]),
        "Values of `verdict`: " + ", ".join(f"`{each.value}`" for each in Verdict) + ".",
    )


def _meanings(cls: type) -> list[tuple[str, str]]:
    said = comments(cls)
    return [
        (field.name, sentence(said.get(field.name, "").replace("None", "`null`")))
        for field in dataclasses.fields(cls)
    ]


PAGES = {
    "cli.md": commands,
    "robot-yaml.md": robot_yaml,
    "sim-params-yaml.md": sim_params_yaml,
    "skill-description.md": skill_description,
    "config.md": settings,
    "parameters.md": parameters,
    "faults.md": faults,
    "task-families.md": task_families,
    "rewards.md": rewards,
    "report-json.md": report_json,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, write in PAGES.items():
        (FOLDER / page).write_text(write())
