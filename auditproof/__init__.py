"""What an auditor reads and runs: the bytes of the log, and how to check them without the portal."""
