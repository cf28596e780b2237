/* The end of a process in which nothing is left to be finalized, and what else there may be. */

#include "internal.h"

#include <link.h>
#include <stdio.h>

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

void spx_leave(int code)
{
    (void)fflush(NULL);
    _exit(code);
}
