/* Sending one signal to many processes. */

#include "internal.h"

int spx_fan_out(const int *pidfds, int n, int signum)
{
    int sent = 0;
    int error = 0;

    for (int i = 0; i < n; i++) {
        if (syscall(SYS_pidfd_send_signal, pidfds[i], signum, NULL, 0) == 0)
            sent++;
        else if (errno != ESRCH && error == 0)
            error = errno;
    }
    return error == 0 ? sent : -error;
}
