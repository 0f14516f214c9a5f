/* SPDX-License-Identifier: Apache-2.0 */
#include "escape.h"

enum escape_action escape_filter(struct escape *e, const u8 *in, size_t n, size_t *used, u8 *out,
                                 size_t *n_out)
{
    *n_out = 0;
    for (*used = 0; *used < n;) {
        u8 c = in[(*used)++];

        if (!e->seen) {
            if (c == ESCAPE_KEY)
                e->seen = true;
            else
                out[(*n_out)++] = c;
            continue;
        }
        e->seen = false;
        switch (c) {
        case 'x':
        case 'X':
            return ESCAPE_QUIT;
        case 'd':
        case 'D':
            return ESCAPE_DETACH;
        case 'h':
        case 'H':
        case '?':
            return ESCAPE_HELP;
        case ESCAPE_KEY:
        case 'a':
            out[(*n_out)++] = ESCAPE_KEY;
            break;
        default:
            /* Not one of ours: forgotten, as in other monitors. */
            break;
        }
    }
    return ESCAPE_NONE;
}
