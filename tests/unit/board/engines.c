/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of an engine from injected findings; measurements that hang; the file that keeps them.
 */
#include "board/engines.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board/measure.h"
#include "board/speeds.h"
#include "core/host.h"
#include "test.h"

static struct engine_candidate c[2];
static unsigned calls, chosen;
static u64 found[2];
static char why[512];

static void measured(struct engine_candidate *k, unsigned n)
{
    calls++;
    for (unsigned i = 0; i < n; i++) {
        k[i].mips = found[i];
        if (!found[i])
            snprintf(k[i].why, sizeof(k[i].why), "a small guest did not end within 1000 ms");
    }
}

static int decide(bool kvm, bool bt, u64 kvm_mips, u64 bt_mips)
{
    c[0] = (struct engine_candidate){.name = "kvm", .works = kvm, .why = "there is no /dev/kvm"};
    c[1] = (struct engine_candidate){.name = "bt", .works = bt, .why = "the CPU has no BMI2"};
    found[0] = kvm_mips;
    found[1] = bt_mips;
    calls = 0;
    return engine_decide(c, 2, measured, &chosen, why, sizeof(why));
}

static const struct engine_ops *fitting;

static bool fits(void *opaque, const struct engine_ops *ops, char *text, size_t size)
{
    (void)opaque;
    snprintf(text, size, "it does not give the guest here what its CPU had");
    return ops == fitting;
}

/* The faster one is of no use to a saved machine whose CPU it cannot give. */
static void decide__among_those_that_fit(void **state)
{
    static const struct engine_ops kvm, bt, other;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        fitting = i == 0 ? &bt : i == 1 ? &kvm : &other;
        c[0] = (struct engine_candidate){.name = "kvm", .ops = &kvm, .works = true};
        c[1] = (struct engine_candidate){.name = "bt", .ops = &bt, .works = true};
        found[0] = 7560;
        found[1] = 3600;
        calls = 0;
        engine_exclude(c, 2, fits, NULL);
        assert_int_equal(engine_decide(c, 2, measured, &chosen, why, sizeof(why)), 0);
        assert_int_equal(chosen, i == 0 ? 1 : 0);
        assert_int_equal(calls, i == 2); /* none fits: whichever is faster says why */
        if (i == 0)
            assert_string_equal(
                why, "engine: bt (kvm: it does not give the guest here what its CPU had)");
    }
}

static void decide__by_speed(void **state)
{
    (void)state;
    assert_int_equal(decide(true, true, 7560, 3600), 0);
    assert_int_equal(chosen, 0);
    assert_string_equal(why, "engine: kvm (measured 2.1x bt)");
    assert_int_equal(calls, 1);
    assert_int_equal(decide(true, true, 20, 3600), 0);
    assert_int_equal(chosen, 1);
    assert_string_equal(why, "engine: bt (measured 180.0x kvm)");
    assert_int_equal(decide(true, true, 0, 3600), 0);
    assert_int_equal(chosen, 1);
    assert_string_equal(why, "engine: bt (kvm: a small guest did not end within 1000 ms)");
    assert_int_equal(decide(true, true, 0, 0), 0);
    assert_int_equal(chosen, 1);
}

static void decide__without_measuring(void **state)
{
    (void)state;
    assert_int_equal(decide(false, true, 1, 1), 0);
    assert_int_equal(chosen, 1);
    assert_string_equal(why, "engine: bt (kvm: there is no /dev/kvm)");
    assert_int_equal(calls, 0);
    assert_int_equal(decide(true, false, 1, 1), 0);
    assert_int_equal(chosen, 0);
    assert_string_equal(why, "engine: kvm (bt: the CPU has no BMI2)");
    assert_int_equal(calls, 0);
    assert_int_equal(decide(false, false, 1, 1), -ENODEV);
    assert_string_equal(why, "no engine works here (kvm: there is no /dev/kvm; bt: the CPU has no "
                             "BMI2); see trivisor doctor");
    assert_int_equal(calls, 0);
}

static int hangs(struct vm *vm, const struct engine_options *opt)
{
    (void)vm;
    (void)opt;
    while (pause())
        continue;
    return 0;
}

static int dies(struct vm *vm, const struct engine_options *opt)
{
    (void)vm;
    (void)opt;
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
    return 0;
}

static void apart__comes_back(void **state)
{
    struct engine_ops ops = {.name = "fake", .vm_create = hangs};
    struct engine_speed v;
    u64 start = host_monotonic_ns(), took;

    (void)state;
    assert_int_equal(engine_measure_apart(&ops, 1000, 50, &v), -ETIMEDOUT);
    took = host_monotonic_ns() - start;
    assert_true(took >= 50000000 && took < 20000000000ull);
    ops.vm_create = dies;
    assert_int_equal(engine_measure_apart(&ops, 1000, 20000, &v), -EIO);
}

static void apart__measures(void **state)
{
    struct engine_speed v = {0};

    (void)state;
    for (const struct engine_row *e = engines; e->name; e++) {
        struct engine_probe p = {0};

        if (e->ops)
            e->ops->probe(&p);
        if (!p.works)
            continue;
        assert_int_equal(engine_measure_apart(e->ops, MEASURE_QUICK, 60000, &v), 0);
        assert_true(v.engine_mips && v.native_mips);
    }
}

#define KEY "boot exe kvm"

static void speeds__come_back(void **state)
{
    struct speeds s = {.n = 2, .of = {{"kvm", 7560}, {"bt", 0}}}, t;
    char text[SPEEDS_TEXT_MAX], bad[SPEEDS_TEXT_MAX];
    size_t n = speeds_write(&s, KEY, text, sizeof(text));

    (void)state;
    assert_true(n && n < sizeof(text));
    assert_true(speeds_read(&t, KEY, text, n));
    assert_int_equal(t.n, 2);
    assert_string_equal(t.of[0].name, "kvm");
    assert_int_equal(t.of[0].mips, 7560);
    assert_int_equal(t.of[1].mips, 0);
    assert_false(speeds_read(&t, "another boot exe kvm", text, n));
    assert_false(speeds_read(&t, "boot exe", text, n));
    for (size_t i = 0; i < n; i++)
        assert_false(speeds_read(&t, KEY, text, i));
    for (size_t i = 0; i < n; i++) /* no flipped bit gives more engines than there is room for */
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(bad, text, n);
            bad[i] = (char)(bad[i] ^ (1 << bit));
            if (speeds_read(&t, KEY, bad, n))
                assert_true(t.n <= SPEEDS_MAX);
        }
    memset(bad, 'a', sizeof(bad));
    assert_false(speeds_read(&t, KEY, bad, sizeof(bad)));
    assert_int_equal(speeds_write(&s, KEY, text, 20), 0);
}

static void speeds__in_the_run_directory(void **state)
{
    struct speeds s = {.n = 1, .of = {{"bt", 3600}}}, t;
    char top[] = "/tmp/trivisor-speeds-XXXXXX", path[128], command[160];
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(top));
    setenv("XDG_RUNTIME_DIR", top, 1);
    snprintf(path, sizeof(path), "%s/trivisor/engine-speeds", top);
    assert_false(speeds_load(&t));
    speeds_keep(&s);
    assert_true(speeds_load(&t));
    assert_int_equal(t.n, 1);
    assert_int_equal(t.of[0].mips, 3600);
    assert_int_equal(chmod(path, 0666), 0); /* others might have written it */
    assert_false(speeds_load(&t));
    f = fopen(path, "we");
    assert_non_null(f);
    fputs("trivisor engine speeds 1\n", f);
    fclose(f);
    chmod(path, 0600);
    assert_false(speeds_load(&t));
    speeds_keep(&s);
    assert_true(speeds_load(&t));
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0); /* in the way: nothing is kept, and nothing fails */
    speeds_keep(&s);
    assert_false(speeds_load(&t));
    snprintf(command, sizeof(command), "rm -r '%s'", top);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decide__among_those_that_fit),
        cmocka_unit_test(decide__by_speed),
        cmocka_unit_test(decide__without_measuring),
        cmocka_unit_test(apart__comes_back),
        cmocka_unit_test(apart__measures),
        cmocka_unit_test(speeds__come_back),
        cmocka_unit_test(speeds__in_the_run_directory),
    };
    return cmocka_run_group_tests_name("engines", tests, NULL, NULL);
}
