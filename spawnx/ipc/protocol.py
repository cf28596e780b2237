"""The words between a supervisor and its guardian (as csrc/spawnx.h has them), or its templates: SOCK_SEQPACKET."""

from __future__ import annotations

# Hold these ranks, whose pidfds come with the word (SCM_RIGHTS): the kernel sends them SIGINT when the supervisor ends,
# or sends them nothing. Answered by how many of them are held now, an int.
HOLD_ARMED = b"A"
HOLD_UNARMED = b"U"
# The context has ended: leave the ranks alone, and end.
DISMISS = b"D"
# The most fds that one message carries (SCM_MAX_FD of the kernel).
MAX_SENT = 253

# To the zygote: the fds of a request, of which there are more to come, or no more. Answered by an errno,
# an int, and a pidfd of the template that was made.
MORE = b"+"
COMPLETE = b"."
# What it says first: it waits for requests; its imports can't be cloned, or something else went wrong: it then ends. A
# mask of the signals that came while it booted follows, so many bytes; then why, as text.
READY = b"r"
GAVE_UP = b"g"
FAILED = b"f"
MASK = 8
MOST_TEXT = 1024

# From the template of a call: each of its ranks waits at the gate, or has ended. To it: leave them to the supervisor,
# and end. The end of the connection says that there is nobody to leave them to.
AT_GATE = b"t"
ADOPT = b"a"
