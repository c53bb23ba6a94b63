"""The page on this deployment: its version, effective settings, schema, sizes, and how fast they grow."""

from flask import render_template
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.ledger.engine.schema import applied_migrations, pending_migrations
from receiver.version import VERSION
from receiver.web.current import current_settings
from receiver.web.intake import current_intake
from receiver.web.offload import offload
from receiver.web.pages.base import page_blueprint
from receiver.web.settings_shown import shown_settings
from receiver.web.watch.sizes import sizes_of

blueprint = page_blueprint("settings_page")


@blueprint.get("/settings")
def show() -> ResponseReturnValue:
    """Show the version, the settings, the schema and the sizes: 200."""
    now, settings, intake = utcnow(), current_settings(), current_intake()
    sizes = offload(sizes_of, now, settings, intake)
    return render_template(
        "settings.html",
        now=now,
        version=VERSION,
        shown=list(shown_settings(settings.given)),
        applied=applied_migrations(),
        pending=pending_migrations(),
        sizes=sizes,
        on_sqlite=settings.database_url.startswith("sqlite:"),
    )
