/* SPDX-License-Identifier: Apache-2.0 */
/* Features by name, what one model lacks of another, and what hangs together. */
#include "x86/cpu_features.h"

#include <string.h>

#include "test.h"
#include "x86/cpu_baseline.h"
#include "x86/cpu_check.h"
#include "x86/synthetic.h"

#define ALL_XCR0 (~(u64)0)

static struct x86_cpu_model a, b;

static void build(struct x86_cpu_model *m, bool amd)
{
    synthetic_model(m, amd, ALL_XCR0, &(struct x86_cpu_options){.ncpus = 2, .tsc_khz = 2450000});
}

static int feature(const char *name)
{
    int f = x86_feature_find(name, strlen(name));

    if (f < 0)
        fail_msg("there is no feature %s", name);
    return f;
}

static bool shows(const char *name)
{
    return x86_cpu_model_has(&a, feature(name));
}

static char missing[4096];

static void note(void *opaque, const char *name)
{
    (void)opaque;
    assert_true(strlen(name) < X86_FEATURE_NAME_MAX);
    strcat(missing, missing[0] ? ", " : "");
    strcat(missing, name);
}

static const char *missing_of(const struct x86_cpu_model *want, const struct x86_cpu_model *have)
{
    missing[0] = 0;
    x86_cpu_model_missing(want, have, note, NULL);
    return missing;
}

static void names__linux_and_qemu(void **state)
{
    (void)state;
    assert_int_equal(feature("avx512_vbmi2"), feature("avx512-vbmi2"));
    assert_int_equal(feature("avx512vbmi2"), feature("avx512_vbmi2"));
    assert_int_equal(feature("sse4_1"), feature("sse4.1"));
    assert_int_equal(feature("sse3"), feature("pni"));
    assert_int_equal(feature("lzcnt"), feature("abm"));
    assert_int_equal(feature("tsc-deadline"), feature("tsc_deadline_timer"));
    assert_string_equal(x86_feature_name(feature("sse3")), "pni");
    assert_int_equal(x86_feature_find("avx5", 4), -1);
    assert_int_equal(x86_feature_find("avx512foo", 9), -1);
    assert_int_equal(x86_feature_find("", 0), -1);
    assert_int_equal(x86_feature_find("__", 2), -1);
    assert_int_equal(x86_feature_find("avx,rest", 3), feature("avx"));
}

static void settle__takes_dependents_along(void **state)
{
    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        build(&a, amd);
        assert_true(shows("avx") && shows("avx512f") && shows("vaes") && a.xcr0_valid == 0xe7);
        assert_true(x86_cpu_model_remove(&a, feature("avx512f")));
        x86_cpu_model_settle(&a);
        assert_true(shows("avx2") && shows("vaes") && !shows("avx512vl"));
        assert_false(shows("avx512_vnni") || shows("avx512_bf16") || shows("avx512_fp16"));
        assert_int_equal(a.xcr0_valid, 7);
        assert_int_equal(a.xsave_size, 832);
        assert_true(x86_cpu_model_valid(&a));
        assert_true(x86_cpu_model_remove(&a, feature("avx")));
        x86_cpu_model_settle(&a);
        assert_false(shows("avx2") || shows("fma") || shows("f16c") || shows("vaes") ||
                     shows("vpclmulqdq") || shows("avx_vnni"));
        assert_true(shows("aes") && shows("xsave"));
        assert_int_equal(a.xcr0_valid, 3);
        assert_int_equal(a.xsave_size, 576);
        assert_true(x86_cpu_model_valid(&a));
        build(&a, amd);
        x86_cpu_model_remove(&a, feature("xsave"));
        x86_cpu_model_settle(&a);
        assert_false(shows("avx") || shows("avx512f") || shows("xsaveopt") || shows("xgetbv1"));
        assert_int_equal(a.xcr0_valid, 0);
        assert_false(a.cr4_valid & BIT64(18)); /* OSXSAVE */
        for (unsigned i = 0; i < a.n; i++)
            assert_int_not_equal(a.entry[i].leaf, 0xd);
        assert_true(x86_cpu_model_valid(&a));
        assert_false(x86_cpu_model_remove(&a, feature("sse2")));
        assert_true(shows("sse2"));
    }
}

/* A bit of CR4 or EFER is reserved without the feature it turns on. */
static void settle__bits_go_with_their_features(void **state)
{
    static const struct {
        const char *name;
        u64 cr4, efer;
    } rows[] = {
        {"vme", BIT64(0) | BIT64(1), 0}, {"umip", BIT64(11), 0}, {"fsgsbase", BIT64(16), 0},
        {"pcid", BIT64(17), 0},          {"smep", BIT64(20), 0}, {"smap", BIT64(21), 0},
        {"autoibrs", 0, BIT64(21)},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        build(&a, true);
        assert_int_equal(a.cr4_valid & rows[i].cr4, rows[i].cr4);
        assert_int_equal(a.efer_valid & rows[i].efer, rows[i].efer);
        build(&b, true);
        assert_true(x86_cpu_model_remove(&b, feature(rows[i].name)));
        x86_cpu_model_settle(&b);
        assert_true(b.cr4_valid == (a.cr4_valid & ~rows[i].cr4));
        assert_true(b.efer_valid == (a.efer_valid & ~rows[i].efer));
    }
}

/* Hiding any one feature leaves a CPU that is one. */
static void settle__every_feature_alone(void **state)
{
    char name[X86_FEATURE_NAME_MAX];
    unsigned n = 0;

    (void)state;
    for (unsigned amd = 0; amd < 2; amd++)
        for (int f = 0; f < 15 * 32; f++) {
            build(&a, amd);
            if (!x86_feature_name(f) || !x86_cpu_model_has(&a, f))
                continue;
            strcpy(name, x86_feature_name(f));
            b = a;
            if (!x86_cpu_model_remove(&a, f))
                continue;
            x86_cpu_model_settle(&a);
            n++;
            if (!x86_cpu_model_valid(&a))
                fail_msg("without %s it is no CPU", name);
            if (strcmp(name, "ht") && strcmp(name, "cmp_legacy") && strcmp(name, "topoext") &&
                !strstr(missing_of(&b, &a), name))
                fail_msg("without %s, missing is: %s", name, missing);
            assert_string_equal(missing_of(&a, &b), "");
        }
    assert_true(n > 100);
}

static void missing__nothing_of_itself(void **state)
{
    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        build(&a, amd);
        build(&b, amd);
        assert_string_equal(missing_of(&a, &b), "");
        assert_true(x86_cpu_model_valid(&a));
    }
}

static struct x86_cpuid_entry *entry(struct x86_cpu_model *m, u32 leaf, u32 subleaf)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->entry[i].leaf == leaf && m->entry[i].subleaf == subleaf)
            return &m->entry[i];
    fail_msg("there is no leaf %x", leaf);
    return NULL;
}

static void missing__is_named(void **state)
{
    (void)state;
    build(&a, false);
    build(&b, true);
    assert_non_null(strstr(missing_of(&a, &b), "vendor GenuineIntel"));
    assert_non_null(strstr(missing_of(&b, &a), "vendor AuthenticAMD"));
    build(&a, false);
    build(&b, false);
    entry(&a, 7, 0)->ebx |= BIT32(22);
    entry(&a, 7, 0)->ecx |= BIT32(16);
    assert_string_equal(missing_of(&a, &b), "cpuid.7.0.ebx[22], la57");
    build(&a, false);
    b.tsc_khz += 612; /* 249.8 ppm */
    assert_string_equal(missing_of(&a, &b), "");
    b.tsc_khz += 2;
    assert_string_equal(missing_of(&a, &b), "tsc frequency 2450000 kHz");
    b.tsc_khz = 2449387;
    assert_string_equal(missing_of(&a, &b), "tsc frequency 2450000 kHz");
    build(&b, false);
    entry(&b, 0x80000008, 0)->eax = 0x3027;
    x86_cpu_model_settle(&b);
    assert_string_equal(missing_of(&a, &b), "52 physical address bits");
    build(&b, false);
    b.arch_caps &= ~BIT64(6);
    assert_string_equal(missing_of(&a, &b), "arch_capabilities[6]");
    b.arch_caps = a.arch_caps | BIT64(19); /* RRSBA: a weakness the guest knows nothing of */
    assert_string_equal(missing_of(&a, &b), "arch_capabilities[19]");
    build(&b, false);
    entry(&b, 0xd, 5)->ebx += 64;
    assert_string_equal(missing_of(&a, &b), "xsave component 5 at its place");
    synthetic_model(&b, false, 7, &(struct x86_cpu_options){.ncpus = 2, .tsc_khz = 2450000});
    assert_non_null(strstr(missing_of(&a, &b), "xsave component 7"));
    synthetic_model(&b, false, ALL_XCR0,
                    &(struct x86_cpu_options){.ncpus = 2, .tsc_khz = 2450000, .hide_kvm = true});
    assert_string_equal(missing_of(&a, &b),
                        "kvmclock_old, kvm_nopiodelay, kvmclock, kvmclock_stable");
    assert_string_equal(missing_of(&b, &a), "");
}

static void intersect__is_in_both(void **state)
{
    (void)state;
    build(&a, true);
    build(&b, true);
    x86_cpu_model_remove(&a, feature("aes"));
    x86_cpu_model_settle(&a);
    x86_cpu_model_remove(&b, feature("avx512f"));
    entry(&b, 0x80000008, 0)->eax = 0x3028;
    x86_cpu_model_settle(&b);
    x86_cpu_model_intersect(&a, &b);
    x86_cpu_model_settle(&a);
    assert_false(shows("aes") || shows("vaes") || shows("avx512bw"));
    assert_int_equal(a.phys_bits, 40);
    assert_string_equal(missing_of(&a, &b), "");
    build(&b, true);
    assert_string_equal(missing_of(&a, &b), "");
    assert_true(x86_cpu_model_valid(&a));
}

/* A model from outside: what it may not say. */
static void valid__refuses(void **state)
{
    (void)state;
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        build(&a, true);                                                                           \
        change;                                                                                    \
        assert_false(x86_cpu_model_valid(&a));                                                     \
    } while (0)
    REFUSED(a.n = X86_CPUID_MAX + 1);
    REFUSED(a.n = 0);
    REFUSED(entry(&a, 0, 0)->leaf = 3);
    REFUSED(entry(&a, 0, 0)->eax = 0xffffffff);
    REFUSED(entry(&a, 0x80000000, 0)->eax = 0x80000001);
    REFUSED(entry(&a, 7, 0)->has_subleaf = false);
    REFUSED(entry(&a, 7, 1)->subleaf = 0);
    REFUSED(entry(&a, 1, 0)->ebx |= 0xff000000);
    REFUSED(entry(&a, 1, 0)->ecx |= BIT32(27));
    REFUSED(entry(&a, 1, 0)->edx &= ~BIT32(26));          /* no SSE2 */
    REFUSED(entry(&a, 0x80000001, 0)->edx &= ~BIT32(29)); /* no long mode */
    REFUSED(entry(&a, 0x80000001, 0)->edx &= ~BIT32(0));  /* not what leaf 1 says */
    REFUSED(entry(&a, 1, 0)->ecx &= ~BIT32(28));          /* AVX2 without AVX */
    REFUSED(entry(&a, 0xd, 0)->eax |= BIT32(9));          /* PKRU */
    REFUSED(entry(&a, 0xd, 0)->eax &= ~BIT32(1));         /* no SSE */
    REFUSED(entry(&a, 0xd, 0)->ecx += 64);
    REFUSED(entry(&a, 0xd, 2)->ebx = 512);
    REFUSED(entry(&a, 0xd, 7)->ebx = 0xfffffc00);
    REFUSED(entry(&a, 0xd, 7)->eax = 1088);
    REFUSED(entry(&a, 0xd, 5)->ebx = entry(&a, 0xd, 7)->ebx);
    REFUSED(entry(&a, 0x80000008, 0)->eax = 0x3035);
    REFUSED(entry(&a, 0x80000008, 0)->eax = 0x3920);
    REFUSED(entry(&a, 0x80000008, 0)->eax = 0x3034 | 1 << 16);
    REFUSED(a.arch_caps = 1); /* of a CPU without that MSR */
#undef REFUSED
}

static void level__is_one_of_the_host(void **state)
{
    static const char *const names[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};

    (void)state;
    assert_int_equal(x86_cpu_level("x86-64-v1", 9), 0);
    assert_int_equal(x86_cpu_level("x86-64-v5", 9), 0);
    assert_int_equal(x86_cpu_level("x86-64-v", 8), 0);
    assert_int_equal(x86_cpu_level("x86-64-v22", 10), 0);
    for (unsigned amd = 0; amd < 2; amd++)
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
            unsigned level = x86_cpu_level(names[i], 9);
            char out[48];

            assert_int_equal(level, i + 2);
            build(&a, amd);
            build(&b, amd);
            missing[0] = 0;
            x86_cpu_model_set_level(&a, level, note, NULL);
            assert_string_equal(missing, "");
            assert_true(x86_cpu_model_valid(&a));
            assert_string_equal(missing_of(&a, &b), "");
            assert_int_equal(a.phys_bits, 39);
            assert_true(shows("sse4_2") && shows("nx") && !shows("tsc_deadline_timer"));
            assert_int_equal(shows("avx2"), level >= 3);
            assert_int_equal(shows("avx512vl"), level >= 4);
            assert_false(shows("sha_ni") || shows("avx512_vnni"));
            assert_int_equal(a.xcr0_valid, level == 4 ? 0xe7 : level == 3 ? 7 : 0);
            for (unsigned k = 0; k < 3; k++)
                memcpy(out + 16 * k, &entry(&a, 0x80000002 + k, 0)->eax, 16);
            assert_string_equal(out + 9, names[i]);
        }
}

/* The same on a host that has less and is another make. */
static void level__is_the_same_everywhere(void **state)
{
    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        build(&a, amd);
        build(&b, amd);
        x86_cpu_model_remove(&b, feature("avx512f"));
        x86_cpu_model_remove(&b, feature("sha_ni"));
        x86_cpu_model_remove(&b, feature("rdtscp"));
        entry(&b, 1, 0)->eax = 0x123;
        entry(&b, 0x80000001, 0)->eax = amd ? 0x123 : 0;
        entry(&b, 0x80000008, 0)->eax = 0x302e;
        entry(&b, 0x80000003, 0)->ebx = 5;
        entry(&b, 0x80000006, 0)->ecx = 5;
        entry(&b, amd ? 0x8000001d : 4, 2)->ecx = 5;
        x86_cpu_model_settle(&b);
        missing[0] = 0;
        x86_cpu_model_set_level(&a, 3, note, NULL);
        x86_cpu_model_set_level(&b, 3, note, NULL);
        assert_string_equal(missing, "");
        assert_int_equal(a.n, b.n);
        for (unsigned i = 0; i < a.n; i++)
            assert_memory_equal(&a.entry[i].eax, &b.entry[i].eax, 16);
        x86_cpu_model_set_level(&b, 4, note, NULL);
        assert_non_null(strstr(missing, "avx512f, avx512bw, avx512cd, avx512dq, avx512vl"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names__linux_and_qemu),
        cmocka_unit_test(settle__takes_dependents_along),
        cmocka_unit_test(settle__bits_go_with_their_features),
        cmocka_unit_test(settle__every_feature_alone),
        cmocka_unit_test(missing__nothing_of_itself),
        cmocka_unit_test(missing__is_named),
        cmocka_unit_test(intersect__is_in_both),
        cmocka_unit_test(valid__refuses),
        cmocka_unit_test(level__is_one_of_the_host),
        cmocka_unit_test(level__is_the_same_everywhere),
    };
    return cmocka_run_group_tests_name("cpu-features", tests, NULL, NULL);
}
