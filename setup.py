"""The Python package; its name, version and licence stand in package.xml alone."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
MANIFEST = ElementTree.parse(HERE / "package.xml").getroot()
NAME = MANIFEST.findtext("name")
SHARE = f"share/{NAME}"


def files(pattern: str) -> list[str]:
    """Files under the package that match `pattern`, relative to it."""
    return sorted(str(p.relative_to(HERE)) for p in HERE.glob(pattern) if p.is_file())


# What a robot's computer needs is in `install_requires`; rclpy comes from the ROS installation
# or, on a machine without one, from the wheels in the extra `ros`.
RECORD = ["mcap>=1.6", "rosbags>=0.11"]
SIM = [
    *RECORD,
    "mujoco>=4,<5",
    "gymnasium>=1.1",
    "typer>=0.15",
    "rich>=13",
    "matplotlib>=3.8",
    "pillow>=10.1",
    "jinja2>=3.1",  # reports
]
ROS = [
    f"ros-jazzy-{name}"
    for name in (
        "rclpy",
        "rmw-fastrtps-cpp",
        "lifecycle-msgs",
        "rcl-interfaces",
        "diagnostic-msgs",
        "rosgraph-msgs",
        "std-msgs",
        "std-srvs",
        "geometry-msgs",
        "nav-msgs",
        "sensor-msgs",
    )
]
TRAIN = [*SIM, "torch>=2.4", "tensorboard>=2.16", "onnx>=1.17"]
SB3 = "stable-baselines3>=2.9"
# Only to be compared with; gymnasium's MuJoCo environments import imageio.
BENCH = [SB3, "imageio>=2.30"]
TRAINERS = [SB3, "rsl-rl-lib>=5.4"]  # whose policies docs/use-your-own-policies.md imports
SYSID = [*SIM, "mujoco[sysid]>=4,<5"]  # scipy, plotly and others that MuJoCo's own wants
VIDEO = ["imageio-ffmpeg>=0.5"]  # brings ffmpeg, for MP4
# 7.4 is the pytest of Ubuntu 24.04, which `colcon test` takes.
TEST = ["pytest>=7.4", "pytest-timeout>=2.3", "pytest-xdist>=3.3"]
REPEAT = "pytest-rerunfailures>=14"  # `make test` alone repeats tests, see tests/support/stalls.py
DOCS = ["mkdocs-material>=9,<10"]  # the site
LINT = ["ruff>=0.9", "mypy>=1.13", "import-linter>=2.1", "types-PyYAML"]
DEV = [*TEST, *VIDEO, *SYSID, *DOCS, SB3, REPEAT, *LINT]

setup(
    name=NAME,
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    maintainer=MANIFEST.findtext("maintainer"),
    maintainer_email=MANIFEST.find("maintainer").get("email"),
    license=MANIFEST.findtext("license"),
    python_requires=">=3.10",
    packages=find_packages(include=["mlsh_ros*", "sim*", "policies*"]),
    package_data={
        "sim": [
            "py.typed",
            "robots/*/*.yaml",
            "robots/*/*.xml",
            "robots/*/sim_params/*.yaml",
            "tasks/rewards/*.yaml",
        ],
        "policies": [
            "py.typed",
            "pretrained/*.md",
            "pretrained/*.txt",
            "pretrained/*/*.json",
            "pretrained/*/*.npz",
            "pretrained/*/*/*.onnx",
            "pretrained/*/*/*.bin",
        ],
        "mlsh_ros": [
            "py.typed",
            "bringup/fastdds_local.xml",
            "bringup/fastdds_robot.xml",
            "evaluation/report/*.html",
            "evaluation/report/*.css",
            "evaluation/report/*.js",
            "sim2real/gap/*.html",
        ],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", files("launch/*.launch.py")),
        (f"{SHARE}/config", files("config/*.yaml") + files("config/*.json")),
    ],
    zip_safe=False,
    install_requires=["numpy>=1.26", "onnxruntime>=1.17", "pydantic>=2.5", "pyyaml>=6"],
    extras_require={
        "sim": SIM,
        "record": RECORD,
        "ros": ROS,
        "train": TRAIN,
        "bench": BENCH,
        "trainers": TRAINERS,
        "video": VIDEO,
        "sysid": SYSID,
        "docs": DOCS,
        "test": TEST,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": [
            "mlsh = mlsh_ros.cli.main:main",
            "skill_node = mlsh_ros.nodes.skill_node:main",
            "joystick_node = mlsh_ros.nodes.joystick_node:main",
            "master_node = mlsh_ros.nodes.master_node:main",
            "watchdog_node = mlsh_ros.nodes.watchdog_node:main",
            "sim_node = mlsh_ros.nodes.sim_node:main",
            "recorder_node = mlsh_ros.nodes.recorder_node:main",
        ],
    },
)
