"""The HTML report of an evaluation, and the parts that other reports share."""
