/* State that a child inherits by fork(2) from the calling thread, that execve(2) keeps, and that only system calls
 * show. The list follows the kernel: dup_task_struct(), copy_process(), and what prctl(2) can read (Linux 6.12). */

#include "internal.h"

#include <stddef.h>
#include <sys/prctl.h>

/* Many headers lack it. */
#ifndef SYS_sched_getattr
#if defined __x86_64__
#define SYS_sched_getattr 315
#elif defined __aarch64__
#define SYS_sched_getattr 275
#endif
#endif

/* From <linux/prctl.h>, <linux/keyctl.h>, <linux/ioprio.h> and <asm/prctl.h>. */
enum {
    GET_MACHINE_CHECKS = 34,
    GET_THP_DISABLE = 42,
    GET_SPECULATION = 52,
    SVE_GET_VL = 51,
    GET_TAGGED_ADDRESSES = 56,
    GET_IO_FLUSHER = 58,
    SCHED_CORE = 62,
    SME_GET_VL = 64,
    GET_MDWE = 66,
    GET_MEMORY_MERGE = 68,
    KEYRING_ID = 0,
    SESSION_KEYRING = -3,
    IOPRIO_OF_PROCESS = 1,
    MOST_NODES = sizeof(((struct spx_inherited *)NULL)->memory_nodes) * 8,
};

/* The second form of sched_getattr's argument (Linux 5.3). */
struct sched_attr_1 {
    unsigned size, policy;
    unsigned long long flags;
    int nice;
    unsigned priority;
    unsigned long long runtime, deadline, period;
    unsigned util_min, util_max;
};

static long answer(long result)
{
    return result < 0 ? -errno : result;
}

static long ask(int what, unsigned long which)
{
    return answer(prctl(what, which, 0UL, 0UL, 0UL));
}

static void ask_scheduling(long *ret)
{
    struct sched_attr_1 attr = {.size = sizeof attr};

    ret[0] = -ENOSYS;
#ifdef SYS_sched_getattr
    ret[0] = answer(syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0));
#endif
    ret[1] = attr.policy;
    ret[2] = (long)attr.flags;
    ret[3] = attr.nice;
    ret[4] = attr.priority;
    ret[5] = (long)attr.runtime;
    ret[6] = (long)attr.deadline;
    ret[7] = (long)attr.period;
    ret[8] = attr.util_min;
    ret[9] = attr.util_max;
}

int spx_ask_inherited(struct spx_inherited *ret)
{
    int mode = 0;
    int tsc = 0;
    unsigned long long cookie = 0;

    *ret = (struct spx_inherited){0};
    ask_scheduling(ret->scheduling);
    ret->io_priority = answer(syscall(SYS_ioprio_get, IOPRIO_OF_PROCESS, 0));
    ret->memory_policy = answer(syscall(SYS_get_mempolicy, &mode, ret->memory_nodes, MOST_NODES, NULL, 0));
    if (ret->memory_policy == 0)
        ret->memory_policy = mode;
    ret->personality = answer(syscall(SYS_personality, 0xffffffffUL));
    ret->session_keyring = answer(syscall(SYS_keyctl, KEYRING_ID, SESSION_KEYRING, 0));
    ret->timer_slack = ask(PR_GET_TIMERSLACK, 0);
    ret->secure_bits = ask(PR_GET_SECUREBITS, 0);
    ret->no_large_pages = ask(GET_THP_DISABLE, 0);
    ret->no_new_code = ask(GET_MDWE, 0);
    ret->memory_merge = ask(GET_MEMORY_MERGE, 0);
    ret->io_flusher = ask(GET_IO_FLUSHER, 0);
    ret->machine_checks = ask(GET_MACHINE_CHECKS, 0);
    ret->tagged_addresses = ask(GET_TAGGED_ADDRESSES, 0);
    ret->vector_lengths[0] = ask(SVE_GET_VL, 0);
    ret->vector_lengths[1] = ask(SME_GET_VL, 0);
    for (unsigned long i = 0; i < 3; i++)
        ret->speculation[i] = ask(GET_SPECULATION, i);
    ret->tsc = answer(prctl(PR_GET_TSC, &tsc, 0, 0, 0));
    if (ret->tsc == 0)
        ret->tsc = tsc;
    ret->core_cookie = answer(prctl(SCHED_CORE, 0UL, 0UL, 0UL, &cookie));
    if (ret->core_cookie == 0)
        ret->core_cookie = (long)cookie;
    return 0;
}
