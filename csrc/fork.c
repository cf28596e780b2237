/* Preparing a process for forks whose children go on with all its state, and adopting these children. */

#include "internal.h"

#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

/* Check that this process has one thread: 0, or -errno. With one thread, unshare(CLONE_THREAD) succeeds and does
 * nothing; else it fails with EINVAL. Containers forbid any unshare(2) to unprivileged processes. Then the link count
 * of /proc/self/task shows the number of threads. */
static int check_one_thread(void)
{
    struct stat threads;

    if (syscall(SYS_unshare, CLONE_THREAD) == 0)
        return 0;
    if (errno == EINVAL)
        return -EBUSY;
    if (stat("/proc/self/task", &threads) < 0)
        return -ENOTSUP;
    return threads.st_nlink == 3 ? 0 : -EBUSY; /* its own, . and .. */
}

int spx_get_ready_to_fork(void)
{
    int result = check_one_thread();

    /* Otherwise each copy would write the buffered output again. */
    if (result == 0)
        (void)fflush(NULL);
    return result;
}

int spx_adopt_orphans(int on)
{
    int was = 0;

    if (prctl(PR_GET_CHILD_SUBREAPER, &was, 0, 0, 0) < 0)
        return -errno;
    if (was != on && prctl(PR_SET_CHILD_SUBREAPER, on, 0, 0, 0) < 0)
        return -errno;
    return was;
}
