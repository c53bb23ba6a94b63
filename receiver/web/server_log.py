"""The server's own log."""

from gunicorn.glogging import Logger

from receiver.logs import RedactingFormatter


class RedactingLogger(Logger):  # type: ignore[misc]  # gunicorn has no type hints
    """Masks callback tokens: gunicorn logs requests' paths, which hold them."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        formatters = {self.error_log: self.error_fmt, self.access_log: self.access_fmt}
        for log, line in formatters.items():
            for handler in log.handlers:
                handler.setFormatter(RedactingFormatter(line, self.datefmt))
