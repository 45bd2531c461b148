"""Off-policy learning of masters for new tasks, from all decisions so far, with frozen skills."""
