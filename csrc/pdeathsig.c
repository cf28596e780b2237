/* The parent death signal. */

#include "internal.h"

#include <sys/prctl.h>

int spx_arm(int signum, int parent)
{
    if (prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) < 0)
        return -errno;
    /* In this order: a parent that ends from here on sends the signal, one that ended before is no longer our parent.
     * Not compared with 1, who adopts orphans in most places: in a container the supervisor may be pid 1. */
    int now = getppid();
    return now == parent || now == 0 ? 0 : SPX_ORPHAN;
}
