"""Django's settings, derived from the environment (docs/operations.md lists the variables).

`AUDITPORTAL_MODE` decides: `embedded` is what `bin/run` starts, `production` refuses whatever must not be there.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from celery.schedules import crontab

from auditportal import env

ROOT = env.ROOT
ENV = env.load()
MODE = ENV.get("AUDITPORTAL_MODE", "embedded")
PRODUCTION = MODE == "production"
DEMO = env.flag(ENV, "AUDITPORTAL_DEMO")
DEMO_PASSWORD = ENV.get("AUDITPORTAL_DEMO_PASSWORD", "")
DEMO_URL = f"http://127.0.0.1:{ENV.get('AUDITPORTAL_DEMO_PORT', '8090')}"  # the demo's registry and MLflow
DEBUG = env.flag(ENV, "AUDITPORTAL_DEBUG")
INSECURE_KEY = "insecure-key-for-checks-and-migrations-only"
SECRET_KEY = ENV.get("AUDITPORTAL_SECRET_KEY") or INSECURE_KEY
LEAST_SECRET_LENGTH = 32  # characters; what `bin/run` and docs/operations.md generate is longer

# The origin is the log's name for ever (C2SP tlog-checkpoint); the demo's says that it is one.
LOG_ORIGIN = ENV.get("AUDITPORTAL_ORIGIN") or "demo.invalid/00000000"
PUBLIC_URL = ENV.get("AUDITPORTAL_URL", "http://localhost:8000").rstrip("/")
DATA = Path(ENV.get("AUDITPORTAL_DATA") or ROOT / "var" / "portal")
SIGNER_DIRECTORY = Path(ENV.get("AUDITPORTAL_SIGNER") or DATA / "signer")
BUNDLE_SIGNER = Path(ENV.get("AUDITPORTAL_BUNDLE_SIGNER") or SIGNER_DIRECTORY.parent / "bundle-signer")

if PRODUCTION:
    if DEBUG:
        raise env.MisconfiguredError("AUDITPORTAL_DEBUG must not be set in production")
    if DEMO:
        raise env.MisconfiguredError("AUDITPORTAL_DEMO must not be set in production: a demo is never a real log")
    if SECRET_KEY == INSECURE_KEY or len(SECRET_KEY) < LEAST_SECRET_LENGTH:
        raise env.MisconfiguredError("AUDITPORTAL_SECRET_KEY must be set to at least 32 random characters")
    if not ENV.get("AUDITPORTAL_ORIGIN") or LOG_ORIGIN.startswith("demo.invalid"):
        raise env.MisconfiguredError("AUDITPORTAL_ORIGIN must name this log, for example audit.example.org/ledger")
    if not ENV.get("DATABASE_URL"):
        raise env.MisconfiguredError("DATABASE_URL must name the database, as the application's role")

_host = PUBLIC_URL.split("://", 1)[-1].split("/", 1)[0].rsplit(":", 1)[0]
ALLOWED_HOSTS = [*filter(None, ENV.get("AUDITPORTAL_HOSTS", "").split(",")), _host]
if not PRODUCTION:
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "template_partials",
    "rest_framework",
    "drf_spectacular",
    "django_filters",
    "django_celery_beat",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "auditportal.ledger",
    "auditportal.accounts",
    "auditportal.jobs",
    "auditportal.catalog",
    "auditportal.ingest",
    "auditportal.reconciliation",
    "auditportal.approvals",
    "auditportal.bundles",
    "auditportal.web",
    "auditportal.api",
]
MIDDLEWARE = [
    "auditportal.web.middleware.RequestIdentity",
    "auditportal.web.middleware.SecurityHeaders",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "auditportal.urls"
WSGI_APPLICATION = "auditportal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "auditportal.web.context.shell",
            ],
            "builtins": ["auditportal.web.templatetags.ui", "template_partials.templatetags.partials"],
        },
    },
]

_no_database = "postgresql://auditportal@/auditportal"  # enough for checks; any query fails with a connection error
DATABASES = {"default": env.database(ENV.get("DATABASE_URL") or _no_database)}
if ENV.get("DATABASE_OWNER_URL"):
    # The owner migrates and makes test databases; requests never use it.
    DATABASES["owner"] = env.database(ENV["DATABASE_OWNER_URL"])
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = ENV.get("REDIS_URL", "redis://127.0.0.1:6379/0")
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

CELERY_BROKER_URL = env.celery_broker(REDIS_URL)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 1.0}  # a request rings and goes on; beat rings again
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = {
    "verify the log": {"task": "ledger.verify", "schedule": crontab(hour="2", minute="10")},
    "take up waiting jobs": {"task": "jobs.ring", "schedule": timedelta(minutes=1)},
    "take up waiting deliveries": {"task": "ingest.process_deliveries", "schedule": timedelta(minutes=1)},
    "pull from sources": {"task": "ingest.pull_sources", "schedule": timedelta(minutes=2)},
    "sweep sources": {"task": "ingest.sweep_sources", "schedule": crontab(hour="3", minute="1")},
    "check new versions": {"task": "reconciliation.check_new", "schedule": timedelta(minutes=1)},
    "reconcile": {"task": "reconciliation.nightly", "schedule": crontab(hour="1", minute="30")},
}
CELERY_TIMEZONE = "UTC"
CELERY_TASK_DEFAULT_QUEUE = "auditportal"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "overview"
ACCOUNT_ADAPTER = "auditportal.web.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = None
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300  # seconds; a governed act asks for the password again in any case
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "AuditPortal"
EMAIL_BACKEND = (
    "django.core.mail.backends.console.EmailBackend"
    if not PRODUCTION
    else ENV.get("AUDITPORTAL_EMAIL_BACKEND", "django.core.mail.backends.smtp.EmailBackend")
)

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
FORMAT_MODULE_PATH: list[str] = []

STATIC_URL = "/static/"
STATIC_ROOT = Path(ENV.get("AUDITPORTAL_STATIC") or DATA / "static")
STATICFILES_DIRS = [ROOT / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": DATA / "files"}},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_MAX_AGE = 31_536_000

# A batch may be 16 MiB (POST /api/v1/events); Django refuses 2.5 MB by default.
MOST_BATCH_BYTES = 16 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MOST_BATCH_BYTES + 1

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "auditportal.web.errors.csrf_failure"
if PRODUCTION:
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000 if PUBLIC_URL.startswith("https://") else 0

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "auditportal.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "auditportal.api.problems.exception_handler",
}
SPECTACULAR_SETTINGS = {"TITLE": "AuditPortal API", "VERSION": "1", "SERVE_INCLUDE_SCHEMA": False}

SILENCED_SYSTEM_CHECKS: list[str] = []
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "auditportal.web.logs.JsonFormatter"},
        "plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json" if PRODUCTION else "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
    },
}
