/* The guardian's loop. It is linked into the guardian, not into the library. */

#ifndef SPX_GUARD_H
#define SPX_GUARD_H

#include "internal.h"

enum { SPX_MAX_STEPS = 8 };

/* One step of the ladder that ends orphans: a signal, and how long they may take to end after it. The supervisor
 * computes it (spawnx/orphans.py). */
struct spx_step {
    int signum;
    int only_unarmed; /* only for ranks without a death signal: the kernel sends it to the others */
    int wait_ms;
};

/* The arguments of spx_guard. */
struct spx_guard {
    int channel;    /* only the supervisor has the other end, CLOEXEC: an exec closes it */
    int supervisor; /* its pidfd; -1: it has ended already */
    struct spx_step steps[SPX_MAX_STEPS];
    int n_steps;
};

/* Hold ranks until the supervisor dismisses us, ends, or executes another program. In the last two cases end them, step
 * by step; by pidfd, so that no other process is signalled. If the supervisor has executed another program, it lives on
 * in that, and the kernel may send no death signal: then each step is for all ranks. The caller blocks all signals
 * before.
 *
 * 0 if dismissed; SPX_ORPHAN once the ranks have been ended after their supervisor; -errno. */
int spx_guard(const struct spx_guard *what);

#endif
