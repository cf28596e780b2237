/* The C core of spawnx: its whole surface, and its contract.
 *
 * cffi reads this file as it is. Hence no preprocessor line, no includes, and only int, long, struct and enum: pids,
 * fds and signal numbers are int, and a Python object is void *. Each .c file includes it once.
 *
 * In all functions: the result is >= 0, or -errno. The target of a ret_ argument is untouched on failure. The caller
 * closes every returned fd, which is CLOEXEC. Calls that can't block retry EINTR; calls that can block return -EINTR.
 * No function allocates, logs or starts a thread. State between two calls is in the caller's structures only; spx_leave
 * keeps an exit code. Linux only.
 */

enum {
    /* The version on which library and header must agree. Raised with every change of the surface. */
    SPX_ABI = 13,
    /* spx_arm: the parent had died already. */
    SPX_ORPHAN = 1,
    /* spx_peek and struct spx_seen: somebody else has reaped the child, and the kernel doesn't report its exit code. */
    SPX_LOST = 1 << 16,
    /* spx_peek and struct spx_seen: the child runs. */
    SPX_RUNS = 1 << 17,
};

/* libc's environment. It includes changes by os.putenv and by libraries, which os.environ doesn't have. Any thread that
 * holds the interpreter's lock may change it. */
extern char **environ; /* NOLINT(readability-redundant-declaration): cffi must see it */

/* The SPX_ABI of the compiled library. */
int spx_abi(void);

/* Ask the kernel to send `signum` to the calling process when the thread that created it ends (prctl(2),
 * PR_SET_PDEATHSIG); then compare getppid() with `parent`. If getppid() is 0, the parent is in an outer pid namespace,
 * and can't be compared.
 *
 * 0, or SPX_ORPHAN if the parent had died before. -errno if the system forbids it. */
int spx_arm(int signum, int parent);

/* Open a pidfd of `pid`, an unreaped child of the caller (Linux 5.3, 5.4 to wait on it).
 *
 * -ECHILD if it is none: somebody else has reaped the child, and another process may have its number. */
int spx_open_pidfd(int pid);

/* Get the exit code of a child. It stays a zombie until spx_reap, so that a signal handler or another thread gets the
 * same result. If somebody else has reaped it, the code comes from PIDFD_GET_INFO (Linux 6.15).
 *
 * *ret_code: the exit code, or minus the signal's number, or SPX_RUNS, or SPX_LOST. */
int spx_peek(int pidfd, int *ret_code);

/* Reap ended children. Passes over children that run, or that somebody else has reaped. 0. */
int spx_reap(const int *pidfds, int n);

/* Send one signal to n processes (pidfd_send_signal(2), Linux 5.1). By pidfd, so that no process that reuses a number
 * is signalled. Passes over processes that have ended.
 *
 * The number of signals sent; or the first other error, after all processes were tried. */
int spx_fan_out(const int *pidfds, int n, int signum);

/* One child that has been seen ended; or, if rank is below 0, another fd that has become readable. */
struct spx_seen {
    int rank;        /* as given to spx_watch_add */
    int pidfd;       /* as given to spx_watch_add */
    int code;        /* as spx_peek has it; never SPX_RUNS; 0 where rank is below 0 */
    long max_rss_kb; /* its peak resident memory (getrusage(2)); 0 if somebody else reaped it */
};

/* Look at n children by their pids, for children that no pidfd holds. Only for children of the caller: no other process
 * can have the number of a child that nobody has reaped. Costs a call per child, and must be repeated: only for use
 * when no fd is free.
 *
 * The number of children that have ended, at most max. In ret_seen, `rank` is the position in `pids`, `pidfd` is -1. */
int spx_sweep(const int *pids, int n, struct spx_seen *ret_seen, int max);

enum { SPX_BATCH = 256 };

/* A watch over children. The caller closes `fd`, and otherwise only reads it. */
struct spx_watch {
    int fd;                          /* an epoll(7) instance */
    int n_seen;                      /* how many of `seen` are in use */
    struct spx_seen seen[SPX_BATCH]; /* the children that have ended, until spx_watch_discard */
};

/* Open a watch. 0. */
int spx_watch_open(struct spx_watch *ret_watch);

/* Add a child; call it once for each. The child is watched until spx_watch_discard. To close the pidfd is not enough,
 * as a process forked in the meantime keeps the open file description alive. 0.
 *
 * With a rank below 0 it may be any fd. It has no exit code, and each call in which it is readable reports it. */
int spx_watch_add(const struct spx_watch *watch, int pidfd, int rank);

/* Wait until a child has ended. `seen` then has the ended children, which are not reaped. A child stays in it until it
 * is discarded.
 *
 * timeout_ms: 0 does not wait, -1 waits without limit. After the first end, the call goes on until `enough` or
 * SPX_BATCH are seen; or until one has failed or is no child; or until no other has ended for gather_ms.
 *
 * n_seen; 0 if the time is over; -EINTR if a signal came and none is seen. */
int spx_watch_wait(struct spx_watch *watch, int timeout_ms, int enough, int gather_ms);

/* Stop watching children. Passes over children that aren't watched. 0. */
int spx_watch_discard(struct spx_watch *watch, const int *pidfds, int n);

/* The arguments of spx_launch. */
struct spx_launch {
    const char *path;        /* of the program; not searched for in PATH */
    const char *const *argv; /* ends with NULL */
    const char *const *envp; /* ends with NULL */
    const int *keep;         /* the fds that it inherits under the same numbers, besides 0 to 2; ascending */
    int n_keep;
    const int *blocked; /* the signals that are blocked in it */
    int n_blocked;
    int death_signal; /* sent when the calling thread ends; armed before the exec, if the system allows it; 0: none */
};

/* Start a program (vfork(2), execve(2)): default handlers, no other fd (before Linux 5.9: none below 65536), no copy
 * of the caller's memory.
 *
 * The pidfd of the new child, its pid in *ret_pid. -errno also if a kept fd isn't open (-EBADF), or if the exec failed.
 * No child is left then. */
int spx_launch(const struct spx_launch *what, int *ret_pid);

/* Prepare this process for forks whose children go on with all its state: check that it has one thread, and flush
 * stdio's buffers. 0. -EBUSY: it has more threads. -ENOTSUP: their number can't be found out. */
int spx_get_ready_to_fork(void);

/* Make this process a subreaper, or end that (prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4). A subreaper adopts the
 * children of its descendants that end. Adopted children stay its children: of its main thread.
 *
 * 1 if it was a subreaper before, else 0. */
int spx_adopt_orphans(int on);

/* Ask the kernel to put private memory into large pages (madvise(2), MADV_COLLAPSE, Linux 6.1), part by part. Parts for
 * which it can't are left as they are.
 *
 * The number of large pages made. */
int spx_collapse(long start, long end);

/* State that a child inherits from the thread that creates it, and that only system calls show. Each field is the
 * result of a call, or -errno if this kernel lacks the call or a sandbox forbids it. */
struct spx_inherited {
    long scheduling
        [10]; /* 0 or -errno; policy, flags, nice, priority, runtime, deadline, period, util_min, util_max */
    long io_priority;      /* ioprio_get(2) */
    long memory_policy;    /* get_mempolicy(2) */
    long memory_nodes[16]; /* and its nodes, a bit for each */
    long personality;      /* personality(2) */
    long session_keyring;  /* keyctl(2): the id */
    long timer_slack;      /* from here on prctl(2) */
    long secure_bits;
    long no_large_pages; /* PR_SET_THP_DISABLE */
    long no_new_code;    /* PR_SET_MDWE */
    long memory_merge;
    long io_flusher;
    long machine_checks; /* PR_MCE_KILL */
    long tagged_addresses;
    long vector_lengths[2]; /* of SVE and SME */
    long speculation[3];    /* store bypass, indirect branches, L1D flush */
    long tsc;
    long core_cookie; /* PR_SCHED_CORE */
};

/* Read all of it for the calling thread. 0. */
int spx_ask_inherited(struct spx_inherited *ret);

/* The number of libraries that this process has loaded until now, including those unloaded since. */
int spx_loaded(void);

/* Mark where spx_leave stops: it does not call functions that were registered with atexit(3) before this call. 0. */
int spx_begin_exit(void);

/* End the calling process with an exit code: call the functions registered with atexit(3) since spx_begin_exit, flush
 * stdio, and leave the rest to the kernel. No other thread may run: stdio might wait for a lock that it holds. */
void spx_leave(int code);

/* The arguments of spx_survey. Types are given by their addresses, in ascending order. */
struct spx_survey {
    const long *quiet; /* types whose objects have no effect outside the process when they are destroyed */
    int n_quiet;
    const long *each; /* types of which every object is a suspect; of other types that aren't quiet, one is */
    int n_each;
    long budget; /* the most visits to untracked objects */
};

/* Look at Python objects, and at the untracked objects to which they refer. Writes to no object and to no reference
 * count, so that a clone copies no page for it.
 *
 * objects: a list. ret_suspects: a list, to which the suspects are appended. Each class that gives its objects a
 * finalizer is a suspect, too, as the survey may miss these objects.
 *
 * 0. -EOVERFLOW: too many types, too deep, or over budget. -ENOMEM. */
int spx_survey(const struct spx_survey *what, void *objects, void *ret_suspects);

/* Read the C slots of the types in a list: whether their objects have a finalizer (tp_finalize or tp_del), and the
 * address of tp_dealloc. */
void spx_types(void *types, int *ret_finalized, long *ret_dealloc);

/* The messages of a supervisor to its guardian, one byte each, over a SOCK_SEQPACKET socket (unix(7)). */
enum {
    /* Hold the ranks whose pidfds come with it (SCM_RIGHTS). The kernel sends them SIGINT when the supervisor ends.
     * The answer is an int: how many of them are held now. */
    SPX_HOLD_ARMED = 'A',
    /* The same for ranks without a death signal. */
    SPX_HOLD_UNARMED = 'U',
    /* The context has ended: leave the ranks alone, and end. */
    SPX_DISMISS = 'D',
    /* The most fds that one message carries (SCM_MAX_FD of the kernel). */
    SPX_MAX_SENT = 253,
};
