"""Speaks with the vendor's MCP server over its standard input and output."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.clients.environment import VENV, programs, variables

PROTOCOL = "2025-06-18"


class McpSession:
    """One running server. Use it as a context manager."""

    def __init__(self, base_url: str, token: str, directory: Path) -> None:
        self._log = (directory / "mcp.log").open("wb")
        (theirs, ours), (answers, answer) = os.pipe(), os.pipe()
        self._input, self._output = open(ours, "w"), open(answers)  # noqa: SIM115
        with open(theirs, "rb") as stdin, open(answer, "wb") as stdout:
            script = [str(VENV / "bin" / "mcp-midjourney")]
            files = (stdin, stdout, self._log)
            self._process = programs().start(script, directory, variables(base_url, token), files)
        self._number = 0

    def __enter__(self) -> "McpSession":
        about = {"name": "tests", "version": "1"}
        self._ask("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": about})
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._input, self._output, self._log):
            file.close()

    def tools(self) -> list[str]:
        """Return the names of the server's tools."""
        return [tool["name"] for tool in self._ask("tools/list", {})["tools"]]

    def call(self, tool: str, **arguments: Any) -> tuple[str, bool]:
        """Call a tool; return its text and whether it calls that an error."""
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})
        return "".join(part["text"] for part in result["content"]), bool(result.get("isError"))

    def _ask(self, method: str, parameters: Any) -> Any:
        self._number += 1
        self._write({"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters})
        while True:
            line = self._output.readline()
            assert line, f"the server ended, see {self._log.name}"
            message = json.loads(line)
            if message.get("id") == self._number:
                return message["result"]

    def _write(self, message: Any) -> None:
        self._input.write(json.dumps(message) + "\n")
        self._input.flush()
