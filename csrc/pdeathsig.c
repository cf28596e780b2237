/* The parent death signal. */

#include "internal.h"

#include <sys/prctl.h>

int spx_arm(int signum, int parent)
{
    if (prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) < 0)
        return -errno;
    /* In this order: if the parent ends from here on, the kernel sends the signal; if it ended before, getppid() shows
     * another process. Not compared with 1, which mostly adopts orphans: in a container the supervisor may be pid 1. */
    int now = getppid();
    return now == parent || now == 0 ? 0 : SPX_ORPHAN;
}
