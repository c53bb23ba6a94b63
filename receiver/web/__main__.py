"""python -m receiver.web [gunicorn's options]: checks the settings and serves the receiver."""

import os
import sys

from receiver.config import Settings

if __name__ == "__main__":
    # gunicorn reads WEB_CONCURRENCY at import. A bad or blank value would end it with a traceback.
    os.environ["WEB_CONCURRENCY"] = str(Settings.from_env().web_concurrency)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[1:], "wsgi:app"])
