FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app
ENV DATABASE_URL=sqlite:////data/backstop.db SPOOL_DIR=/data/spool
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY wsgi.py gunicorn.conf.py ./
COPY receiver receiver
COPY reconcile reconcile
COPY deploy/entrypoint.sh /usr/local/bin/entrypoint.sh
RUN python -m compileall -q receiver reconcile && useradd --uid 10001 --home-dir /data backstop
# Relative paths in the settings lead to the volume too.
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=30s --interval=30s --timeout=5s \
  CMD python -c "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/healthz')"
# It starts as root only to take over a fresh volume. The service itself runs as the user 10001.
ENTRYPOINT ["sh", "/usr/local/bin/entrypoint.sh"]
CMD ["sh", "-c", "exec python -m receiver --bind 0.0.0.0:${PORT:-8000}"]
