from __future__ import annotations

from django.urls import path

from auditportal.api import events

urlpatterns = [
    path("events", events.collection, name="api-events"),
]
