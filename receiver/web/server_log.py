"""The server's own log."""

from typing import Any

from gunicorn.glogging import Logger

from receiver.logs import TEXT, JsonFormatter, RedactingFormatter

_HEALTH_CHECKS = frozenset({"/healthz", "/readyz"})


class RedactingLogger(Logger):  # type: ignore[misc]  # gunicorn has no type hints
    """Masks callback tokens: gunicorn logs requests' paths, which hold them. Leaves health checks out."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        for log, line in ((self.error_log, TEXT), (self.access_log, self.access_fmt)):
            for handler in log.handlers:
                handler.setFormatter(RedactingFormatter(line))

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log a request, except for a health check that went well."""
        if req.path not in _HEALTH_CHECKS or not resp.status.startswith("200"):
            super().access(resp, req, environ, request_time)


class JsonLogger(RedactingLogger):
    """Logs lines of JSON."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(JsonFormatter())
