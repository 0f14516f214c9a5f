/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "board/engines.h"
#include "engine/bt/bt.h"

const struct engine_row engines[] = {
    {"kvm", "hardware-assisted virtualization through /dev/kvm", NULL},
    {"bt", "full virtualization in software by binary translation", &bt_engine_ops},
    {"pv", "paravirtualization of kernels with the Xen PV ABI", NULL},
    {NULL, NULL, NULL},
};

static int choose_best(const struct engine_ops **out, char *why, size_t why_size)
{
    struct engine_probe p, best = {0};
    char missing[64] = "", reason[200] = "none is built in this version";

    *out = NULL;
    for (const struct engine_row *e = engines; e->name; e++) {
        if (!e->ops) {
            snprintf(missing + strlen(missing), sizeof(missing) - strlen(missing), "%s%s",
                     missing[0] ? ", " : "", e->name);
            continue;
        }
        e->ops->probe(&p);
        if (!p.works) {
            snprintf(reason, sizeof(reason), "%s: %s", e->name, p.why);
        } else if (!*out || p.speed > best.speed) {
            *out = e->ops;
            best = p;
        }
    }
    if (!*out) {
        snprintf(why, why_size, "no engine works here (%s); see trivisor doctor", reason);
        return -ENODEV;
    }
    snprintf(why, why_size,
             "engine: %s (the fastest that works here; not built in this version: %s)",
             (*out)->name, missing);
    return 0;
}

int engine_choose(const char *name, const struct engine_ops **out, char *why, size_t why_size)
{
    struct engine_probe p;

    if (!strcmp(name, "auto"))
        return choose_best(out, why, why_size);
    for (const struct engine_row *e = engines; e->name; e++) {
        if (strcmp(e->name, name))
            continue;
        if (!e->ops) {
            snprintf(why, why_size,
                     "engine %s is not built in this version; use --engine bt (or auto)", name);
            return -ENOSYS;
        }
        e->ops->probe(&p);
        if (!p.works) {
            snprintf(why, why_size, "engine %s does not work here: %s; see trivisor doctor", name,
                     p.why);
            return -ENODEV;
        }
        *out = e->ops;
        snprintf(why, why_size, "engine: %s (asked for)", name);
        return 0;
    }
    snprintf(why, why_size, "there is no engine '%s'", name);
    return -EINVAL;
}
