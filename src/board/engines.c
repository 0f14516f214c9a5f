/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "board/engines.h"
#include "board/measure.h"
#include "board/speeds.h"
#include "engine/bt/bt.h"
#include "engine/kvm/kvm.h"

/* An engine that has not run a loop of a millisecond by then is no choice. */
#define LIMIT_MS 1000

const struct engine_row engines[] = {
    {"kvm", "hardware-assisted virtualization through /dev/kvm", &kvm_engine_ops},
    {"bt", "full virtualization in software by binary translation", &bt_engine_ops},
    {"pv", "paravirtualization of kernels with the Xen PV ABI", NULL},
    {NULL, NULL, NULL},
};
_Static_assert(ARRAY_SIZE(engines) - 1 <= ENGINES_MAX && ENGINES_MAX <= SPEEDS_MAX,
               "ENGINES_MAX is too small");

static bool cached(struct engine_candidate *c, unsigned n)
{
    struct speeds s;

    if (!speeds_load(&s))
        return false;
    for (unsigned i = 0; i < n; i++) {
        bool found = !c[i].works;

        for (unsigned k = 0; k < s.n && !found; k++)
            if (!strcmp(s.of[k].name, c[i].name)) {
                found = true;
                c[i].mips = s.of[k].mips;
                if (!c[i].mips)
                    snprintf(c[i].why, sizeof(c[i].why),
                             "a small guest did not run when it was "
                             "tried; trivisor doctor tries again");
            }
        if (!found)
            return false;
    }
    return true;
}

static void measure(struct engine_candidate *c, unsigned n)
{
    struct speeds s = {0};

    if (cached(c, n))
        return;
    for (unsigned i = 0; i < n; i++) {
        struct engine_speed v = {0};
        int r;

        if (!c[i].works)
            continue;
        r = engine_measure_apart(c[i].ops, MEASURE_QUICK, LIMIT_MS, &v);
        c[i].mips = r ? 0 : v.engine_mips;
        if (r == -ETIMEDOUT)
            snprintf(c[i].why, sizeof(c[i].why), "a small guest did not end within %u ms",
                     LIMIT_MS);
        else if (r)
            snprintf(c[i].why, sizeof(c[i].why), "a small guest does not run: %s", strerror(-r));
        else if (!c[i].mips)
            snprintf(c[i].why, sizeof(c[i].why), "a small guest hardly runs");
        snprintf(s.of[s.n].name, sizeof(s.of[s.n].name), "%s", c[i].name);
        s.of[s.n++].mips = c[i].mips;
    }
    speeds_keep(&s);
}

/* The reason against every engine but the chosen one. */
static void reasons(const struct engine_candidate *c, unsigned n, unsigned chosen, char *out,
                    size_t size)
{
    size_t used = 0;

    out[0] = 0;
    for (unsigned i = 0; i < n && used < size; i++) {
        const char *sep = used ? "; " : "";
        u64 tenths;

        if (i == chosen)
            continue;
        if (!c[i].works || !c[i].mips) {
            used += (size_t)snprintf(out + used, size - used, "%s%s: %s", sep, c[i].name, c[i].why);
            continue;
        }
        tenths = (c[chosen].mips * 10 + c[i].mips / 2) / c[i].mips;
        used += (size_t)snprintf(out + used, size - used, "%smeasured %llu.%llux %s", sep,
                                 (unsigned long long)tenths / 10, (unsigned long long)tenths % 10,
                                 c[i].name);
    }
}

int engine_decide(struct engine_candidate *c, unsigned n, engine_measure_fn *measure_fn,
                  unsigned *chosen, char *why, size_t why_size)
{
    unsigned working = 0;
    char text[400];

    *chosen = n;
    for (unsigned i = 0; i < n; i++) {
        c[i].mips = 0;
        working += c[i].works;
    }
    if (working > 1)
        measure_fn(c, n);
    for (unsigned i = 0; i < n; i++)
        if (c[i].works && (*chosen == n || c[i].mips >= c[*chosen].mips))
            *chosen = i;
    reasons(c, n, *chosen, text, sizeof(text));
    if (!working) {
        snprintf(why, why_size, "no engine works here (%s); see trivisor doctor",
                 n ? text : "none is built in this version");
        return -ENODEV;
    }
    snprintf(why, why_size, "engine: %s (%s)", c[*chosen].name,
             text[0] ? text : "the only one of this version");
    return 0;
}

void engine_exclude(struct engine_candidate *c, unsigned n, engine_fits_fn *fits, void *opaque)
{
    char why[ENGINES_MAX][sizeof(c->why)];
    bool fit[ENGINES_MAX], any = false;

    for (unsigned i = 0; i < n; i++) {
        fit[i] = c[i].works && fits(opaque, c[i].ops, why[i], sizeof(why[i]));
        any |= fit[i];
    }
    for (unsigned i = 0; i < n && any; i++)
        if (c[i].works && !fit[i]) {
            c[i].works = false;
            memcpy(c[i].why, why[i], sizeof(why[i]));
        }
}

static int choose_best(bool debug, engine_fits_fn *fits, void *opaque,
                       const struct engine_ops **out, char *why, size_t why_size)
{
    struct engine_candidate c[ENGINES_MAX];
    unsigned n = 0, chosen;
    int r;

    *out = NULL;
    for (const struct engine_row *e = engines; e->name; e++) {
        struct engine_probe p;

        if (!e->ops)
            continue;
        e->ops->probe(&p);
        c[n] = (struct engine_candidate){.name = e->name, .ops = e->ops, .works = p.works};
        snprintf(c[n].why, sizeof(c[0].why), "%s", p.why);
        if (debug && p.works && !e->ops->set_debug) {
            c[n].works = false;
            snprintf(c[n].why, sizeof(c[0].why), "it has no debugger (--gdb)");
        }
        n++;
    }
    if (fits)
        engine_exclude(c, n, fits, opaque);
    r = engine_decide(c, n, measure, &chosen, why, why_size);
    if (!r)
        *out = c[chosen].ops;
    return r;
}

int engine_choose(const char *name, bool debug, engine_fits_fn *fits, void *opaque,
                  const struct engine_ops **out, char *why, size_t why_size)
{
    struct engine_probe p;

    if (!strcmp(name, "auto"))
        return choose_best(debug, fits, opaque, out, why, why_size);
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
