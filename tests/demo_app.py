"""The demo's WSGI application, whose pages say that this is a demo."""

from wsgi import app

# base.html shows it. It is not a setting, so that no deployment can show it by mistake.
app.config["DEMO"] = (
    "all tasks are made up. A program on this machine stands in for Ace Data Cloud and loses a third of its"
    " callbacks. The terminal shows the API key."
)
