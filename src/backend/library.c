/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

#include "backend/library.h"

int library_load(const char *soname, const struct library_function *f, unsigned n, char *err,
                 size_t err_size)
{
    void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

    if (!lib) {
        snprintf(err, err_size, "a library is missing: %s", dlerror());
        return -ENOENT;
    }
    for (unsigned i = 0; i < n; i++) {
        *f[i].at = dlsym(lib, f[i].name);
        if (!*f[i].at) {
            snprintf(err, err_size, "%s has no %s", soname, f[i].name);
            return -ENOENT;
        }
    }
    return 0;
}
