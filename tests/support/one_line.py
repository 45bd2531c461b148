"""What every refusal of `mlsh import-skill` is: one line that says what to change."""

import re

# The valid choices, or what to do.
REMEDY = re.compile(
    r"Valid: |(is|are) accepted|(is|are) expected|(should|has to|must) be|"
    r"field required|unexpected keyword|does not exist|"
    r"\b([Aa]dd|[Cc]ompare|correct|export|give|leave|list|name|put|remove|set|state)\b"
)


def checked(error: Exception) -> str:
    """The text of an error, which is one line with what to change.

    `UserError` escapes line ends, so that they are looked for in both ways.
    """
    text = str(error)
    assert "\n" not in text, text
    assert "\\n" not in text, text
    assert REMEDY.search(text), text
    return text
