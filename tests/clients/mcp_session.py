"""Speaks with the vendor's MCP server over its standard input and output."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.clients.environment import VENV, variables

PROTOCOL = "2025-06-18"


class McpSession:
    """One running server. Use it as a context manager."""

    def __init__(self, base_url: str, token: str, directory: Path) -> None:
        self._log = (directory / "mcp.log").open("wb")
        self._process = subprocess.Popen(
            [str(VENV / "bin" / "mcp-midjourney")],
            cwd=directory,
            env=variables(base_url, token),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
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
        self._process.communicate()
        self._log.close()

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
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            assert line, f"the server ended, see {self._log.name}"
            message = json.loads(line)
            if message.get("id") == self._number:
                return message["result"]

    def _write(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
