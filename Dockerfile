FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY receiver receiver
COPY reconcile reconcile
COPY wsgi.py gunicorn.conf.py ./
# Directories that belong to the user: a volume mounted there is then writable.
RUN useradd --create-home backstop && mkdir spool /data && chown backstop . spool /data
USER backstop
CMD ["python", "-m", "receiver.web", "--bind", "0.0.0.0:8000"]
