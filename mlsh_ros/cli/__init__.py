"""The subcommands of `mlsh`, one file each."""
