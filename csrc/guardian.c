/* The guardian: a program of its own, beside the library. See spx_guard. */

#include "guard.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Detach from the supervisor's terminal, streams and current folder. While we had a stream open, its reader would get
 * no end of file. All signals were blocked at the launch and stay blocked, so only SIGKILL can end us early. */
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

/* Whether a file's name is one of spawnx/ipc/names.py: a rank's report, a partly written report, the mark of a rank
 * that has succeeded; or the scoreboard, if that has a name. */
static int is_of_ours(const char *name)
{
    const char *kind = name + strspn(name, "0123456789");

    if (kind == name)
        return strcmp(name, "scoreboard") == 0;
    return strcmp(kind, ".pickle") == 0 || strcmp(kind, ".pickle.part") == 0 ||
           strcmp(kind, ".pickle.ended") == 0;
}

/* Remove a context's folder and our files in it. The files by the folder's fd, which is as old as the folder: if
 * another user may rename it, the path may be another folder by now, or a link. If that happens between lstat and
 * rmdir, the worst result is that another empty folder is removed. */
static void remove_folder(int fd, const char *path)
{
    DIR *folder = fdopendir(fd);
    const struct dirent *entry;
    struct stat ours;
    struct stat named;

    if (folder == NULL)
        return;
    rewinddir(folder); /* the supervisor may have moved the offset, which we share */
    while ((entry = readdir(folder)) != NULL)
        if (is_of_ours(entry->d_name))
            unlinkat(fd, entry->d_name, 0);
    if (fstat(fd, &ours) == 0 && lstat(path, &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
        rmdir(path);
    closedir(folder);
}

/* A pidfd of the supervisor, or -1 if it has ended: no other process has its number while it is our parent. If it is in
 * an outer pid namespace, its number means nothing in ours. Then only the channel reports its end, not this fd. */
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

/* Read a ladder, such as "U2:400,15:1600,9:30000": each step is a signal and a wait in milliseconds, after a U if it is
 * for unarmed ranks only. 0, or -1 if the text is no ladder. */
static int read_ladder(const char *text, struct spx_guard *ret_what)
{
    char *end = NULL;

    for (int i = 0; i < SPX_MAX_STEPS; i++, text = end + 1) {
        struct spx_step *step = &ret_what->steps[i];

        step->only_unarmed = *text == 'U';
        step->signum = (int)strtol(text + step->only_unarmed, &end, 10);
        if (step->signum <= 0 || *end != ':')
            return -1;
        text = end + 1;
        step->wait_ms = (int)strtol(text, &end, 10);
        if (end == text)
            return -1;
        ret_what->n_steps = i + 1;
        if (*end == 0)
            return 0;
        if (*end != ',')
            return -1;
    }
    return -1;
}

/* spawnx-guardian CHANNEL FOLDER SUPERVISOR LADDER PATH: two fds, the supervisor's pid, the ladder that ends its
 * orphans, and the path of the folder, which is removed after them. */
int main(int argc, char **argv)
{
    struct spx_guard what = {0};

    if (argc != 6 || read_ladder(argv[4], &what) < 0)
        return 2;
    daemonize();
    what.channel = number(argv[1]);
    what.supervisor = pidfd_of_parent(number(argv[3]));
    if (spx_guard(&what) == SPX_ORPHAN)
        remove_folder(number(argv[2]), argv[5]);
    return 0;
}
