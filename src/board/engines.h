/* SPDX-License-Identifier: Apache-2.0 */
/* The engines: which are built, which work here, and the choice between them. */
#ifndef TRIVISOR_BOARD_ENGINES_H
#define TRIVISOR_BOARD_ENGINES_H

#include "core/engine.h"

struct engine_row {
    const char *name;
    const char *what;             /* one line */
    const struct engine_ops *ops; /* NULL: not built in this version */
};

/* Ends with a row without a name. The last one that works is taken where none can be measured. */
extern const struct engine_row engines[];

/* Whether an engine that works here will do; else one line in why. */
typedef bool engine_fits_fn(void *opaque, const struct engine_ops *ops, char *why, size_t why_size);

/*
 * Finds the engine a user asked for by name; auto: the one that is fastest here, of those that can
 * be debugged when `debug`, and of those that fit, if any does (NULL: all do). 0 and *out, with why
 * saying what was chosen and for what reason (auto), or -errno with one line in why. Where it has
 * to be found out which is faster this takes some milliseconds, once a boot; the caller has no
 * other threads.
 */
int engine_choose(const char *name, bool debug, engine_fits_fn *fits, void *opaque,
                  const struct engine_ops **out, char *why, size_t why_size);

#define ENGINES_MAX 4

/* An engine and what is known of it here. */
struct engine_candidate {
    const char *name;
    const struct engine_ops *ops;
    bool works;
    char why[160]; /* why it does not work, or could not be measured */
    u64 mips;      /* 0: it could not be measured */
};

/* Those that work and do not fit do not work any more, unless all of them would. */
void engine_exclude(struct engine_candidate *c, unsigned n, engine_fits_fn *fits, void *opaque);

/* The choice of auto: measure, called only if several work, fills in mips or why of those. 0 and
 * *chosen with one line in why, or -ENODEV likewise. */
typedef void engine_measure_fn(struct engine_candidate *c, unsigned n);
int engine_decide(struct engine_candidate *c, unsigned n, engine_measure_fn *measure,
                  unsigned *chosen, char *why, size_t why_size);

#endif
