"""What a supervisor says to its guardian, over a SOCK_SEQPACKET socket: as csrc/spawnx.h has it."""

from __future__ import annotations

# Hold these ranks, whose pidfds come with the word (SCM_RIGHTS): the kernel sends them SIGINT when the supervisor ends,
# or sends them nothing. Answered by how many of them are held now, an int.
HOLD_ARMED = b"A"
HOLD_UNARMED = b"U"
# The context has ended: leave the ranks alone, and end.
DISMISS = b"D"
# The most fds that one message carries (SCM_MAX_FD of the kernel).
MAX_SENT = 253
