from __future__ import annotations

from django.db import models


class Model(models.Model):
    """A registered model, known by its name alone; what it holds are its versions."""

    name = models.CharField(max_length=512, unique=True)
    first_seen = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Version(models.Model):
    """One version: (model, source, native version, creation time). Its identity for approvals is the manifest digest.

    Bytes are kept as the registry gave them, so that comparing and checking survive its loss.
    """

    class Kind(models.TextChoices):
        MODELKIT = "modelkit"
        MLFLOW = "mlflow"

    class Check(models.TextChoices):
        """The four states, never merged, and the two ways in which a check can end badly."""

        CHECKED = "checked"
        REPORTED = "reported only"
        MISSING = "missing"
        UNREACHABLE = "unreachable"
        MISMATCH = "mismatch"
        TRUNCATED = "truncated"

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    label = models.CharField(max_length=600, unique=True)  # the `model_version` id in events: name:version
    name = models.CharField(max_length=512)  # what stands after the last `:` of the label
    kind = models.CharField(max_length=10, choices=Kind.choices)
    source = models.CharField(max_length=100)
    native_version = models.CharField(max_length=512)
    native_created = models.BigIntegerField(null=True)  # epoch milliseconds, as MLflow says
    repository = models.CharField(max_length=255, default="")
    manifest_digest = models.CharField(max_length=71, default="")
    manifest = models.BinaryField(null=True)
    config_digest = models.CharField(max_length=71, default="")
    config = models.BinaryField(null=True)
    format = models.CharField(max_length=16, default="")
    kitfile = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)
    run_id = models.CharField(max_length=64, default="")
    facts = models.JSONField(default=dict)  # what else the source says, shown as reported
    card = models.TextField(default="")
    card_state = models.CharField(max_length=16, default="")  # checked, missing, unreachable; empty: never looked
    first_seen = models.DateTimeField()
    check_state = models.CharField(max_length=16, choices=Check.choices, default=Check.REPORTED)
    check_note = models.CharField(max_length=500, default="")
    checked_at = models.DateTimeField(null=True)  # when all of its bytes were last read, whatever came out
    attempted_at = models.DateTimeField(null=True)  # when reading them was last tried

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["source", "repository", "manifest_digest"],
                condition=models.Q(kind="modelkit"),
                name="one_version_per_manifest",
            ),
            models.UniqueConstraint(
                fields=["source", "model", "native_version", "native_created"],
                condition=models.Q(kind="mlflow"),
                name="one_version_per_creation",
            ),
        ]
        indexes = [models.Index(fields=["model", "-id"], name="versions_newest_first")]

    def __str__(self) -> str:
        return self.label


class Layer(models.Model):
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="layers")
    position = models.IntegerField()
    kind = models.CharField(max_length=200)
    section = models.CharField(max_length=20, default="")
    name = models.CharField(max_length=512, default="")
    path = models.CharField(max_length=512, default="")
    media_type = models.CharField(max_length=255)
    digest = models.CharField(max_length=71)
    diff_id = models.CharField(max_length=71, default="")
    size = models.BigIntegerField()
    compression = models.CharField(max_length=10, default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "position"], name="one_layer_per_position")]
        indexes = [models.Index(fields=["digest"], name="layers_by_digest")]


class TagObservation(models.Model):
    """A tag seen at a digest. Registries keep no history of tags; this is ours, and rows are only added."""

    source = models.CharField(max_length=100)
    repository = models.CharField(max_length=255)
    tag = models.CharField(max_length=128)
    digest = models.CharField(max_length=71)  # empty: seen to be gone
    seen_at = models.DateTimeField()
    actor = models.CharField(max_length=64, default="")  # pseudonym, as claimed; empty when only compared

    class Meta:
        indexes = [models.Index(fields=["source", "repository", "tag", "-id"], name="tags_newest_first")]


class Snapshot(models.Model):
    """What a source said of one of its objects when last asked; a difference at the next pull is an event."""

    source = models.CharField(max_length=100)
    type = models.CharField(max_length=32)
    native_id = models.CharField(max_length=600)
    value = models.JSONField()
    sha256 = models.CharField(max_length=64)  # of the value's canonical JSON
    seen_at = models.DateTimeField()
    is_gone = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source", "type", "native_id"], name="one_snapshot_per_object")]


class Placement(models.Model):
    """Which version stands in an environment now; its history is the promote events."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="placements")
    environment = models.CharField(max_length=64)
    version = models.ForeignKey(Version, on_delete=models.PROTECT)
    since = models.DateTimeField()
    request = models.CharField(max_length=64, default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "environment"], name="one_version_per_environment")]
