/* The version of the surface of this library. The package refuses any other version. */

#include "internal.h"

int spx_abi(void)
{
    return SPX_ABI;
}
