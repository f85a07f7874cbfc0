"""What judges are shown and how they answer, in each form: windows read from a turn, and answers written as the form wants them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_server import Body

SINGLE = re.compile(r'^Text: (".*")\Z', re.M)


def windows_in(turn: str, *, quoted: bool) -> list[str]:
    """Return the windows that a turn shows, numbered or one alone; *quoted* ones are JSON strings, one a line."""
    if quoted:
        alone = SINGLE.findall(turn)
        lines = re.findall(r'^Example (\d+): (".*")$', turn, re.M)
        assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
        assert bool(alone) != bool(lines)
        return [json.loads(text) for text in alone or [text for _, text in lines]]
    return [text.removeprefix(" ").removesuffix("\n") for text in re.split(r"^Example \d+:", turn, flags=re.M)[1:]]


def written(schema: Any, answers: list[int]) -> str:
    """Return the *answers* about windows as a JSON *schema* wants them, or (None) as a list in free text."""
    if schema is None:
        return str(answers)
    return json.dumps({"answers": answers} if "properties" in schema else answers[0])


def schema_of(body: Body) -> Any:
    """Return the JSON schema that the answer to a server's question must fit, or None."""
    asked = body.get("response_format")
    if asked is None:
        return None
    assert (asked["type"], asked["json_schema"]["strict"]) == ("json_schema", True)
    return asked["json_schema"]["schema"]
