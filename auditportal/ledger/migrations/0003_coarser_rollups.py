from __future__ import annotations

from pathlib import Path

from django.db import migrations, models

TOLD = (Path(__file__).parent.parent / "sql" / "rollups.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("ledger", "0002_guards")]
    operations = [
        migrations.RunSQL("DELETE FROM ledger_rollup"),
        migrations.RemoveConstraint("rollup", "one_rollup_per_value"),
        migrations.RenameField("rollup", "hour", "start"),
        migrations.AddField(
            "rollup",
            "grain",
            models.TextField(choices=[("hour", "Hour"), ("day", "Day"), ("all", "All")], default="hour"),
        ),
        migrations.AddField("rollup", "not_done", models.BigIntegerField(default=0)),
        migrations.AddConstraint(
            "rollup",
            models.UniqueConstraint(fields=("dimension", "grain", "start", "value"), name="one_rollup_per_value"),
        ),
        migrations.RunSQL(f"INSERT INTO ledger_rollup (dimension, value, grain, start, count, not_done) {TOLD}"),
    ]
