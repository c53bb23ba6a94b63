"""flask --app wsgi forward: the commands about how the customer's app is told."""

from flask.cli import AppGroup

from receiver.commands.endpoints import endpoints, pause, resume, test
from receiver.commands.forwards import dismiss, list_them, show
from receiver.commands.resending import resend, resendings, stop

forward = AppGroup("forward", help="See how your app is told, and send events again.")
for _command in (list_them, show, resend, dismiss, resendings, stop, endpoints, pause, resume, test):
    forward.add_command(_command)
