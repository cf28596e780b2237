/* Watching many children: their pidfds are in one epoll(7), and are looked at in batches. */

#include "internal.h"

#include <sys/epoll.h>
#include <sys/resource.h>

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
        /* A child is reported once. A zombie stays readable, and removing each would be another call per child. */
        .events = rank < 0 ? EPOLLIN : EPOLLIN | EPOLLONESHOT,
        .data.u64 = (unsigned long long)(unsigned)rank << 32 | (unsigned)pidfd,
    };

    return epoll_ctl(watch, operation, pidfd, &event) < 0 ? -errno : 0;
}

int spx_watch_add(const struct spx_watch *watch, int pidfd, int rank)
{
    return control(watch->fd, EPOLL_CTL_ADD, pidfd, rank);
}

/* Note one that epoll has reported. 1 if spx_watch_wait must return at once, because it has failed or is no child; else
 * 0; or -errno. -EAGAIN if it runs: then epoll reports it again. */
static int note(struct spx_watch *watch, int pidfd, int rank)
{
    struct rusage usage = {0};
    int code = 0;
    int result = watch->n_seen < 0 ? -EINVAL : 0; /* no index: the caller has overwritten it */

    if (result == 0 && rank >= 0)
        result = spx_look(pidfd, &code, &usage);
    if (result == 0 && code == SPX_RUNS)
        result = -EAGAIN; /* it has ended, but its tracer has not reaped it yet */
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

/* Forget fds that are no child: epoll reports them again as long as they are readable. */
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

/* Forget a child that has been seen: 1; or 0 if it was not seen, and epoll may still report it. */
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
    /* Backwards: mostly these are the seen ones in the same order, and `forget` then finds each at once. */
    for (int i = n - 1; i >= 0; i--)
        if (!forget(watch, pidfds[i]))
            epoll_ctl(watch->fd, EPOLL_CTL_DEL, pidfds[i], NULL);
    return 0;
}
