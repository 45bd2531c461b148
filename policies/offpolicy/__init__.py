"""Masters for new tasks from every decision that a task has seen, the skills frozen."""
