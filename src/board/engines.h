/* SPDX-License-Identifier: Apache-2.0 */
/* The engines: which are built, which work here, and the choice between them. */
#ifndef TRIVISOR_BOARD_ENGINES_H
#define TRIVISOR_BOARD_ENGINES_H

#include "core/engine.h"

struct engine_row {
    const char *name;
    const char *what;             /* one line */
    const struct engine_ops *ops; /* NULL: not built in this version */
    bool asked_only;              /* auto takes it when nothing else works */
};

/* Ends with a row without a name. */
extern const struct engine_row engines[];

/*
 * Finds the engine a user asked for by name; auto: the fastest that works. 0 and *out, with why
 * saying what was chosen and for what reason (auto), or -errno with one line in why.
 */
int engine_choose(const char *name, const struct engine_ops **out, char *why, size_t why_size);

#endif
