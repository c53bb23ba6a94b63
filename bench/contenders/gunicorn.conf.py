"""How gunicorn serves the other contenders: like Backstop, without the hooks that are its own."""

import runpy
from pathlib import Path

from gunicorn.config import KNOWN_SETTINGS

_ours = runpy.run_path(str(Path(__file__).resolve().parents[2] / "gunicorn.conf.py"))
_shared = {setting.name for setting in KNOWN_SETTINGS if setting.section != "Server Hooks"}
globals().update({name: value for name, value in _ours.items() if name in _shared})
worker_class = "gevent"  # ours limits requests by Backstop's settings, which the others do not have
