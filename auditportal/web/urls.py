from __future__ import annotations

from allauth.account import views as account_views
from allauth.mfa.base import views as mfa_views
from allauth.mfa.recovery_codes import views as codes_views
from allauth.mfa.totp import views as totp_views
from django.urls import path

from auditportal.web import (
    account,
    approvals,
    catalog,
    compare,
    events,
    integrity,
    overview,
    people,
    reconciliation,
    timeline,
)

urlpatterns = [
    path("", overview.index, name="overview"),
    path("healthz", overview.health, name="healthz"),
    path("jump/", timeline.jump, name="jump"),
    path("timeline/", timeline.index, name="timeline"),
    path("timeline/histogram/", timeline.histogram, name="timeline-histogram"),
    path("timeline/facets/", timeline.facets, name="timeline-facets"),
    path("timeline/newer/", timeline.newer, name="timeline-newer"),
    path("events/<int:seq>/", events.detail, name="event"),
    path("events/<int:seq>/row/", events.row, name="event-row"),
    path("events/<int:seq>/json", events.as_json, name="event-json"),
    path("events/<int:seq>/proof", events.proof, name="event-proof"),
    path("approvals/", approvals.index, name="approvals"),
    path("approvals/new/", approvals.new, name="approvals-new"),
    path("approvals/<uuid:pk>/", approvals.detail, name="approvals-detail"),
    path("approvals/<uuid:pk>/approve/", approvals.sign, name="approvals-sign"),
    path("approvals/<uuid:pk>/reject/", approvals.reject, name="approvals-reject"),
    path("approvals/<uuid:pk>/withdraw/", approvals.withdraw, name="approvals-withdraw"),
    path("reconciliation/", reconciliation.index, name="reconciliation"),
    path("reconciliation/start/", reconciliation.start, name="reconciliation-start"),
    path("reconciliation/runs/<int:pk>/", reconciliation.run, name="reconciliation-run"),
    path("reconciliation/runs/<int:pk>/cancel/", reconciliation.cancel, name="reconciliation-cancel"),
    path("reconciliation/findings/<int:pk>/", reconciliation.finding, name="reconciliation-finding"),
    path("models/", catalog.index, name="models"),
    path("models/<path:name>/compare/<str:base>..<str:head>/", compare.named, name="models-compare"),
    path("models/<path:name>/versions/<str:version>/", catalog.version, name="models-version"),
    path("models/<path:name>/", catalog.detail, name="models-detail"),
    path("compare/", compare.pick, name="models-pick"),
    path("compare.txt", compare.text, name="models-text"),
    path("integrity/", integrity.index, name="integrity"),
    path("tlog/checkpoint", integrity.checkpoint, name="tlog-checkpoint"),
    path("account/", account.index, name="account"),
    path("settings/people/", people.index, name="settings-people"),
    path("settings/people/<int:pk>/role/", people.change_role, name="settings-role"),
    path("settings/tokens/", people.tokens, name="settings-tokens"),
    path("settings/tokens/<int:pk>/revoke/", people.revoke_token, name="settings-revoke"),
    # allauth's views, those that this portal offers; its other pages are not reachable.
    path("account/login/", account_views.login, name="account_login"),
    path("account/logout/", account_views.logout, name="account_logout"),
    path("account/signup/", account_views.signup, name="account_signup"),
    path("account/inactive/", account_views.account_inactive, name="account_inactive"),
    path("account/reset/", account.reset, name="account_reset_password"),
    path("account/password/", account_views.password_change, name="account_change_password"),
    path("account/reauthenticate/", account_views.reauthenticate, name="account_reauthenticate"),
    path("account/2fa/", mfa_views.index, name="mfa_index"),
    path("account/2fa/authenticate/", mfa_views.authenticate, name="mfa_authenticate"),
    path("account/2fa/reauthenticate/", mfa_views.reauthenticate, name="mfa_reauthenticate"),
    path("account/2fa/totp/activate/", totp_views.activate_totp, name="mfa_activate_totp"),
    path("account/2fa/totp/deactivate/", totp_views.deactivate_totp, name="mfa_deactivate_totp"),
    path("account/2fa/codes/", codes_views.view_recovery_codes, name="mfa_view_recovery_codes"),
    path("account/2fa/codes/generate/", codes_views.generate_recovery_codes, name="mfa_generate_recovery_codes"),
    path("account/2fa/codes/download/", codes_views.download_recovery_codes, name="mfa_download_recovery_codes"),
]
