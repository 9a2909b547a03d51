"""The portal's components as template tags, loaded in every template."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.forms.boundfield import BoundField
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from auditportal.web import formats

register = template.Library()


@register.simple_tag
def icon(name: str, size: int = 16, label: str = "") -> SafeString:
    """A symbol of the sprite; with a label it is an image, without one decoration."""
    small = " ico-s" if size < 16 else ""  # noqa: PLR2004 -- the two sizes of the sprite
    large = format_html(' width="{}" height="{}"', size, size) if size > 16 else ""  # noqa: PLR2004 -- as above
    role = format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"')
    return format_html('<svg class="ico{}"{} {}><use href="#i-{}"/></svg>', small, large, role, name)


@register.inclusion_tag("components/field.html")
def field(bound: BoundField, label: str = "", **attributes: Any) -> dict[str, Any]:  # noqa: ANN401 -- HTML attributes
    """A form field with its label, help and errors."""
    extra = {name.replace("_", "-"): value for name, value in attributes.items()}
    extra.setdefault("placeholder", "")
    if bound.help_text:
        extra["aria-describedby"] = f"{bound.id_for_label}-help"
    return {
        "field": bound,
        "label": label or bound.label,
        "widget": bound.as_widget(attrs=extra),
        "help": bound.help_text,
    }


@register.simple_tag
def digest(text: str) -> SafeString:
    return format_html('<span class="mono" title="{}">{}</span>', text, formats.short_digest(text))


@register.simple_tag
def timestamp(when: datetime | None) -> SafeString:
    if when is None:
        return mark_safe('<span class="dim">never</span>')
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', formats.iso(when), formats.iso(when), formats.moment(when)
    )


@register.simple_tag
def tag(word: str, tone: str = "") -> SafeString:
    return format_html('<span class="tag {}">{}</span>', tone, word)


@register.filter
def visible(text: object) -> str:
    return formats.visible(str(text))


@register.filter
def thousands(number: int) -> str:
    return formats.count(number)
