/* The C core of spawnx: its whole surface, and its contract.
 *
 * cffi reads this file as it is. Hence no preprocessor line, no includes, and only int, long, struct and enum: pids,
 * fds and signal numbers are int, and a Python object is void *. Each .c file includes it once.
 *
 * Everywhere: the result is >= 0, or -errno. What ret_ points to is untouched on failure. Every fd that is returned is
 * CLOEXEC and the caller's. Calls that can't block retry EINTR; those that can, return -EINTR. No function allocates,
 * logs, starts a thread, or keeps anything between two calls but in what the caller hands it (spx_leave: an exit code).
 * Linux only.
 */

enum {
    /* What the library and this header must agree on. Raised with every change of this file. */
    SPX_ABI = 13,
    /* spx_arm: the parent was dead already. */
    SPX_ORPHAN = 1,
    /* spx_peek and struct spx_seen: somebody else has reaped the child, and the kernel doesn't tell its exit code. */
    SPX_LOST = 1 << 16,
    /* spx_peek and struct spx_seen: the child runs. */
    SPX_RUNS = 1 << 17,
};

/* libc's: the environment, with what os.putenv and libraries have set, of which os.environ doesn't know. Anybody may
 * change it who has the interpreter's lock. */
extern char **environ; /* NOLINT(readability-redundant-declaration): cffi must see it */

/* SPX_ABI, as compiled. */
int spx_abi(void);

/* Have the kernel send `signum` to the calling process when the thread that created it ends (prctl(2),
 * PR_SET_PDEATHSIG); then compare getppid() with `parent`. 0 there is a parent in an outer pid namespace: no
 * comparison is possible.
 *
 * 0, or SPX_ORPHAN if the parent had died before. -errno if the system forbids it. */
int spx_arm(int signum, int parent);

/* A pidfd of `pid`, an unreaped child of the caller (Linux 5.3, 5.4 to wait on it).
 *
 * -ECHILD if it is none: then it was reaped by somebody else, and the number may be a stranger's. */
int spx_open_pidfd(int pid);

/* What became of a child. It stays a zombie until spx_reap, so that the answer can be asked for again, by a signal
 * handler or another thread, and is lost to nobody. If somebody else has reaped it the kernel is asked (PIDFD_GET_INFO,
 * Linux 6.15).
 *
 * *ret_code: the exit code, or minus the signal's number, or SPX_RUNS, or SPX_LOST. */
int spx_peek(int pidfd, int *ret_code);

/* Let the kernel forget ended children. Those that run, or that somebody else has reaped, are passed over. 0. */
int spx_reap(const int *pidfds, int n);

/* Send one signal to n processes (pidfd_send_signal(2), Linux 5.1). A process that got a dead one's number is never
 * hit. Those that have ended are passed over.
 *
 * The number of those that it was sent to; or the first other error, after all were tried. */
int spx_fan_out(const int *pidfds, int n, int signum);

/* One child that has been seen ended; or, with a rank below 0, something else that has become readable. */
struct spx_seen {
    int rank;        /* as given to spx_watch_add */
    int pidfd;       /* as given to spx_watch_add */
    int code;        /* as spx_peek has it; never SPX_RUNS; 0 where rank is below 0 */
    long max_rss_kb; /* its peak resident memory (getrusage(2)); 0 if somebody else reaped it */
};

/* Look at n children by their pids, for those that no pidfd holds: of these, and only these, a number is known to be a
 * child's as long as nobody else reaps. Costs a call per child, and must be repeated: for want of fds only.
 *
 * The number of those that have ended, at most max; in ret_seen, `rank` is the position in `pids`, `pidfd` is -1. */
int spx_sweep(const int *pids, int n, struct spx_seen *ret_seen, int max);

enum { SPX_BATCH = 256 };

/* A watch over children. Untouched by the caller but for `fd`, which it closes, and reading. */
struct spx_watch {
    int fd;                          /* an epoll(7) instance */
    int n_seen;                      /* how many of `seen` are in use */
    struct spx_seen seen[SPX_BATCH]; /* who has ended, until spx_watch_discard */
};

/* Open a watch. 0. */
int spx_watch_open(struct spx_watch *ret_watch);

/* Add a child, once. It is watched until spx_watch_discard: closing the pidfd is not enough, as a process forked in
 * the meantime keeps what is behind it alive. 0.
 *
 * With a rank below 0 it may be any fd. It is not asked how it ended, and is told in each call in which it is readable. */
int spx_watch_add(const struct spx_watch *watch, int pidfd, int rank);

/* Wait until some child has ended; `seen` then has all that have, without reaping them: who is not discarded is there
 * again at the next call.
 *
 * timeout_ms: 0 only looks, -1 waits for ever. The call then goes on until `enough` are seen, or SPX_BATCH, or one that
 * has failed or is no child, or until no other has ended for gather_ms. n_seen; 0 if the time is over; -EINTR, if none is seen. */
int spx_watch_wait(struct spx_watch *watch, int timeout_ms, int enough, int gather_ms);

/* Watch children no longer. Those that aren't watched are passed over. 0. */
int spx_watch_discard(struct spx_watch *watch, const int *pidfds, int n);

/* What spx_launch starts. */
struct spx_launch {
    const char *path;        /* of the program; not searched for */
    const char *const *argv; /* ends with NULL */
    const char *const *envp; /* ends with NULL */
    const int *keep;         /* the fds that it inherits, under the same numbers, besides 0 to 2; ascending */
    int n_keep;
    const int *blocked; /* the signals that are blocked in it */
    int n_blocked;
    int death_signal; /* sent when the calling thread ends, armed before the exec if the system allows it; 0: none */
};

/* Start a program (vfork(2), execve(2)): default handlers, no other fd (before Linux 5.9: none below 65536), no copy
 * of the caller's memory.
 *
 * The pidfd of the new child, its pid in *ret_pid. -errno also if a kept fd isn't open (-EBADF), or the exec failed:
 * then no child is left. */
int spx_launch(const struct spx_launch *what, int *ret_pid);

/* See to it that this process can be forked into copies that go on with all it has: one thread, and nothing in stdio's
 * buffers. 0. -EBUSY: there are more threads. -ENOTSUP: it can't be told how many there are. */
int spx_get_ready_to_fork(void);

/* Have this process adopt the children of those descendants that end from now on, or no longer (prctl(2),
 * PR_SET_CHILD_SUBREAPER, Linux 3.4). Those that it has adopted stay its children: of its main thread.
 *
 * Whether it did so before. */
int spx_adopt_orphans(int on);

/* Have the kernel put private memory into large pages (madvise(2), MADV_COLLAPSE, Linux 6.1), part by part, as far as it
 * can: of some regions it can't.
 *
 * The number of large pages made. */
int spx_collapse(long start, long end);

/* What a child has from the thread that creates it, where only system calls tell. Each is the answer, or -errno where
 * this kernel, or a sandbox, has none. */
struct spx_inherited {
    long scheduling
        [10]; /* 0 or -errno; policy, flags, nice, priority, runtime, deadline, period, util_min, util_max */
    long io_priority;      /* ioprio_get(2) */
    long memory_policy;    /* get_mempolicy(2) */
    long memory_nodes[16]; /* and its nodes, a bit for each */
    long personality;      /* personality(2) */
    long session_keyring;  /* keyctl(2): its id */
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

/* Ask for all of it, of the calling thread. 0. */
int spx_ask_inherited(struct spx_inherited *ret);

/* How many libraries have been loaded in this process until now, whether they are still there or not. */
int spx_loaded(void);

/* Mark where spx_leave stops: functions that were registered with atexit(3) before this call are not called by it. 0. */
int spx_begin_exit(void);

/* End the calling process with an exit code: call what was registered with atexit(3) since spx_begin_exit, write what
 * stdio has buffered, and leave the rest to the kernel. Only one thread may run, or stdio may wait for another one's lock. */
void spx_leave(int code);

/* What spx_survey looks for. Types are given by their addresses, in ascending order. */
struct spx_survey {
    const long
        *quiet; /* types whose objects do nothing visible outside the process when they are destroyed */
    int n_quiet;
    const long *each; /* types of whose objects each is a suspect; of other types that aren't quiet, one is */
    int n_each;
    long budget; /* how many visits to untracked objects are made at most */
};

/* Look at Python objects, and at those to which they refer if the collector doesn't track these. Writes to none of
 * them, nor to their reference counts, so that a clone copies no page for it.
 *
 * objects: a list. ret_suspects: a list, to which the suspects are appended; besides those named above, each class that
 * gives its objects a finalizer: they may be no part of the list.
 *
 * 0. -EOVERFLOW: too many types, too deep, or over budget. -ENOMEM. */
int spx_survey(const struct spx_survey *what, void *objects, void *ret_suspects);

/* Look at the C slots of n types, a list: whether their objects have a finalizer, tp_finalize or tp_del, and the address
 * of tp_dealloc. */
void spx_types(void *types, int *ret_finalized, long *ret_dealloc);

/* What a supervisor says to its guardian, in one byte each, over a SOCK_SEQPACKET socket (unix(7)). */
enum {
    /* Hold these ranks, whose pidfds come with it (SCM_RIGHTS): the kernel sends them SIGINT when the supervisor ends.
     * Answered by how many of them are held now, an int. */
    SPX_HOLD_ARMED = 'A',
    /* The same for ranks to which the kernel sends nothing. */
    SPX_HOLD_UNARMED = 'U',
    /* The context has ended: leave the ranks alone, and end. */
    SPX_DISMISS = 'D',
    /* The most fds that one message carries (SCM_MAX_FD of the kernel). */
    SPX_MAX_SENT = 253,
};
