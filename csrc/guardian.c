/* The guardian: a program of its own, beside the library. See spx_guard. */

#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* Leave what the supervisor's user sees: its terminal, its streams (a reader's end of file would wait for us), its
 * folder. All signals are blocked by whoever launches, and stay so: only SIGKILL ends us before our time. */
static void withdraw(void)
{
    sigset_t all;
    struct rlimit fds;
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    for (int fd = 0; fd <= 2; fd++)
        if (nowhere < 0 || dup2(nowhere, fd) < 0)
            close(fd);
    if (nowhere > 2)
        close(nowhere);
    (void)!chdir("/");
    if (getrlimit(RLIMIT_NOFILE, &fds) == 0) {
        fds.rlim_cur = fds.rlim_max;
        setrlimit(RLIMIT_NOFILE, &fds);
    }
}

/* Remove a context's folder, which has files only. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;

    if (folder == NULL)
        return;
    int fd = dirfd(folder);
    while (fd >= 0 && (entry = readdir(folder)) != NULL)
        unlinkat(fd, entry->d_name, 0); /* not . and .. */
    closedir(folder);
    rmdir(path);
}

/* A pidfd of the supervisor, -1 if it is gone: only while it is our parent its number is nobody else's. In an outer pid
 * namespace it has no number that means it here: then the channel alone tells of its end, and this fd tells nothing. */
static int pidfd_of_parent(int pid)
{
    if (getppid() == 0)
        return eventfd(0, EFD_CLOEXEC);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    return getppid() == pid ? pidfd : -1;
}

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

/* spawnx-guardian CHANNEL SUPERVISOR GRACE_MS FOLDER: an fd, the parent's pid, how long its orphans may live, and what
 * is removed after them. */
int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    withdraw();
    struct spx_guard what = {
        .channel = number(argv[1]),
        .supervisor = pidfd_of_parent(number(argv[2])),
        .grace_ms = number(argv[3]),
    };
    if (spx_guard(&what) == SPX_ORPHAN)
        remove_folder(argv[4]);
    return 0;
}
