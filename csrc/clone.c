/* Clones of the calling process that are its siblings: children of its parent. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "internal.h"

#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif

/* The first form of clone3's argument (Linux 5.3). */
struct clone_args_0 {
    unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

/* What libc keeps of the calling thread, and a raw clone leaves as it is: its tid, and the list of its robust mutexes. */
struct thread_of_libc {
    int *tid;
    void *robust_list;
    size_t robust_size;
};

/* glibc registers the address of its tid as the one that the kernel clears at the thread's end; musl registers another.
 * Cloning on without the renewal, process-shared locks don't exclude on glibc, and signals hit the wrong one on musl. */
static int find_thread(struct thread_of_libc *ret_thread)
{
    if (prctl(PR_GET_TID_ADDRESS, &ret_thread->tid, 0, 0, 0) < 0)
        return -errno;
    if (ret_thread->tid == NULL || *ret_thread->tid != (int)syscall(SYS_gettid))
        return -ENOTSUP;
    if (syscall(SYS_get_robust_list, 0, &ret_thread->robust_list, &ret_thread->robust_size) < 0)
        return -errno;
    return 0;
}

/* Whether there is one thread: unshare(2) says that it has nothing to do, or EINVAL. Containers forbid it to those who
 * have no rights, whatever they ask: then the folder of the threads has a link for each. */
static int check_one_thread(void)
{
    struct stat threads;

    if (syscall(SYS_unshare, CLONE_THREAD) == 0)
        return 0;
    if (errno == EINVAL)
        return -EBUSY;
    if (stat("/proc/self/task", &threads) < 0)
        return -ENOTSUP;
    return threads.st_nlink == 3 ? 0 : -EBUSY; /* with . and .. */
}

/* The first acts of a clone. From the first one on, the end of the supervisor is its own; before, it is found out. */
static void begin(const struct spx_clone *what, const struct thread_of_libc *thread, int template, int *place)
{
    prctl(PR_SET_PDEATHSIG, what->death_signal, 0, 0, 0);
    int parent = getppid();
    if (parent == template)
        *place = SPX_NO_SIBLING; /* a kernel that takes the flag and ignores it (gVisor) */
    if (parent != what->parent || *thread->tid != (int)syscall(SYS_gettid))
        _exit(1);
    syscall(SYS_set_robust_list, thread->robust_list, thread->robust_size);
}

#define FLAGS (CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID)

/* The older call, for kernels and sandboxes that don't know the newer one: a container's usual seccomp filter answers
 * ENOSYS to clone3, whose flags it can't see. The order of its arguments is each architecture's own. */
static long clone_as_before(const struct thread_of_libc *thread, int *place)
{
#ifdef __x86_64__
    return syscall(SYS_clone, FLAGS, 0, place, thread->tid, 0);
#elif defined(__aarch64__)
    return syscall(SYS_clone, FLAGS, 0, place, 0, thread->tid);
#else
    (void)thread;
    (void)place;
    errno = ENOSYS;
    return -1;
#endif
}

static long clone_sibling(const struct spx_clone *what, int i, const struct thread_of_libc *thread)
{
    struct clone_args_0 arguments = {
        /* No exit signal: with CLONE_PARENT it is the template's own, and must not be named. */
        .flags = FLAGS,
        .parent_tid = (unsigned long long)(uintptr_t)&what->pids[i],
        .child_tid = (unsigned long long)(uintptr_t)thread->tid,
    };
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);

    if (pid < 0 && (errno == ENOSYS || errno == EPERM))
        pid = clone_as_before(thread, &what->pids[i]);
    return pid;
}

int spx_clone_siblings(const struct spx_clone *what)
{
    struct thread_of_libc thread;
    int template = getpid();
    int result = find_thread(&thread);

    if (result == 0)
        result = check_one_thread();
    if (result < 0)
        return result;

    /* Or each clone would write what is buffered. */
    (void)fflush(NULL);
    /* cffi has let go of the interpreter, which must be ours for its own fork functions. */
    PyGILState_STATE gil = PyGILState_Ensure();
    PyOS_BeforeFork();
    for (int i = 0; i < what->n && result == 0; i++) {
        long pid = clone_sibling(what, i, &thread);
        if (pid == 0) {
            begin(what, &thread, template, &what->pids[i]);
            PyOS_AfterFork_Child();
            PyGILState_Release(gil);
            return i + 1;
        }
        if (pid < 0)
            result = -errno;
    }
    PyOS_AfterFork_Parent();
    PyGILState_Release(gil);
    return result;
}
