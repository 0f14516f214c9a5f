/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/commas.h"
#include "board/engines.h"
#include "board/host_cpu.h"
#include "core/host.h"
#include "x86/cpu_baseline.h"

static void host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

/* XCR0, or 0 when the host has no XSAVE in use. */
static u64 host_xcr0(void)
{
    u32 r[4], lo, hi;

    host_cpuid(1, 0, r);
    if (!(r[2] & BIT32(27)))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (u64)hi << 32 | lo;
}

static void build(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm, bool every)
{
    struct x86_cpu_options opt = {
        .ncpus = ncpus, .hide_kvm = hide_kvm, .tsc_khz = host_tsc_khz(), .every = every};

    x86_cpu_model_build(m, host_cpuid, host_xcr0(), &opt);
}

void host_cpu_model(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm)
{
    build(m, ncpus, hide_kvm, false);
}

void host_cpu_model_every(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm)
{
    build(m, ncpus, hide_kvm, true);
}

/* What KVM keeps where it is, as a rule: what there is, without the TSC's deadline mode. */
static void kept(void *opaque, u32 leaf, u32 subleaf, u32 r[4])
{
    u32 max[4];

    (void)opaque;
    memset(r, 0, 4 * sizeof(u32));
    host_cpuid(leaf & 0x80000000u, 0, max);
    if (leaf <= max[0])
        host_cpuid(leaf, subleaf, r);
    if (leaf == 1)
        r[2] &= ~BIT32(24);
}

int host_cpu_model_common(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm)
{
    bool any = false;

    host_cpu_model_every(m, ncpus, hide_kvm);
    for (const struct engine_row *e = engines; e->name; e++) {
        struct x86_cpu_model other = *m;
        struct engine_probe p;

        if (!e->ops || !e->ops->restrict_model)
            continue;
        e->ops->probe(&p);
        if (!p.works)
            continue;
        int r = e->ops->restrict_model(&other);
        if (r)
            return r;
        x86_cpu_model_intersect(m, &other);
        any = true;
    }
    if (!any) {
        struct x86_cpu_model other = *m;

        x86_cpu_model_restrict(&other, kept, NULL);
        if (!m->amd) { /* the MSR cannot be read from here: nothing is promised */
            other.arch_caps = 0;
            x86_cpu_model_remove(&other, x86_feature_find("arch_capabilities", 17));
        }
        x86_cpu_model_intersect(m, &other);
    }
    x86_cpu_model_settle(m);
    return 0;
}

/* A list of names for one line, cut where it does not fit. */
struct names {
    char text[200];
    unsigned n;
    bool cut;
};

static void note(void *opaque, const char *name)
{
    struct names *l = opaque;
    size_t used = strlen(l->text);

    l->n++;
    if (used + strlen(name) + sizeof(", and more") > sizeof(l->text)) {
        if (!l->cut)
            strcat(l->text, ", ...");
        l->cut = true;
        return;
    }
    snprintf(l->text + used, sizeof(l->text) - used, "%s%s", used ? ", " : "", name);
}

static int fail(char *err, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(char *err, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* +FEATURE and -FEATURE. What is added must be in the CPU in the end, too. */
static int change(struct x86_cpu_model *m, const char *list, char *err, size_t size)
{
    const char *rest = list;
    char item[64];

    while (commas_next(&rest, item, sizeof(item)) >= 0) {
        int f = x86_feature_find(item + 1, strlen(item + 1));

        if (f < 0)
            return fail(err, size, "--cpu: there is no CPU feature '%s'", item + 1);
        if (item[0] == '+')
            x86_cpu_model_add(m, f);
        else if (!x86_cpu_model_remove(m, f))
            return fail(err, size, "--cpu: a 64-bit PC cannot be without %s", item + 1);
    }
    x86_cpu_model_settle(m);
    rest = list;
    while (commas_next(&rest, item, sizeof(item)) >= 0) {
        int f = item[0] == '+' ? x86_feature_find(item + 1, strlen(item + 1)) : -1;
        int wanted = f < 0 || x86_cpu_model_has(m, f) ? -1 : x86_cpu_model_wants(m, f);

        if (wanted >= 0)
            return fail(err, size, "--cpu: %s needs %s, which this CPU has not: add +%s", item + 1,
                        x86_feature_name(wanted), x86_feature_name(wanted));
        if (f >= 0 && !x86_cpu_model_has(m, f))
            return fail(err, size, "--cpu: %s needs another feature, which this CPU has not",
                        item + 1);
    }
    return 0;
}

int host_cpu_select(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm, const char *text,
                    const char *engine, char *err, size_t err_size)
{
    struct x86_cpu_model have = *m;
    size_t len = strcspn(text, ",");
    unsigned level = x86_cpu_level(text, len);
    struct names lacks = {0};

    if (strncmp(text, "host", len) != 0) {
        struct x86_cpu_model common;
        int r = host_cpu_model_common(&common, ncpus, hide_kvm);

        if (r)
            return fail(err, err_size, "--cpu: what all engines can give is not known: %s",
                        strerror(-r));
        x86_cpu_model_intersect(m, &common);
        x86_cpu_model_settle(m);
    }
    if (level)
        x86_cpu_model_set_level(m, level, note, &lacks);
    if (!lacks.n && text[len]) {
        int r = change(m, text + len + 1, err, err_size);
        if (r)
            return r;
    }
    if (!lacks.n)
        x86_cpu_model_missing(m, &have, note, &lacks);
    if (lacks.n)
        return fail(err, err_size, "--cpu %.*s: engine %s on this host cannot give %s", (int)len,
                    text, engine, lacks.text);
    return 0;
}
