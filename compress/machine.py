"""How many threads there is work for, and how many a runtime gets."""

import os


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, cores())
"""As many as a phone has fast cores, but no more than there are here."""
