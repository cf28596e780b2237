/* A program started by vfork and exec. */

#include "internal.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/prctl.h>

/* What follows, up to `start_child`, runs between vfork and exec: in the parent's memory, on the parent's stack, while
 * the parent's calling thread stands still and its other threads run. So it makes system calls and nothing else: no
 * allocation, no lock, no stdio, no signal handler (all signals are blocked until none is left). What it writes, other
 * than locals, the parent would find. */

/* Handlers of the parent would run in the child's name on the parent's memory once the mask is lifted: exec resets
 * them anyway. Ignored signals stay ignored, as after exec. The child has its own table (no CLONE_SIGHAND). */
static void reset_handlers(void)
{
    struct sigaction action;

    for (int signum = 1; signum < NSIG; signum++) {
        if (sigaction(signum, NULL, &action) < 0 || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
            continue;
        action = (struct sigaction){.sa_handler = SIG_DFL};
        sigaction(signum, &action, NULL);
    }
}

static void close_between(int first, int last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    /* Before Linux 5.9: one by one. What a limit that was lowered has left above it stays open. */
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd <= last && fd < limit; fd++)
        close(fd);
}

/* The table of fds is the child's own (no CLONE_FILES). `error` is the fd by which a failure is told. */
static int keep_only(const int *keep, int n, int error)
{
    int next = 3;
    int kept_error = 0;

    for (int i = 0; i <= n; i++) {
        int fd = i < n ? keep[i] : INT_MAX;
        if (!kept_error && error < fd) {
            close_between(next, error - 1);
            next = error + 1;
            kept_error = 1;
        }
        if (i == n)
            break;
        close_between(next, fd - 1);
        if (fcntl(fd, F_SETFD, 0) < 0)
            return -errno;
        next = fd + 1;
    }
    close_between(next, INT_MAX);
    return 0;
}

static int become(const struct spx_launch *what, const sigset_t *mask, int parent, int error)
{
    if (what->death_signal != 0) {
        if (prctl(PR_SET_PDEATHSIG, what->death_signal, 0, 0, 0) < 0)
            return -errno;
        if (getppid() != parent)
            return -ESRCH; /* nobody is left to be told */
    }
    int result = keep_only(what->keep, what->n_keep, error);
    if (result < 0)
        return result;
    reset_handlers();
    sigprocmask(SIG_SETMASK, mask, NULL);
    execve(what->path, (char *const *)what->argv, (char *const *)what->envp);
    return -errno;
}

/* The end of what runs in the child. */

static int start_child(const struct spx_launch *what, const sigset_t *mask, int error)
{
    int parent = (int)getpid();
    int pid = (int)vfork();

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        int result = become(what, mask, parent, error);
        (void)!write(error, &result, sizeof result);
        _exit(127);
    }
    return pid;
}

static void block_all(sigset_t *ret_before)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, ret_before);
}

static sigset_t mask_of(const int *blocked, int n)
{
    sigset_t mask;

    sigemptyset(&mask);
    for (int i = 0; i < n; i++)
        sigaddset(&mask, blocked[i]);
    return mask;
}

/* What the child wrote into the pipe: nothing if the exec closed it. Not through shared memory, where emulators such as
 * qemu-user make a fork of vfork. */
static int told_error(int fd)
{
    int error = 0;
    ssize_t got;

    do
        got = read(fd, &error, sizeof error);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof error ? error : 0;
}

/* End a child that no pidfd holds, and reap it: never a stranger that got its number from another reaper. */
static void end_unheld(int pid)
{
    siginfo_t info;

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

int spx_launch(const struct spx_launch *what, int *ret_pid)
{
    int pipe_fds[2];
    sigset_t before;
    sigset_t mask = mask_of(what->blocked, what->n_blocked);

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    block_all(&before);
    int pid = start_child(what, &mask, pipe_fds[1]);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(pipe_fds[1]);

    int result = pid < 0 ? pid : told_error(pipe_fds[0]);
    close(pipe_fds[0]);
    if (pid < 0)
        return result;
    if (result == 0)
        result = spx_open_pidfd(pid);
    if (result < 0)
        end_unheld(pid);
    else
        *ret_pid = pid;
    return result;
}
