/* SPDX-License-Identifier: Apache-2.0 */
/* What was measured of engines, kept in the run directory until the host boots again. */
#ifndef TRIVISOR_BOARD_SPEEDS_H
#define TRIVISOR_BOARD_SPEEDS_H

#include "base/bits.h"

#define SPEEDS_MAX 4
#define SPEEDS_NAME_MAX 8
#define SPEEDS_TEXT_MAX 512

struct speeds {
    unsigned n;
    struct {
        char name[SPEEDS_NAME_MAX];
        u64 mips; /* 0: it did not end in time or failed */
    } of[SPEEDS_MAX];
};

/* What measurements are of: this boot, this program, this /dev/kvm. One line without its end;
 * false: it cannot be told. */
bool speeds_key(char *key, size_t size);

/* The file's text for them; its length. */
size_t speeds_write(const struct speeds *s, const char *key, char *text, size_t size);

/* Reads text[0..len). false: it is not such a file, not a whole one, or of another key. */
bool speeds_read(struct speeds *s, const char *key, const char *text, size_t len);

/* From and to the run directory. false: there is nothing of this key there. What cannot be kept is
 * not. */
bool speeds_load(struct speeds *s);
void speeds_keep(const struct speeds *s);

#endif
