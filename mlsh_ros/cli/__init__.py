"""The sub-commands of `mlsh`, one file each; what they print is for people."""
