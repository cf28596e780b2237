/* Ending a process without destroying the state that it shares with its template: the kernel frees that. */

#include "internal.h"

#include <link.h>
#include <stdio.h>
#include <stdlib.h>

/* The only state that is kept between two calls, as exit(3) passes no argument to stop_here. */
static int leaving;
static int exit_code;

/* As dl_iterate_phdr(3) calls it. */
static int note_loaded(struct dl_phdr_info *info, size_t size, void *ret_loaded)
{
    (void)size;
    *(int *)ret_loaded = (int)info->dlpi_adds;
    return 1;
}

int spx_loaded(void)
{
    int loaded = 0;

    dl_iterate_phdr(note_loaded, &loaded);
    return loaded;
}

/* exit(3) calls it after all functions that were registered later, and before all that were registered earlier. */
static void stop_here(void)
{
    if (!leaving)
        return;
    (void)fflush(NULL);
    _exit(exit_code);
}

int spx_begin_exit(void)
{
    return atexit(stop_here) == 0 ? 0 : -ENOMEM;
}

void spx_leave(int code)
{
    leaving = 1;
    exit_code = code;
    exit(code);
}
