/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "board/engines.h"
#include "engine/bt/bt.h"
#include "engine/kvm/kvm.h"

const struct engine_row engines[] = {
    /* Only when asked for or nothing else works, as long as it has run on one emulated CPU and no
       real one. */
    {"kvm", "hardware-assisted virtualization through /dev/kvm", &kvm_engine_ops, true},
    {"bt", "full virtualization in software by binary translation", &bt_engine_ops, false},
    {"pv", "paravirtualization of kernels with the Xen PV ABI", NULL, false},
    {NULL, NULL, NULL, false},
};

static int choose_best(const struct engine_ops **out, char *why, size_t why_size)
{
    struct engine_probe p, best = {0};
    char missing[64] = "", reason[200] = "none is built in this version";

    bool best_asked_only = false;

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
        } else if (!*out || (!e->asked_only && (best_asked_only || p.speed > best.speed))) {
            *out = e->ops;
            best = p;
            best_asked_only = e->asked_only;
        }
    }
    if (!*out) {
        snprintf(why, why_size, "no engine works here (%s); see trivisor doctor", reason);
        return -ENODEV;
    }
    snprintf(why, why_size, "engine: %s (%s; not built in this version: %s)", (*out)->name,
             best_asked_only ? "the only one that works here" : "kvm is taken only when asked for",
             missing);
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
