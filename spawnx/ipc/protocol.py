"""Messages by SOCK_SEQPACKET between a supervisor and its guardian (see csrc/spawnx.h), its zygote, its templates."""

from __future__ import annotations

# Hold these ranks, whose pidfds come with the message (SCM_RIGHTS). When the supervisor ends, the kernel sends them
# SIGINT (armed), or nothing (unarmed). The answer is an int: how many of them the guardian holds now.
HOLD_ARMED = b"A"
HOLD_UNARMED = b"U"
# The context has ended: leave the ranks alone, and end.
DISMISS = b"D"
# The most fds that one message carries (SCM_MAX_FD of the kernel).
MAX_SENT = 253

# To the zygote: the fds of a request; more follow, or these are the last. The answer is an errno, as an int, with a
# pidfd of the new template if the errno is 0.
MORE = b"+"
COMPLETE = b"."
# The zygote's first message: it waits for requests; or its imports can't be cloned, or something else failed, and it
# ends. Then follow a mask of the signals that came while it booted (`MASK` bytes), and the reason as text.
READY = b"r"
GAVE_UP = b"g"
FAILED = b"f"
MASK = 8
MOST_TEXT = 1024

# From the template of a call: each of its ranks waits at the gate, or has ended. To the template: leave them to the
# supervisor, and end. End of file instead means that no supervisor will adopt them.
AT_GATE = b"t"
ADOPT = b"a"
