from __future__ import annotations

from django.urls import path

from auditportal.api import events, schema

urlpatterns = [
    path("events", events.collection, name="api-events"),
    path("schema/event.json", schema.event, name="api-event-schema"),
]
