"""The application, with waits of the gateway's that a test can live to see."""

from receiver.web.gateway import results
from wsgi import app as app

results.SPACE_EVERY_SECONDS = 0.5
