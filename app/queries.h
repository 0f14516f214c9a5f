/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output that is shown again must not make the terminal answer again: shells ask it where the
 * cursor is, editors what it is (ECMA-48 DSR and DA, xterm's control sequences), and the answers
 * would be typed into the guest. A pure filter.
 */
#ifndef TRIVISOR_APP_QUERIES_H
#define TRIVISOR_APP_QUERIES_H

#include "base/types.h"

#define QUERIES_HELD_MAX 64

struct queries {
    u8 state;
    u8 n; /* bytes of a control sequence held back */
    u8 held[QUERIES_HELD_MAX];
};

/*
 * Copies in[0..n) to out without what terminals answer; device control and operating system command
 * strings go altogether. A sequence cut by the end of in is held back. out: room for n +
 * QUERIES_HELD_MAX bytes. Returns how many are in it.
 */
size_t queries_strip(struct queries *q, const u8 *in, size_t n, u8 *out);

/* What follows is to be shown as it is: gives what was held back to out, and how many bytes. */
size_t queries_end(struct queries *q, u8 *out);

#endif
