from __future__ import annotations


class AccountError(Exception):
    """A change of people or tokens that cannot be; the message is for the person who tried."""
