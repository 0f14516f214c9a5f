/* SPDX-License-Identifier: Apache-2.0 */
/* difftest: the loop, the options, minimising a failing stream. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <Zydis/Zydis.h>

#include "difftest.h"

static struct {
    u64 seed;
    double seconds;
    u64 cases;
    const char *mode, *filter, *replay;
    bool forms_only, streams_only, keep_going, list, verbose, skip_unsupported;
    unsigned bits; /* 64, 32 or 0: both */
    unsigned max_reports;
} opt = {.seconds = 5, .mode = "interp", .max_reports = 20};

static const struct subject *subj;
static struct {
    u64 run, skipped, timeouts, died, failed, by_vector[32];
} count;

/* How to make a case again: its kind, code size, form and seed. */
struct recipe {
    u8 stream, mode;
    u32 form;
    u64 seed;
};

static struct recipe recipes[BATCH_MAX];
static struct insn_stream streams[BATCH_MAX];
static struct diff_result sub;
static u32 *form_failures[2];

static bool make(const struct recipe *rc, struct diff_case *c, struct insn_stream *s)
{
    forms_select(rc->mode);
    if (rc->stream) {
        gen_stream_case(rc->seed, rc->mode, c, s);
        return true;
    }
    return rc->form < nforms && gen_form_case(rc->seed, &forms[rc->form], c);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Runs cases()[i] on the subject; true when it agrees with results()[i] or cannot be judged. */
static bool judge(unsigned i, char *text, size_t size)
{
    const struct diff_case *c = &oracle_cases()[i];
    const struct diff_result *n = &oracle_results()[i];

    if (n->outcome == OUT_TIMEOUT || n->outcome == OUT_SYSCALL || n->outcome == OUT_DIED) {
        count.skipped++;
        count.timeouts += n->outcome == OUT_TIMEOUT;
        count.died += n->outcome == OUT_DIED;
        if (opt.verbose) {
            printf("not comparable (%u):\n", n->outcome);
            report_case(c);
        }
        return true;
    }
    /* A supervisor's page fault: a descriptor beyond the host's GDT, whose limit is no fact of x86.
     */
    if (n->outcome == OUT_FAULT && n->vector == X86_PF && !(n->error & PFEC_U)) {
        count.skipped++;
        return true;
    }
    count.by_vector[n->vector & 31]++;
    if (subj) {
        sub.text[0] = 0;
        subj->run(c, &sub);
        if (opt.skip_unsupported && sub.outcome == OUT_FAIL && strstr(sub.text, "unsupported")) {
            count.skipped++;
            return true;
        }
    } else { /* --mode self: is the oracle's answer always the same? */
        static struct diff_result first;
        first = *n;
        oracle_cases()[0] = *c;
        oracle_run(1);
        sub = oracle_results()[0];
        return compare(c, &first, &sub, text, size);
    }
    return compare(c, n, &sub, text, size);
}

/* Drops items of a stream as long as the rest still differs; leaves the result in case 0. */
static void minimise(struct insn_stream *s, char *text, size_t size)
{
    struct diff_case *c = &oracle_cases()[0];
    bool progress = true;

    while (progress) {
        progress = false;
        for (unsigned i = s->n; i-- > 0;) {
            if (s->item[i].dropped)
                continue;
            s->item[i].dropped = 1;
            if (stream_assemble(s, c) && c->code_len) {
                oracle_run(1);
                if (!judge(0, NULL, 0)) {
                    progress = true;
                    continue;
                }
            }
            s->item[i].dropped = 0;
        }
    }
    stream_assemble(s, c);
    oracle_run(1);
    judge(0, text, size);
}

static void print_recipe(const struct recipe *rc)
{
    if (rc->stream)
        printf("--replay s%u:%llx", rc->mode, (unsigned long long)rc->seed);
    else
        printf("--replay f%u:%u:%llx", rc->mode, rc->form, (unsigned long long)rc->seed);
}

static unsigned current;

void print_current(void)
{
    print_recipe(&recipes[current]);
    printf(" --mode %s\n", opt.mode);
    report_case(&oracle_cases()[current]);
}

static void print_end(const struct diff_result *n)
{
    printf("  native ended with vector %u at %llx, error %x, cr2 %llx\n", n->vector,
           (unsigned long long)n->regs.rip, n->error, (unsigned long long)n->cr2);
}

static void report(unsigned i, const char *text)
{
    const struct recipe rc = recipes[i];
    char again[4096];

    printf("\nDIFFERENCE: seed %llu, ", (unsigned long long)opt.seed);
    print_recipe(&rc);
    printf(" --mode %s\n", opt.mode);
    if (rc.stream && subj) {
        static struct diff_case save;
        struct insn_stream s = streams[i];
        /* Keep case 0: the batch is not done. */
        static struct diff_result keep_result;
        save = oracle_cases()[0];
        keep_result = oracle_results()[0];
        oracle_cases()[0] = oracle_cases()[i];
        minimise(&s, again, sizeof(again));
        if (again[0])
            text = again;
        report_case(&oracle_cases()[0]);
        print_end(&oracle_results()[0]);
        oracle_cases()[0] = save;
        oracle_results()[0] = keep_result;
    } else {
        report_case(&oracle_cases()[i]);
        print_end(&oracle_results()[i]);
    }
    printf("%s", text);
    fflush(stdout);
}

static void check_batch(unsigned n)
{
    char text[4096];

    oracle_run(n);
    if (!subj) { /* results of case 0 are overwritten by the repetition */
        for (unsigned i = 1; i < n; i++) {
            count.run++;
            if (!judge(i, text, sizeof(text)) && count.failed++ < opt.max_reports)
                report(i, text);
        }
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        count.run++;
        current = i;
        if (judge(i, text, sizeof(text)))
            continue;
        count.failed++;
        if (!recipes[i].stream && form_failures[recipes[i].mode == 32] &&
            form_failures[recipes[i].mode == 32][recipes[i].form]++)
            continue; /* this form has been reported */
        if (opt.max_reports) {
            opt.max_reports--;
            report(i, text);
        }
        if (!opt.keep_going)
            return;
    }
}

static bool form_wanted(const struct form *f)
{
    return !opt.filter || strstr(ZydisMnemonicGetString(f->mnemonic), opt.filter);
}

static void summary(void)
{
    printf("difftest: seed %llu: %llu cases, %llu differences, %llu not comparable "
           "(%llu timeouts, %llu oracle restarts); ended by",
           (unsigned long long)opt.seed, (unsigned long long)count.run,
           (unsigned long long)count.failed, (unsigned long long)count.skipped,
           (unsigned long long)count.timeouts, (unsigned long long)count.died);
    for (unsigned i = 0; i < 32; i++)
        if (count.by_vector[i])
            printf(" %u:%llu", i, (unsigned long long)count.by_vector[i]);
    printf("\n");
    for (unsigned m = 0; m < 2 && count.failed; m++) {
        static struct {
            u32 forms, cases;
        } by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];

        if (!form_failures[m])
            continue;
        memset(by_mnemonic, 0, sizeof(by_mnemonic));
        forms_select(m ? 32 : 64);
        for (unsigned i = 0; i < nforms; i++)
            if (form_failures[m][i]) {
                by_mnemonic[forms[i].mnemonic].forms++;
                by_mnemonic[forms[i].mnemonic].cases += form_failures[m][i];
            }
        for (unsigned i = 0; i < ARRAY_SIZE(by_mnemonic); i++)
            if (by_mnemonic[i].forms)
                printf("  failed %4u x in %3u forms: %u-bit %s\n", by_mnemonic[i].cases,
                       by_mnemonic[i].forms, m ? 32 : 64, ZydisMnemonicGetString((ZydisMnemonic)i));
    }
}

static void run_random(void)
{
    double end = now() + opt.seconds;
    u64 n = 0, next_form[2] = {0, 0};

    for (u64 batch = 0; opt.cases ? n < opt.cases : now() < end; batch++) {
        unsigned mode = opt.bits ? opt.bits : batch % 4 == 3 ? 32 : 64;
        unsigned fill = 0, want = BATCH_MAX;
        u32 *wanted;
        unsigned nwanted = 0;

        if (opt.cases && opt.cases - n < want)
            want = (unsigned)(opt.cases - n);
        forms_select(mode);
        static u32 *lists[2];
        static unsigned list_n[2];
        wanted = lists[mode == 32];
        if (!wanted) {
            wanted = lists[mode == 32] = calloc(nforms + 1, sizeof(*wanted));
            form_failures[mode == 32] = calloc(nforms + 1, sizeof(u32));
            for (u32 i = 0; i < nforms; i++)
                if (form_wanted(&forms[i]))
                    wanted[list_n[mode == 32]++] = i;
            /* A shuffled order, so that short runs see all kinds. */
            struct rng r = {opt.seed};
            for (u32 i = list_n[mode == 32]; i > 1; i--) {
                u32 j = rnd_below(&r, i), t = wanted[i - 1];
                wanted[i - 1] = wanted[j];
                wanted[j] = t;
            }
        }
        nwanted = list_n[mode == 32];
        if (!nwanted && !opt.streams_only) {
            fprintf(stderr, "difftest: no form matches '%s'\n", opt.filter);
            exit(2);
        }
        for (unsigned tries = 0; fill < want && tries < 4 * BATCH_MAX; tries++) {
            struct recipe *rc = &recipes[fill];
            rc->seed = rnd_mix(opt.seed, n * 8 + tries + 1);
            rc->mode = (u8)mode;
            rc->stream = opt.streams_only || (!opt.forms_only && !opt.filter && rc->seed % 8 < 3);
            if (!rc->stream)
                rc->form = wanted[next_form[mode == 32]++ % nwanted];
            if (make(rc, &oracle_cases()[fill], &streams[fill]))
                fill++;
        }
        n += want;
        check_batch(fill);
        if (count.failed && !opt.keep_going)
            break;
    }
}

/* MODE:OFFSET:HEX: these bytes, at this offset of the code pages, on a state made from --seed. */
static bool run_hex(const char *arg)
{
    struct diff_case *c = &oracle_cases()[0];
    struct rng r = {opt.seed};
    unsigned mode, off;
    int pos = 0;

    if (sscanf(arg, "%u:%x:%n", &mode, &off, &pos) != 2 || !pos || (mode != 64 && mode != 32) ||
        off >= CODE_SIZE)
        return false;
    memset(c, 0, sizeof(*c));
    c->mode = (u8)mode;
    c->code_off = off;
    for (arg += pos; *arg; arg += 2) {
        unsigned b;
        if (sscanf(arg, "%2x", &b) != 1 || c->code_len >= CODE_MAX ||
            off + c->code_len >= CODE_SIZE || !arg[1])
            return false;
        c->code[c->code_len++] = (u8)b;
    }
    gen_state(&r, c);
    c->init.rip = CODE_VA + off;
    report_case(c);
    check_batch(1);
    return true;
}

static bool run_replay(void)
{
    struct recipe *rc = &recipes[0];
    unsigned mode = 0, form = 0;
    unsigned long long seed = 0;

    memset(rc, 0, sizeof(*rc));
    if (!strncmp(opt.replay, "hex", 3))
        return run_hex(opt.replay + 3);
    if (sscanf(opt.replay, "s%u:%llx", &mode, &seed) == 2)
        rc->stream = 1;
    else if (sscanf(opt.replay, "f%u:%u:%llx", &mode, &form, &seed) != 3)
        return false;
    if (mode != 64 && mode != 32)
        return false;
    rc->mode = (u8)mode;
    rc->form = form;
    rc->seed = seed;
    if (!make(rc, &oracle_cases()[0], &streams[0]))
        return false;
    report_case(&oracle_cases()[0]);
    check_batch(1);
    return true;
}

static const char usage[] =
    "usage: difftest [options]\n"
    "  --mode interp|bt-soft|bt-interp|bt-lockstep|self   who runs against the host CPU\n"
    "  --seed N          (default: from the clock)\n"
    "  --seconds N       how long (default 5)\n"
    "  --cases N         how many cases, instead of --seconds\n"
    "  --bits 64|32      code size (default: both)\n"
    "  --forms-only, --stream-only\n"
    "  --form-filter S   only forms whose mnemonic contains S\n"
    "  --keep-going      do not stop at the first difference; summary by form\n"
    "  --max-reports N   print at most N differences in full\n"
    "  --strict-flags    compare arithmetic flags at faults in bt modes too\n"
    "  --skip-unsupported  what the subject says it does not do is no difference\n"
    "  --verbose         show cases that could not be compared\n"
    "  --list-forms\n"
    "  --replay RECIPE   one case again, as printed with a difference; or hexMODE:OFFSET:BYTES:\n"
    "                    these bytes at this offset of the code pages, the state made from "
    "--seed\n";

enum {
    O_MODE = 256,
    O_SEED,
    O_SECONDS,
    O_CASES,
    O_BITS,
    O_FORMS,
    O_STREAMS,
    O_FILTER,
    O_KEEP,
    O_MAX,
    O_STRICT,
    O_LIST,
    O_REPLAY,
    O_VERBOSE,
    O_SKIP,
    O_HELP
};

static void parse(int argc, char **argv)
{
    static const struct option longs[] = {{"mode", 1, NULL, O_MODE},
                                          {"seed", 1, NULL, O_SEED},
                                          {"seconds", 1, NULL, O_SECONDS},
                                          {"cases", 1, NULL, O_CASES},
                                          {"bits", 1, NULL, O_BITS},
                                          {"forms-only", 0, NULL, O_FORMS},
                                          {"stream-only", 0, NULL, O_STREAMS},
                                          {"form-filter", 1, NULL, O_FILTER},
                                          {"keep-going", 0, NULL, O_KEEP},
                                          {"max-reports", 1, NULL, O_MAX},
                                          {"strict-flags", 0, NULL, O_STRICT},
                                          {"list-forms", 0, NULL, O_LIST},
                                          {"replay", 1, NULL, O_REPLAY},
                                          {"verbose", 0, NULL, O_VERBOSE},
                                          {"skip-unsupported", 0, NULL, O_SKIP},
                                          {"help", 0, NULL, O_HELP},
                                          {NULL, 0, NULL, 0}};
    int o;

    opt.seed = (u64)time(NULL);
    while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (o) {
        case O_MODE:
            opt.mode = optarg;
            break;
        case O_SEED:
            opt.seed = strtoull(optarg, NULL, 0);
            break;
        case O_SECONDS:
            opt.seconds = strtod(optarg, NULL);
            break;
        case O_CASES:
            opt.cases = strtoull(optarg, NULL, 0);
            break;
        case O_BITS:
            opt.bits = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case O_FORMS:
            opt.forms_only = true;
            break;
        case O_STREAMS:
            opt.streams_only = true;
            break;
        case O_FILTER:
            opt.filter = optarg;
            break;
        case O_KEEP:
            opt.keep_going = true;
            break;
        case O_MAX:
            opt.max_reports = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case O_STRICT:
            policy.fault_flags = true;
            break;
        case O_LIST:
            opt.list = true;
            break;
        case O_REPLAY:
            opt.replay = optarg;
            break;
        case O_SKIP:
            opt.skip_unsupported = true;
            break;
        case O_VERBOSE:
            opt.verbose = true;
            break;
        case O_HELP:
            fputs(usage, stdout);
            exit(0);
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind < argc || (opt.bits && opt.bits != 64 && opt.bits != 32)) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    xstate_init();
    mem_images_init();
    if (opt.list) {
        forms_select(opt.bits ? opt.bits : 64);
        for (unsigned i = 0; i < nforms; i++)
            printf("%5u enc %u map %u pp %u op %02x w%u l%u b%u %s reg %02x rm %02x %s\n", i,
                   forms[i].enc, forms[i].map, forms[i].pp, forms[i].opcode, forms[i].w, forms[i].l,
                   forms[i].evex_b, forms[i].modreg ? "r" : "m", forms[i].reg_mask,
                   forms[i].rm_mask, ZydisMnemonicGetString(forms[i].mnemonic));
        return 0;
    }
    const char *engine_mode = NULL;
    if (!strcmp(opt.mode, "interp")) {
        subj = &subject_interp;
        policy.fault_flags = true;
    } else if (!strncmp(opt.mode, "bt-", 3)) {
        subj = &subject_bt;
        engine_mode = opt.mode + 3;
    } else if (strcmp(opt.mode, "self") != 0) {
        fprintf(stderr, "difftest: unknown mode '%s'\n", opt.mode);
        return 2;
    }
    if (!host_is_faithful()) {
        printf("difftest: this host's kernel is no CPU's: only 64-bit code, no #GP, no segments\n");
        policy.paravirtual = true;
        opt.bits = 64;
    }
    if (!oracle_start())
        return 2;
    if (subj && !subj->start(engine_mode)) {
        oracle_stop();
        return 2;
    }
    bool ok = true;
    if (opt.replay)
        ok = run_replay();
    else
        run_random();
    if (subj)
        subj->stop();
    oracle_stop();
    if (!ok) {
        fprintf(stderr, "difftest: bad recipe '%s'\n", opt.replay);
        return 2;
    }
    summary();
    return count.failed ? 1 : 0;
}
