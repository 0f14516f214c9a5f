/* SPDX-License-Identifier: Apache-2.0 */
/* The escape keys of the console: C-a and a letter. A pure filter, to be testable. */
#ifndef TRIVISOR_APP_ESCAPE_H
#define TRIVISOR_APP_ESCAPE_H

#include "base/types.h"

#define ESCAPE_KEY 1 /* C-a */

enum escape_action { ESCAPE_NONE, ESCAPE_QUIT, ESCAPE_DETACH, ESCAPE_HELP };

struct escape {
    bool seen; /* the last byte was the escape key */
};

/*
 * Takes typed bytes in[0..n) and gives those meant for the guest in out (room for n bytes), *n_out
 * of them. Stops behind a key that asks for something and returns it; *used: bytes taken of in.
 */
enum escape_action escape_filter(struct escape *e, const u8 *in, size_t n, size_t *used, u8 *out,
                                 size_t *n_out);

#endif
