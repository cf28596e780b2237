/* The watch over a supervisor, which the guardian is. Linked into that program, not into the library. */

#ifndef SPX_GUARD_H
#define SPX_GUARD_H

#include "internal.h"

enum { SPX_MAX_STEPS = 8 };

/* One step of the ladder by which orphans are ended: what is sent, and how long they may take then. The supervisor has
 * made it (spawnx/orphans.py). */
struct spx_step {
    int signum;
    int only_unarmed; /* to those alone to which the kernel sends nothing: the others have it from the kernel */
    int wait_ms;
};

/* What spx_guard guards. */
struct spx_guard {
    int channel;    /* the other end is the supervisor's alone, and CLOEXEC: its end tells of an exec there */
    int supervisor; /* its pidfd; -1: it is gone already */
    struct spx_step steps[SPX_MAX_STEPS];
    int n_steps;
};

/* Hold ranks until the supervisor dismisses us, or has ended, or has become another program. In the last two cases end
 * them, step by step; by pidfd, so that nobody else is hit. Where the supervisor has become another program, its threads
 * live on in it, and the kernel sends nothing: then each step is for all. The caller blocks all signals before.
 *
 * 0 if dismissed; SPX_ORPHAN once the ranks of a gone supervisor have ended; -errno. */
int spx_guard(const struct spx_guard *what);

#endif
