# One image for web, worker, beat and sealer; docker-compose.yml says which command each runs.
FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/auditportal
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN useradd --system --uid 10001 --home-dir /srv/auditportal auditportal \
 && mkdir -p /var/lib/auditportal && chown auditportal /var/lib/auditportal \
 && AUDITPORTAL_DATA=/tmp/build AUDITPORTAL_STATIC=/srv/static python manage.py collectstatic --noinput --verbosity 0
USER auditportal
ENV AUDITPORTAL_DATA=/var/lib/auditportal AUDITPORTAL_STATIC=/srv/static AUDITPORTAL_MODE=production
VOLUME /var/lib/auditportal
EXPOSE 8000
CMD ["granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "2", "--blocking-threads", "8", "--respawn-failed-workers", "--no-ws", "auditportal.wsgi:application"]
