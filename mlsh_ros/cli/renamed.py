"""Commands and options of former versions, and the names that replace them."""

from __future__ import annotations

COMMANDS = {
    "up": "launch",
    "check": "check-bundle",
    "summary": "compare-runs",
    "transfer": "eval-transfer",
}
OPTIONS = {
    "train": {"--run": "--output", "--reality": "--sim-params"},
    "compare-runs": {"--goal": "--target-score"},
    "sweep": {"--goal": "--target-score"},
    "evaluate": {"--sweep": "--robustness", "--reality": "--sim-params"},
    "finetune": {
        "--replace": "--overwrite-master",
        "--from": "--init-from",
        "--reality": "--sim-params",
    },
    "replay": {"--drawn": "--stochastic"},
    "gap": {"--reality": "--sim-params"},
    "sysid": {"--only": "--parameters", "--keep": "--fix", "--known": "--prior"},
}
