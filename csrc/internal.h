/* Declarations that the files of the core share, and definitions that old headers lack. */

#ifndef SPX_INTERNAL_H
#define SPX_INTERNAL_H

#ifndef _GNU_SOURCE /* Python.h defines it */
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* System calls are made by number: with a libc's wrapper, the wheel would need a newer libc (pidfd_open: glibc 2.36).
 * These numbers are the same on every architecture but alpha. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* waitid(2) by pidfd: Linux 5.4, glibc 2.36. */
#define SPX_P_PIDFD 3

#include "spawnx.h"

struct rusage;

/* As spx_peek, and get the child's resource usage: 0, or -errno. */
int spx_look(int pidfd, int *ret_code, struct rusage *ret_usage);

#endif
