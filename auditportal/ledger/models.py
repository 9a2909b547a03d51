"""The tables of the log.

`Entry`, `Body` and `Head` are the log, `Checkpoint` beside them what was signed: insert-only, guarded in the database
(`sql/guards.sql`). `SealedValue` and `Kept` hold what bodies only commit to. Everything below the line is a
projection: filled by the sealer from the log, dropped and rebuilt at will (`manage.py rebuild_projections`).
"""

from __future__ import annotations

from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Q


class Entry(models.Model):
    """One position of the log: the header's exact bytes and their leaf hash (RFC 6962 §2.1)."""

    seq = models.BigIntegerField(primary_key=True)
    source = models.TextField()  # with event_id the idempotency key
    event_id = models.UUIDField()
    header = models.BinaryField()
    leaf_hash = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["event_id", "source"], name="one_entry_per_event")]


class Body(models.Model):
    """What happened, as stored and hashed. `streams` (32 bytes each, ascending) survives an erasure."""

    seq = models.BigIntegerField(primary_key=True)
    salt = models.BinaryField(null=True)
    body = models.BinaryField(null=True)
    streams = models.BinaryField()
    # Of what was submitted, under the body's salt: bodies are salted anew each time, so they cannot be compared.
    fingerprint = models.BinaryField(null=True)


class Head(models.Model):
    """The single row whose lock orders all appends; the chain trigger alone moves it."""

    id = models.SmallIntegerField(primary_key=True)
    size = models.BigIntegerField(default=0)
    leaf = models.BinaryField()  # leaf hash of seq size-1; 32 zero bytes at size 0
    t = models.TextField(default="")  # header time of seq size-1
    lock_token = models.SmallIntegerField(default=0)  # the one column the application may name, to lock the row

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_head")]


class Checkpoint(models.Model):
    """A tree head that the signer signed (C2SP tlog-checkpoint); `note` is the signed note, exactly."""

    size = models.BigIntegerField(primary_key=True)
    root = models.BinaryField()
    note = models.TextField()
    sealed_at = models.DateTimeField()


class Key(models.Model):
    """A key of this log and the sizes it may sign, as `ledger.genesis` and `ledger.key` events state them."""

    vkey = models.TextField(primary_key=True)
    first_size = models.BigIntegerField()
    last_size = models.BigIntegerField(null=True)
    trusted_up_to = models.BigIntegerField(null=True)


class SealedValue(models.Model):
    """A personal or secret value that a body only commits to; erasable with its salt."""

    seq = models.BigIntegerField()
    pointer = models.TextField()  # RFC 6901, into the body
    salt = models.BinaryField()
    value = models.BinaryField()  # JCS

    class Meta:
        constraints = [models.UniqueConstraint(fields=["seq", "pointer"], name="one_value_per_place")]


class KeptKind(models.TextChoices):
    RAW = "raw"  # the item as received, secrets removed
    SENT = "sent"  # the event as the producer claimed and perhaps signed it


class Kept(models.Model):
    """Bytes kept aside that `source.raw` or `source.sent` commits to."""

    seq = models.BigIntegerField()
    kind = models.TextField(choices=KeptKind.choices)
    salt = models.BinaryField()
    content = models.BinaryField()
    signature = models.BinaryField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["seq", "kind"], name="one_kept_item_per_kind")]


# ---- projections ----------------------------------------------------------------------------------------------------


class Sealing(models.Model):
    """How far the projections reach; its row lock lets one sealer work at a time."""

    id = models.SmallIntegerField(primary_key=True)
    size = models.BigIntegerField(default=0)
    frontier = models.BinaryField(default=b"")  # hashes of the compact range, 32 bytes each

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_sealing")]


class Tile(models.Model):
    """Hashes of the tree in C2SP tlog-tiles layout; a partial tile grows in place until it is full."""

    level = models.SmallIntegerField()
    index = models.BigIntegerField()
    hashes = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["level", "index"], name="one_tile_per_place")]


class Stream(models.Model):
    """State of one stream over the sealed entries (count, last seq, accumulator)."""

    hash = models.BinaryField(primary_key=True)
    key = models.TextField()
    count = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    acc = models.BinaryField()


class Event(models.Model):
    """One row for search and display. What a page shows comes from the verified body; these columns find it."""

    seq = models.BigIntegerField(primary_key=True)
    event_id = models.UUIDField()
    source = models.TextField()
    native_id = models.TextField(default="")
    action = models.TextField()
    outcome = models.TextField()
    actor = models.TextField()
    actor_type = models.TextField()
    assurance = models.TextField()
    timestamp = models.DateTimeField()
    timestamp_kind = models.TextField()
    recorded_at = models.DateTimeField()
    subject_type = models.TextField()
    subject_id = models.TextField()
    environment = models.TextField(default="")

    class Meta:
        indexes = [
            models.Index("timestamp", "seq", name="event_time"),
            models.Index("action", "timestamp", "seq", name="event_action"),
            models.Index("actor", "timestamp", "seq", name="event_actor"),
            models.Index("source", "timestamp", "seq", name="event_source"),
            models.Index("environment", "timestamp", "seq", name="event_environment"),
            models.Index("subject_type", "subject_id", "timestamp", "seq", name="event_subject"),
            models.Index(fields=["outcome", "timestamp", "seq"], condition=~Q(outcome="done"), name="event_not_done"),
            models.Index("recorded_at", "seq", name="event_recorded"),
            models.Index("event_id", name="event_native"),
        ]


class EventModel(models.Model):
    """Which registered models an event touches, in the timeline's order."""

    model = models.TextField()
    seq = models.BigIntegerField()
    timestamp = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "timestamp", "seq"], name="one_model_link")]
        indexes = [models.Index("seq", name="event_model_seq")]


class EventRelated(models.Model):
    """Subject and related objects of an event; the relation is empty for the subject itself."""

    type = models.TextField()
    object_id = models.TextField()
    relation = models.TextField()
    seq = models.BigIntegerField()
    timestamp = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index("type", "object_id", "timestamp", "seq", name="event_related_object"),
            models.Index("seq", name="event_related_seq"),
        ]


class EventText(models.Model):
    """Words and digests of an event, for full-text search; a table apart, so that index upkeep stays in the sealer."""

    seq = models.BigIntegerField(primary_key=True)
    timestamp = models.DateTimeField()
    words = SearchVectorField()

    class Meta:
        indexes = [models.Index("timestamp", "seq", name="event_text_time")]  # the GIN index: sql/search.sql


class Rollup(models.Model):
    """Events of an hour, a day (UTC) or of all time by one dimension's value; '' is the dimension of all events."""

    class Grain(models.TextChoices):
        HOUR = "hour"
        DAY = "day"
        ALL = "all"

    dimension = models.TextField()
    value = models.TextField()
    grain = models.TextField(choices=Grain.choices, default=Grain.HOUR)
    start = models.DateTimeField()  # of the hour or day; 1970 for all time
    count = models.BigIntegerField()
    not_done = models.BigIntegerField(default=0)  # refused or failed, of `count`

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dimension", "grain", "start", "value"], name="one_rollup_per_value")
        ]


class Verification(models.Model):
    """One pass of `verify_ledger`: where it stands, and what it found. `state` lets the next start go on there."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    size = models.BigIntegerField()
    position = models.BigIntegerField(default=0)
    failure = models.TextField(default="")  # `seq n: NAME`, the first one; empty when all is well
    state = models.BinaryField(default=b"")
