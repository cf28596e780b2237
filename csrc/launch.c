/* Starting a program by vfork and exec. */

#include "internal.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/prctl.h>

/* Without close_range(2), only fds below this are closed. */
#define CLOSE_MAX 65536

/* What follows, up to `start_child`, runs between vfork and exec: in the parent's memory, on the parent's stack, while
 * the parent's calling thread stands still and its other threads run. So it makes system calls and nothing else: no
 * allocation, no lock, no stdio, no signal handler (all signals are blocked until none is left). What it writes, other
 * than locals, the parent would find. */

/* Reset the parent's handlers, as exec does anyway: once the mask is lifted, they would run in the child, on the
 * parent's memory. Ignored signals stay ignored, as after exec. The child has its own table (no CLONE_SIGHAND). */
static void reset_handlers(void)
{
    struct sigaction action;

    for (int signum = 1; signum < NSIG; signum++) {
        if (sigaction(signum, NULL, &action) < 0 || action.sa_handler == SIG_DFL ||
            action.sa_handler == SIG_IGN)
            continue;
        action = (struct sigaction){.sa_handler = SIG_DFL};
        sigaction(signum, &action, NULL);
    }
}

static void close_between(int first, int last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    /* Before Linux 5.9, or if a sandbox forbids it: one by one, up to CLOSE_MAX, as a limit of 2^30 takes minutes. */
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd <= last && fd < limit && fd < CLOSE_MAX; fd++)
        close(fd);
}

/* Close the fds from next to fd - 1. Returns the next number after both. */
static int close_up_to(int next, int fd)
{
    close_between(next, fd - 1);
    return fd < next ? next : fd + 1;
}

/* The table of fds is the child's own (no CLONE_FILES). `error` is the fd to which a failure is written. */
static int keep_only(const int *keep, int n, int error)
{
    int next = 3;

    for (int i = 0; i < n; i++) {
        if (error < keep[i])
            next = close_up_to(next, error);
        next = close_up_to(next, keep[i]);
        /* If it is `error`, the caller had nothing open under that number, and our pipe must not outlive the exec. */
        if (keep[i] == error || fcntl(keep[i], F_SETFD, 0) < 0)
            return -EBADF;
    }
    next = close_up_to(next, error);
    close_between(next, INT_MAX);
    return 0;
}

static int become(const struct spx_launch *what, const sigset_t *mask, int parent, int error)
{
    if (what->death_signal != 0) {
        /* If a sandbox forbids it, the child runs as on systems without such a signal. */
        if (prctl(PR_SET_PDEATHSIG, what->death_signal, 0, 0, 0) < 0 && errno == EINVAL)
            return -EINVAL;
        int now = getppid();
        if (now != parent && now != 0) /* 0: it is in an outer pid namespace */
            return -ESRCH;             /* nobody is left to read it */
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

/* Start the child, which writes its error to told[1]. *ret_shared: whether it ran in our memory; then it has executed
 * the program, or failed, by now. Emulators such as qemu-user, and TSan, make a fork of vfork: then the child is under
 * way, as after our own fork. */
static int start_child(
    const struct spx_launch *what, const sigset_t *mask, const int *told, volatile int *ret_shared)
{
    int parent = getpid();
    int pid = vfork(); /* NOLINT: by the rules above */

    if (pid < 0 && (errno == ENOSYS || errno == EPERM))
        pid = fork(); /* a sandbox forbids vfork: copy our memory instead */
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        *ret_shared = 1; /* NOLINT: the parent must see it */
        close(told[0]);  /* else a kept fd of this number, which isn't open, would seem open */
        int result = become(what, mask, parent, told[1]);
        (void)!write(told[1], &result, sizeof result);
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

/* The error that the child wrote into the pipe; 0 if it has executed the program. Wait for the pipe's end only if the
 * child is under way: a process that another thread forks in the meantime keeps the pipe open as long as it lives. */
static int told_error(int fd, int underway)
{
    struct pollfd end = {.fd = fd, .events = POLLIN};
    int error = 0;

    while (underway && poll(&end, 1, -1) < 0 && errno == EINTR)
        ;
    return read(fd, &error, sizeof error) == (ssize_t)sizeof error ? error : 0;
}

/* Kill and reap a child that no pidfd holds. waitid first: if somebody else has reaped it, its number may be reused. */
static void end_unheld(int pid)
{
    siginfo_t info;

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int spx_launch(const struct spx_launch *what, int *ret_pid)
{
    int told[2];
    volatile int shared = 0;
    sigset_t before;
    sigset_t mask = mask_of(what->blocked, what->n_blocked);

    if (pipe2(told, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    block_all(&before);
    int pid = start_child(what, &mask, told, &shared);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(told[1]);

    int result = pid < 0 ? pid : told_error(told[0], !shared);
    close(told[0]);
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
