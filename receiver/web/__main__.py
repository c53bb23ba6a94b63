"""python -m receiver.web [gunicorn's options]: serves the receiver, once the settings are good."""

import os
import sys

from receiver.config import Settings

if __name__ == "__main__":
    # gunicorn reads WEB_CONCURRENCY while it is imported, and a bad one ends it with a traceback.
    Settings.from_env()
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[1:], "wsgi:app"])
