/* SPDX-License-Identifier: Apache-2.0 */
/* The table of integer handlers. */
#include "engine/interp/integer.h"

static interp_handler *const handlers[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define ENTRY(mnemonic, handler) [ZYDIS_MNEMONIC_##mnemonic] = handler,
    INTEGER_HANDLERS(ENTRY)
#undef ENTRY
};

interp_handler *interp_integer_handler(u16 mnemonic)
{
    return mnemonic < ARRAY_SIZE(handlers) ? handlers[mnemonic] : NULL;
}
