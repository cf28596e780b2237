/* Which surface this library has: the package refuses another one. */

#include "internal.h"

int spx_abi(void)
{
    return SPX_ABI;
}
