"""Makes calls of the vendor's SDK and prints what they returned. Runs in the environment of the clients."""

import json
import sys
from typing import Any

from acedatacloud import AceDataCloud
from acedatacloud._runtime.tasks import TaskHandle, artifact_urls, task_status

Json = dict[str, Any]


def main() -> None:
    """Make the calls that the first argument lists, and print one list of outcomes."""
    asked = json.loads(sys.argv[1])
    client = AceDataCloud(asked["token"], base_url=asked["base_url"])
    print(json.dumps([_outcome(client, name, arguments) for name, arguments in asked["calls"]]))


def _outcome(client: AceDataCloud, name: str, arguments: Json) -> Json:
    """Make one call. `name` is its path in the client, such as `tasks.get`."""
    try:
        method: Any = client
        for part in name.split("."):
            method = getattr(method, part)
        returned = method(**arguments)
        if name == "openai.chat.completions.create" and arguments.get("stream"):
            returned = {"events": list(returned)}
    except Exception as raised:
        return {"raised": type(raised).__name__, "message": str(raised)}
    if isinstance(returned, TaskHandle):
        return {"task_id": returned.id, "done": returned.done, "urls": returned.urls()}
    if not name.startswith("tasks."):
        return {"returned": returned}
    return {"returned": returned, "status": task_status(returned), "urls": artifact_urls(returned)}


if __name__ == "__main__":
    main()
