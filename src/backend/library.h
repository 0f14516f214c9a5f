/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Libraries that only some machines need are loaded by those. What they bring along (libxml2, ICU,
 * GLib...) took every start of the program 10 ms and megabytes of memory.
 */
#ifndef TRIVISOR_BACKEND_LIBRARY_H
#define TRIVISOR_BACKEND_LIBRARY_H

#include "base/types.h"

struct library_function {
    const char *name;
    void **at;
};

/* An entry for the member of a structure of pointers that has the function's name. */
#define LIBRARY_FUNCTION(lib, fn)                                                                  \
    {                                                                                              \
#fn, (void **)&(lib).fn                                                                    \
    }

/* Loads a library for good and fills in its functions. 0, or -ENOENT with one line in err. */
int library_load(const char *soname, const struct library_function *f, unsigned n, char *err,
                 size_t err_size);

#endif
