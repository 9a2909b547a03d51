"""`verify.pyz`: the verifier as one file, the same bytes from the same release."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

import auditproof
from auditportal.bundles.archive import entry

MAIN = b"import sys\n\nfrom auditproof.__main__ import main\n\nsys.exit(main())\n"


@functools.cache
def build() -> bytes:
    """A zip application of `auditproof`; stored, so that no compressor decides about its bytes."""
    package = Path(str(auditproof.__file__)).parent
    files = {f"auditproof/{path.name}": path.read_bytes() for path in package.glob("*.py")} | {"__main__.py": MAIN}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as application:
        for name in sorted(files):
            info = entry(name)
            info.compress_type = zipfile.ZIP_STORED
            application.writestr(info, files[name])
    return buffer.getvalue()
