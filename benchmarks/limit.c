/* The floor of join: the least that a process can do about its children, which others have forked.
 *
 * Compiled at run time by limit.py, and called without the interpreter's lock. */

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

/* Wait for any child: its pid; -1 if there is none, or if it failed. The kernel looks at each child to find it. */
int limit_wait_any(void)
{
    int status;
    int pid = wait(&status);

    return pid > 0 && status == 0 ? pid : -1;
}

/* Wait for these children, one after the other: how many there were, less those that were reaped before; -1 if one
 * failed. */
int limit_wait_all(const int *pids, int n)
{
    int reaped = 0;

    for (int i = 0; i < n; i++) {
        int status;

        if (waitpid(pids[i], &status, 0) == pids[i])
            reaped++;
        else if (errno == ECHILD)
            continue;
        else
            return -1;
        if (status != 0)
            return -1;
    }
    return reaped;
}

/* Wait until a child has ended, send SIGTERM to all, and wait for them: how many there were. */
int limit_end_all(const int *pids, int n)
{
    siginfo_t info;
    int reaped = 0;

    if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) < 0)
        return -1;
    for (int i = 0; i < n; i++)
        kill(pids[i], SIGTERM);
    for (int i = 0; i < n; i++)
        reaped += waitpid(pids[i], NULL, 0) == pids[i];
    return reaped;
}
