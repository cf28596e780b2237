/* The guardian: a program of its own, beside the library. See spx_guard. */

#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Leave what the supervisor's user sees: its terminal, its streams (a reader's end of file would wait for us), its
 * folder. All signals are blocked by whoever launches, and stay so: only SIGKILL ends us before our time. */
static void daemonize(void)
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

/* Whether a file may be a rank's, as spawnx/ipc/names.py has it: its report, one that was being written, or the word
 * that it has ended well; or the scoreboard, where that has a name. */
static int is_of_ours(const char *name)
{
    const char *kind = name + strspn(name, "0123456789");

    if (kind == name)
        return strcmp(name, "scoreboard") == 0;
    return strcmp(kind, ".pickle") == 0 || strcmp(kind, ".pickle.part") == 0 ||
           strcmp(kind, ".pickle.ended") == 0;
}

/* Remove a context's folder with what is in it of ours. By its fd, which is as old as the folder: where another user may
 * rename, the path may be another one's by now, or a link to it. Should that happen before the last line, the worst is
 * that another empty folder is removed. */
static void remove_folder(int fd, const char *path)
{
    DIR *folder = fdopendir(fd);
    const struct dirent *entry;
    struct stat ours;
    struct stat named;

    if (folder == NULL)
        return;
    rewinddir(folder); /* its offset was the supervisor's, too */
    while ((entry = readdir(folder)) != NULL)
        if (is_of_ours(entry->d_name))
            unlinkat(fd, entry->d_name, 0);
    if (fstat(fd, &ours) == 0 && lstat(path, &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
        rmdir(path);
    closedir(folder);
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

/* spawnx-guardian CHANNEL FOLDER SUPERVISOR GRACE_MS PATH: two fds, the parent's pid, how long its orphans may live, and
 * the path of the folder, which is removed after them. */
int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    daemonize();
    struct spx_guard what = {
        .channel = number(argv[1]),
        .supervisor = pidfd_of_parent(number(argv[3])),
        .grace_ms = number(argv[4]),
    };
    if (spx_guard(&what) == SPX_ORPHAN)
        remove_folder(number(argv[2]), argv[5]);
    return 0;
}
