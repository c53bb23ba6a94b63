"""How gunicorn serves what does not run on greenlets: as many workers as Backstop has, threads in each."""

import os

workers = int(os.environ["WEB_CONCURRENCY"])
worker_class = "gthread"
threads = 32
timeout = 60
control_socket_disable = True
