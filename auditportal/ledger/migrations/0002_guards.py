from __future__ import annotations

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("ledger", "0001_initial")]
    operations = [
        migrations.RunSQL((SQL / "guards.sql").read_text()),
        migrations.RunSQL((SQL / "search.sql").read_text()),
    ]
