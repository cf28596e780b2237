/* One child: open a pidfd, look at it, reap it. Also looks, by pid, at children that no pidfd holds. */

#include "internal.h"

#include <sys/resource.h>

/* <linux/pidfd.h>: _IOWR(0xFF, 11, struct pidfd_info) with the 64 bytes of its first form, and the bit that requests
 * the exit code. */
#define GET_INFO 0xC040FF0BUL
#define INFO_EXIT (1ULL << 3)

/* The raw system call returns the rusage, which libc's waitid() does not. It does so with WNOWAIT, too. */
static int wait_for(int type, int id, int flags, siginfo_t *ret_info, struct rusage *ret_usage)
{
    long result;

    do
        result = syscall(SYS_waitid, type, id, ret_info, flags | WEXITED | WNOHANG, ret_usage);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* Get the exit status of a child that somebody else has reaped (PIDFD_GET_INFO, Linux 6.15): 0, or -errno. */
static int reaped_status(int pidfd, int *ret_status)
{
    struct {
        unsigned long long mask;
        unsigned long long cgroup;
        unsigned ids[11];
        int exit_code;
    } info = {.mask = INFO_EXIT};

    /* Not ioctl(): its second argument is a long in glibc and an int in musl. */
    if (syscall(SYS_ioctl, pidfd, GET_INFO, &info) < 0)
        return -errno;
    if (!(info.mask & INFO_EXIT))
        return -ENODATA;
    *ret_status = info.exit_code;
    return 0;
}

static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int code_in(const siginfo_t *info)
{
    return info->si_code == CLD_EXITED ? info->si_status : -info->si_status;
}

int spx_look(int pidfd, int *ret_code, struct rusage *ret_usage)
{
    siginfo_t info = {0}; /* si_pid stays 0 while the child runs */

    int result = wait_for(SPX_P_PIDFD, pidfd, WNOWAIT, &info, ret_usage);
    if (result == -ECHILD) {
        int status = 0;
        *ret_code = reaped_status(pidfd, &status) == 0 ? code_of(status) : SPX_LOST;
    } else if (result < 0)
        return result;
    else if (info.si_pid == 0)
        *ret_code = SPX_RUNS;
    else
        *ret_code = code_in(&info);
    return 0;
}

int spx_open_pidfd(int pid)
{
    int code;
    long pidfd = syscall(SYS_pidfd_open, pid, 0);

    if (pidfd < 0)
        return errno == ESRCH ? -ECHILD : -errno;
    /* Between the fork and now, an ignored SIGCHLD or somebody's waitpid(-1) may have reaped the child. Then another
     * process may have got its number. waitid reports on children only, so that one is SPX_LOST. */
    int result = spx_look((int)pidfd, &code, NULL);
    if (result == 0 && code == SPX_LOST)
        result = -ECHILD;
    if (result < 0) {
        close((int)pidfd);
        return result;
    }
    return (int)pidfd;
}

int spx_peek(int pidfd, int *ret_code)
{
    return spx_look(pidfd, ret_code, NULL);
}

int spx_reap(const int *pidfds, int n)
{
    siginfo_t info;

    for (int i = 0; i < n; i++)
        wait_for(SPX_P_PIDFD, pidfds[i], 0, &info, NULL);
    return 0;
}

int spx_sweep(const int *pids, int n, struct spx_seen *ret_seen, int max)
{
    int seen = 0;

    for (int i = 0; i < n && seen < max; i++) {
        siginfo_t info = {0};
        struct rusage usage = {0};
        int result = wait_for(P_PID, pids[i], WNOWAIT, &info, &usage);
        if (result < 0 && result != -ECHILD)
            return seen > 0 ? seen : result; /* the next call finds the error again */
        if (result == 0 && info.si_pid == 0)
            continue;
        ret_seen[seen++] = (struct spx_seen){
            .rank = i,
            .pidfd = -1,
            .code = result < 0 ? SPX_LOST : code_in(&info),
            .max_rss_kb = usage.ru_maxrss,
        };
    }
    return seen;
}
