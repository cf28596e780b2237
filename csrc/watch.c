/* Who has ended, and how: pidfds, in one epoll, looked at and reaped in batches. */

#include "internal.h"

#include <sys/epoll.h>
#include <sys/resource.h>

/* <linux/pidfd.h>: _IOWR(0xFF, 11, struct pidfd_info) with the 64 bytes of its first form, and the bit by which it tells
 * exit codes. */
#define GET_INFO 0xC040FF0BUL
#define INFO_EXIT (1ULL << 3)

/* The raw call: it has the rusage, which libc's waitid() withholds. With WNOWAIT it fills it in as well. */
static int wait_for(int type, int id, int flags, siginfo_t *ret_info, struct rusage *ret_usage)
{
    long result;

    do
        result = syscall(SYS_waitid, type, id, ret_info, flags | WEXITED | WNOHANG, ret_usage);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* The exit status of a child that somebody else has reaped (PIDFD_GET_INFO, Linux 6.15): 0, or -errno. */
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

static int look(int pidfd, int *ret_code, struct rusage *ret_usage)
{
    siginfo_t info = {0}; /* si_pid stays 0 where nothing is to be told */

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
    /* Between the fork and now an ignored SIGCHLD, or somebody's waitpid(-1), may have reaped the child, and the kernel
     * may have given its number away. Only of a child of ours does waitid tell anything. */
    int result = look((int)pidfd, &code, NULL);
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
    return look(pidfd, ret_code, NULL);
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
            return seen > 0 ? seen : result; /* found again at the next call */
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

int spx_watch_open(struct spx_watch *ret_watch)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0)
        return -errno;
    ret_watch->fd = fd;
    ret_watch->n_seen = 0;
    return 0;
}

static int control(int watch, int operation, int pidfd, int rank)
{
    struct epoll_event event = {
        /* A child once: a zombie stays readable, and taking each out again would be another call per child. */
        .events = rank < 0 ? EPOLLIN : EPOLLIN | EPOLLONESHOT,
        .data.u64 = (unsigned long long)(unsigned)rank << 32 | (unsigned)pidfd,
    };

    return epoll_ctl(watch, operation, pidfd, &event) < 0 ? -errno : 0;
}

int spx_watch_add(const struct spx_watch *watch, int pidfd, int rank)
{
    return control(watch->fd, EPOLL_CTL_ADD, pidfd, rank);
}

/* Note one that epoll has told. Whether the caller is to hear of it at once, because it has failed or is no child; or
 * -errno, or -EAGAIN if it runs: then it is told again. */
static int note(struct spx_watch *watch, int pidfd, int rank)
{
    struct rusage usage = {0};
    int code = 0;
    int result = watch->n_seen < 0 ? -EINVAL : 0; /* what the caller wrote over is no index */

    if (result == 0 && rank >= 0)
        result = look(pidfd, &code, &usage);
    if (result == 0 && code == SPX_RUNS)
        result = -EAGAIN; /* epoll was right, waitid is too: a tracer has been told first */
    if (result < 0) {
        control(watch->fd, EPOLL_CTL_MOD, pidfd, rank);
        return result;
    }
    watch->seen[watch->n_seen++] = (struct spx_seen){
        .rank = rank,
        .pidfd = pidfd,
        .code = code,
        .max_rss_kb = usage.ru_maxrss,
    };
    return rank < 0 || code != 0;
}

/* Forget what is no child: it is told anew as long as it is readable. */
static void forget_others(struct spx_watch *watch)
{
    for (int i = watch->n_seen - 1; i >= 0; i--)
        if (watch->seen[i].rank < 0)
            watch->seen[i] = watch->seen[--watch->n_seen];
}

int spx_watch_wait(struct spx_watch *watch, int timeout_ms, int enough, int gather_ms)
{
    struct epoll_event events[SPX_BATCH];
    int at_once = 0;

    forget_others(watch);
    while (watch->n_seen < SPX_BATCH && watch->n_seen < enough && !at_once) {
        int wait_ms = watch->n_seen > 0 ? gather_ms : timeout_ms;
        int ready = epoll_wait(watch->fd, events, SPX_BATCH - watch->n_seen, wait_ms);
        int result = ready < 0 ? -errno : 0;

        for (int i = 0; i < ready; i++) {
            int told = note(watch, (int)(unsigned)events[i].data.u64, (int)(events[i].data.u64 >> 32));
            at_once |= told > 0;
            if (told < 0 && told != -EAGAIN)
                result = told;
        }
        if (result < 0 && watch->n_seen == 0)
            return result;
        if (result < 0 || ready == 0 || watch->n_seen == 0)
            break;
    }
    return watch->n_seen;
}

/* Forget a child that has been seen: 1, or 0 if none has, and epoll may still tell it. */
static int forget(struct spx_watch *watch, int pidfd)
{
    for (int i = watch->n_seen - 1; i >= 0; i--) {
        if (watch->seen[i].pidfd != pidfd || watch->seen[i].rank < 0)
            continue;
        watch->seen[i] = watch->seen[--watch->n_seen];
        return 1;
    }
    return 0;
}

int spx_watch_discard(struct spx_watch *watch, const int *pidfds, int n)
{
    /* From the last on: mostly these are the ones that were seen, in that order, and each is found at once. */
    for (int i = n - 1; i >= 0; i--)
        if (!forget(watch, pidfds[i]))
            epoll_ctl(watch->fd, EPOLL_CTL_DEL, pidfds[i], NULL);
    return 0;
}
