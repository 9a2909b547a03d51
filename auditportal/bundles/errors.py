"""What can go wrong with a bundle.

BundleError        a request that cannot be; the message is for the person who asked
├── ChangedError   what the bundle was to hold changed while it was built: a new map is recorded, and it is built anew
└── AlteredError   the row or the file of an issued bundle is not what the log says was issued: it is not handed out
"""

from __future__ import annotations


class BundleError(Exception):
    pass


class ChangedError(BundleError):
    pass


class AlteredError(BundleError):
    pass
