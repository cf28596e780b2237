/* The guardian's loop: watch a supervisor, hold its ranks, end them after it. */

#include "guard.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

/* Pidfds with this number or a higher one are not held. */
#define MAX_FDS 65536
/* The most events that one epoll_wait returns. */
#define EVENTS 64

struct held {
    const struct spx_guard *what;
    int epoll;
    int n;                        /* ranks that are alive */
    int owner_gone;               /* the supervisor has ended, or its end of the channel is closed */
    int dismissed;                /* by the supervisor */
    int error;                    /* -errno: a sandbox forbids a call that we need */
    unsigned char kinds[MAX_FDS]; /* by pidfd: the message that announced it, 0 for none */
};

static int watch(const struct held *held, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(held->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int hold(struct held *held, int pidfd, int kind)
{
    if (pidfd >= MAX_FDS || watch(held, pidfd) < 0) {
        close(pidfd);
        return 0;
    }
    held->kinds[pidfd] = (unsigned char)kind;
    held->n++;
    return 1;
}

static void drop(struct held *held, int pidfd)
{
    /* close() is not enough: the supervisor has the same open file description, so epoll would report it for ever. */
    epoll_ctl(held->epoll, EPOLL_CTL_DEL, pidfd, NULL);
    held->kinds[pidfd] = 0;
    held->n--;
    close(pidfd);
}

/* Hold the ranks whose pidfds come with a message. Returns how many. */
static int hold_all(struct held *held, struct msghdr *message, int kind)
{
    struct cmsghdr *part = CMSG_FIRSTHDR(message);
    int n = 0;

    if (part == NULL || part->cmsg_type != SCM_RIGHTS)
        return 0;
    const int *pidfds = (const int *)(const void *)CMSG_DATA(part);
    for (size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof *pidfds; i++)
        n += hold(held, pidfds[i], kind);
    return n;
}

/* Read one message. Returns whether there may be another. */
static int listen_once(struct held *held)
{
    char word = 0;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SPX_MAX_SENT * sizeof(int))];
    } fds;
    struct iovec text = {.iov_base = &word, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &text,
        .msg_iovlen = 1,
        .msg_control = &fds,
        .msg_controllen = sizeof fds,
    };
    ssize_t size;

    do
        size = recvmsg(held->what->channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    if (size < 0 && errno == EAGAIN)
        return 0;
    /* A sandbox forbids it. If that counted as the supervisor's end, a live call would lose its folder. */
    if (size < 0 && (errno == ENOSYS || errno == EPERM)) {
        held->error = -errno;
        return 0;
    }
    if (size <= 0)
        held->owner_gone = 1;
    if (size == 0)
        return 0;
    /* The supervisor has closed its end, and has not read our answers. ECONNRESET comes once, before what it sent. */
    if (size < 0)
        return errno == ECONNRESET;
    if (word == SPX_DISMISS)
        held->dismissed = 1;
    if (word == SPX_HOLD_ARMED || word == SPX_HOLD_UNARMED) {
        int n = hold_all(held, &message, word);
        /* If the supervisor has died in the meantime, its pidfd reports that. MSG_NOSIGNAL: no SIGPIPE for it. */
        if (send(held->what->channel, &n, sizeof n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
            (errno == ENOSYS || errno == EPERM))
            held->error = -errno;
    }
    return 1;
}

/* Wait up to timeout_ms for events, and handle them: 0, or -errno. */
static int take(struct held *held, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(held->epoll, events, EVENTS, timeout_ms);

    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd;
        if (fd == held->what->supervisor)
            held->owner_gone = 1;
        else if (fd == held->what->channel)
            listen_once(held);
        else
            drop(held, fd);
    }
    return held->error;
}

static void send_all(const struct held *held, int signum, int kinds)
{
    for (int fd = 0; fd < MAX_FDS; fd++)
        if (held->kinds[fd] != 0 && (held->kinds[fd] == kinds || kinds == 0))
            syscall(SYS_pidfd_send_signal, fd, signum, NULL, 0);
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec * 1000) + (now.tv_nsec / 1000000);
}

/* Wait up to `ms` for the ranks to end. */
static void wait_for_ends(struct held *held, long ms)
{
    long deadline = now_ms() + ms;

    for (long left = ms; held->n > 0 && left > 0; left = deadline - now_ms())
        if (take(held, (int)left) < 0)
            return;
}

/* End the ranks of a supervisor that has ended or executed another program. */
static void end_all(struct held *held, int executed)
{
    for (int i = 0; i < held->what->n_steps && held->n > 0; i++) {
        const struct spx_step *step = &held->what->steps[i];

        send_all(held, step->signum, step->only_unarmed && !executed ? SPX_HOLD_UNARMED : 0);
        wait_for_ends(held, step->wait_ms);
    }
}

static int has_ended(int pidfd)
{
    struct pollfd process = {.fd = pidfd, .events = POLLIN};

    return poll(&process, 1, 0) == 1;
}

/* Check that signals can be sent by pidfd, which a sandbox may forbid. Tried on ourselves, before any rank is held. */
static int check_signals(void)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    int result = self < 0 ? -errno : 0;

    if (result == 0 && syscall(SYS_pidfd_send_signal, self, 0, NULL, 0) < 0)
        result = -errno;
    if (self >= 0)
        close(self);
    return result;
}

int spx_guard(const struct spx_guard *what)
{
    struct held held = {.what = what};
    int result = check_signals();

    if (result < 0)
        return result;
    held.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (held.epoll < 0)
        return -errno;
    held.owner_gone = what->supervisor < 0;
    if (watch(&held, what->channel) < 0 || (!held.owner_gone && watch(&held, what->supervisor) < 0))
        result = -errno;
    while (result == 0 && !held.owner_gone && !held.dismissed)
        result = take(&held, -1);
    /* Read what the supervisor sent before its end: otherwise nobody would end those ranks. */
    while (result == 0 && !held.dismissed && listen_once(&held))
        result = held.error;
    if (result == 0 && !held.dismissed) {
        int executed = what->supervisor >= 0 && !has_ended(what->supervisor);
        epoll_ctl(held.epoll, EPOLL_CTL_DEL, what->supervisor, NULL);
        epoll_ctl(held.epoll, EPOLL_CTL_DEL, what->channel, NULL);
        end_all(&held, executed);
        result = SPX_ORPHAN;
    }
    close(held.epoll);
    return result;
}
