/* What is to be seen to before a process forks copies of itself that go on with all it has; and who adopts them. */

#include "internal.h"

#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

/* Whether there is one thread: unshare(2) says that it has nothing to do, or EINVAL. Containers forbid it to those who
 * have no rights, whatever they ask: then the folder of the threads has a link for each. */
static int check_one_thread(void)
{
    struct stat threads;

    if (syscall(SYS_unshare, CLONE_THREAD) == 0)
        return 0;
    if (errno == EINVAL)
        return -EBUSY;
    if (stat("/proc/self/task", &threads) < 0)
        return -ENOTSUP;
    return threads.st_nlink == 3 ? 0 : -EBUSY; /* with . and .. */
}

int spx_get_ready_to_fork(void)
{
    int result = check_one_thread();

    /* Or each copy would write what is buffered. */
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
