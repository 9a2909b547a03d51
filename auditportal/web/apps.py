from __future__ import annotations

from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "auditportal.web"
    label = "web"
