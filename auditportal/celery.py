"""Celery is only the doorbell: long work is rows in PostgreSQL with a lease, so a lost message loses nothing."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditportal.settings")
app = Celery("auditportal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
