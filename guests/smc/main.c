// SPDX-License-Identifier: Apache-2.0
/* Self-modifying and cross-modifying code (SDM 3A 8.1.3, 11.6: on one processor a store to code is
 * seen by the next fetch through a jump, and by all of today's processors at the next
 * instruction; aliases need a jump or a serializing instruction). */
#include "x64.h"

#define VA (TEST_VA + 0x500000ULL)

static u8 *code; /* a fresh page of RAM, at its identity address */

static u64 run(const void *p)
{
    return ((u64(*)(void))(uptr)p)();
}

static void emit(u8 *p, const void *bytes, unsigned n)
{
    memcpy(p, bytes, n);
}

static const u8 mov_eax_ret[] = {0xb8, 0, 0, 0, 0, 0xc3};

TEST(smc__rewritten_function)
{
    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    for (u32 i = 0; i < 1000; i++) {
        *(volatile u32 *)(code + 1) = i;
        CHECK_EQ(run(code), i);
    }
}

TEST(smc__jit_loop_with_a_changing_immediate)
{
    u64 sum = 0, want = 0;

    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    for (u32 i = 0; i < 100000; i++) {
        *(volatile u32 *)(code + 1) = i * 3;
        sum += run(code);
        want += (u32)(i * 3);
    }
    CHECK_EQ(sum, want);
}

TEST(smc__store_into_the_next_instruction)
{
    /* movl $imm, 1(%rip) ; the store changes the mov $0, %eax right after it */
    static const u8 text[] = {0xc7, 0x05, 1,    0, 0, 0, 0x78, 0x56,
                              0x34, 0x12, 0xb8, 0, 0, 0, 0,    0xc3};

    code = page_alloc();
    for (unsigned i = 0; i < 100; i++) {
        emit(code, text, sizeof(text));
        *(volatile u32 *)(code + 6) = 0x1000 + i;
        CHECK_EQ(run(code), 0x1000 + i);
    }
}

TEST(smc__store_ahead_in_the_current_block)
{
    /* mov $0xc3, byte at `target`; nops; target: 90 (nop) becomes c3 (ret); then mov $bad */
    u8 *p;

    code = page_alloc();
    for (unsigned gap = 0; gap < 60; gap += 3) {
        p = code;
        *p++ = 0xb8; /* mov $1, %eax */
        *(u32 *)p = 1;
        p += 4;
        *p++ = 0xc6; /* movb $0xc3, gap(%rip) */
        *p++ = 0x05;
        *(u32 *)p = gap;
        p += 4;
        *p++ = 0xc3;
        for (unsigned i = 0; i <= gap; i++)
            *p++ = 0x90;
        *p++ = 0xb8; /* mov $2, %eax: never reached */
        *(u32 *)p = 2;
        p += 4;
        *p++ = 0xc3;
        CHECK_EQ(run(code), 1);
    }
}

TEST(smc__store_behind_in_a_loop)
{
    /* A loop that raises the immediate of its own add: 0: add $1,%eax; incl (imm); dec %ecx; jnz 0
     */
    static const u8 text[] = {
        0x31, 0xc0,                         /* xor %eax, %eax */
        0xb9, 10,   0,    0,    0,          /* mov $10, %ecx */
        0x05, 1,    0,    0,    0,          /* 7: add $1, %eax */
        0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, /* 12: incl -10(%rip): address 8 */
        0xff, 0xc9,                         /* 18: dec %ecx */
        0x75, 0xf1,                         /* 20: jnz 7 */
        0xc3,
    };

    code = page_alloc();
    emit(code, text, sizeof(text));
    CHECK_EQ(run(code), 55); /* 1 + 2 + ... + 10 */
    CHECK_EQ(*(u32 *)(code + 8), 11);
}

TEST(smc__through_an_alias)
{
    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    map(VA, (uptr)code, PTE_P | PTE_W);
    map(VA + 0x1000, (uptr)code, PTE_P);
    for (u32 i = 0; i < 1000; i++) {
        *(volatile u32 *)(VA + 1) = i; /* written here, run there (a jump lies between) */
        CHECK_EQ(run(code), i);
        CHECK_EQ(run((void *)(VA + 0x1000)), i);
    }
}

TEST(smc__instruction_across_two_pages)
{
    code = pages_alloc(2, 4096);
    for (unsigned i = 1; i <= 5; i++) {
        u8 *p = code + 4096 - i;
        emit(p, mov_eax_ret, sizeof(mov_eax_ret));
        for (u32 k = 0; k < 50; k++) {
            u32 v = k * 0x01010101;
            /* one byte at a time, on either page */
            for (unsigned b = 0; b < 4; b++)
                *(volatile u8 *)(p + 1 + b) = (u8)(v >> 8 * b);
            CHECK_EQ(run(p), v);
        }
    }
}

TEST(smc__data_next_to_code_in_one_page)
{
    /* stores to the same page but not to the code: it must stay right (and should stay fast) */
    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    *(u32 *)(code + 1) = 77;
    for (u32 i = 0; i < 20000; i++) {
        *(volatile u32 *)(code + 2048 + (i & 0xff) * 4) = i;
        if (!(i & 63))
            CHECK_EQ(run(code), 77);
    }
    /* and code that stores into its own page */
    {
        static const u8 text[] = {
            0xb9, 0xe8, 3,    0,    0,    /* mov $1000, %ecx */
            0xff, 0x05, 0xf5, 0x07, 0, 0, /* 5: incl 0x7f5(%rip): offset 0x800 */
            0xff, 0xc9,                   /* 11: dec %ecx */
            0x75, 0xf6,                   /* 13: jnz 5 */
            0x8b, 0x05, 0xeb, 0x07, 0, 0, /* 15: mov 0x7eb(%rip), %eax */
            0xc3,
        };
        emit(code, text, sizeof(text));
        *(u32 *)(code + 0x800) = 5;
        CHECK_EQ(run(code), 1005);
    }
}

TEST(smc__code_written_by_string_instructions)
{
    u8 *src = page_alloc();
    uptr d, s, n;

    code = page_alloc();
    for (u32 i = 0; i < 200; i++) {
        emit(src, mov_eax_ret, sizeof(mov_eax_ret));
        *(u32 *)(src + 1) = i;
        d = (uptr)code;
        s = (uptr)src;
        n = 4096;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
        CHECK_EQ(run(code), i);
        d = (uptr)code;
        n = 512;
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0xc3c3c3c3c3c3c3c3ULL) : "memory");
        ((void (*)(void))(uptr)code)();
    }
}

TEST(smc__string_store_over_itself)
{
    /* rep stosb that overwrites what follows it, up to and with the next instruction:
     * 0: mov $n,%ecx; lea 2f(%rip),%rdi; mov $0xc3,%al; rep stosb; 2: ud2... becomes ret */
    static const u8 text[] = {
        0xb9, 8,    0,    0,    0,    0x48, 0x8d, 0x3d,
        4,    0,    0,    0,                            /* lea 4(%rip), %rdi: offset 16 */
        0xb0, 0xc3, 0xf3, 0xaa,                         /* mov $0xc3, %al; rep stosb */
        0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b, /* 16: ud2 */
    };
    struct trap t;

    code = page_alloc();
    for (unsigned i = 0; i < 20; i++) {
        emit(code, text, sizeof(text));
        TRY (&t)
            run(code);
        CHECK_EQ(t.vector, V_NONE);
    }
}

static volatile unsigned bp_hits;
static bool count_bp(struct regs *r)
{
    bp_hits++;
    *(volatile u8 *)(r->rip - 1) = 0x90; /* put the nop back, as a debugger would */
    r->rip--;
    return true;
}

TEST(smc__int3_patching)
{
    code = page_alloc();
    bp_hits = 0;
    trap_set_hook(V_BP, count_bp);
    memset(code, 0x90, 16);
    emit(code + 16, mov_eax_ret, sizeof(mov_eax_ret));
    for (unsigned i = 0; i < 500; i++) {
        *(volatile u32 *)(code + 17) = i;
        *(volatile u8 *)(code + i % 16) = 0xcc;
        CHECK_EQ(run(code), i);
        CHECK_EQ(bp_hits, i + 1);
    }
}

TEST(smc__direct_call_target_changed)
{
    /* a CALL rel32 whose displacement flips between two functions, as ftrace and static calls do */
    u8 *f, *g;

    code = pages_alloc(3, 4096);
    f = code + 4096;
    g = code + 8192;
    emit(f, mov_eax_ret, sizeof(mov_eax_ret));
    emit(g, mov_eax_ret, sizeof(mov_eax_ret));
    *(u32 *)(f + 1) = 0xf;
    *(u32 *)(g + 1) = 0x9;
    code[0] = 0xe8; /* call rel32; ret */
    code[5] = 0xc3;
    for (unsigned i = 0; i < 1000; i++) {
        *(volatile u32 *)(code + 1) = (u32)((i & 1 ? g : f) - (code + 5));
        CHECK_EQ(run(code), i & 1 ? 0x9 : 0xf);
    }
}

TEST(smc__jump_target_turned_into_nop)
{
    /* jmp +5 over "mov $1,%eax", turned into a 2-byte nop and back (static keys) */
    static const u8 text[] = {0x31, 0xc0, 0xeb, 5, 0xb8, 1, 0, 0, 0, 0xc3};

    code = page_alloc();
    emit(code, text, sizeof(text));
    for (unsigned i = 0; i < 1000; i++) {
        *(volatile u16 *)(code + 2) = i & 1 ? 0x9066 : 0x05eb;
        CHECK_EQ(run(code), i & 1);
    }
}

TEST(smc__freed_page_reused_as_code)
{
    /* code, then data, then other code at the same place through different mappings */
    code = page_alloc();
    for (u32 i = 0; i < 200; i++) {
        u64 va = VA + (i % 7) * 0x1000;
        map(va, (uptr)code, PTE_P | PTE_W);
        emit((u8 *)va + (i % 5) * 16, mov_eax_ret, sizeof(mov_eax_ret));
        *(volatile u32 *)(va + (i % 5) * 16 + 1) = i;
        CHECK_EQ(run((u8 *)va + (i % 5) * 16), i);
        unmap(va);
    }
}

USER_DATA static u8 user_code[64];

USER_TEXT static u64 user_smc(u64 n)
{
    u64 sum = 0;
    volatile u8 *p = user_code;

    for (unsigned i = 0; i < 6; i++)
        p[i] = (u8)(0xc300000000b8ULL >> 8 * i);
    for (u32 i = 0; i < n; i++) {
        *(volatile u32 *)(p + 1) = i;
        sum += ((u64(*)(void))(uptr)p)();
    }
    return sum;
}

TEST(smc__in_ring_3)
{
    struct trap t;

    user_call(&t, user_smc, 5000, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax, 5000ULL * 4999 / 2);
}

TEST(smc__clearing_a_page_with_a_wide_store_at_its_border)
{
    code = pages_alloc(2, 4096);
    for (u32 i = 0; i < 100; i++) {
        emit(code + 4096, mov_eax_ret, sizeof(mov_eax_ret));
        CHECK_EQ(run(code + 4096), 0);
        *(volatile u64 *)(code + 4096 - 5) = (u64)0xb8 << 40 | (u64)(i & 0xff) << 48;
        CHECK_EQ(run(code + 4096), i & 0xff);
    }
}

/* --- several processors --- */

static volatile u32 stage, acks, bad;

static void cross_reader(void *arg)
{
    u8 *p = arg;
    u32 last = 0;
    u32 r[4];

    for (;;) {
        u32 s;
        while ((s = stage) == last)
            pause();
        if (s == ~0U)
            return;
        cpuid(0, 0, r); /* SDM 3A 8.1.3: serialize before running the changed code */
        if (run(p) != s)
            bad = s;
        last = s;
        __atomic_add_fetch(&acks, 1, __ATOMIC_SEQ_CST);
    }
}

TEST(smc__cross_modifying_with_handshake)
{
    unsigned n = smp_start();

    if (n < 2)
        SKIP("one CPU");
    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    stage = acks = bad = 0;
    for (unsigned i = 1; i < n; i++)
        smp_run(i, cross_reader, code);
    for (u32 s = 1; s <= 2000 / n / n; s++) {
        *(volatile u32 *)(code + 1) = s;
        acks = 0;
        stage = s;
        if (!WAIT_FOR(acks == n - 1, 10000)) {
            test_failed(__LINE__, "no answer in round %u", s);
            break;
        }
    }
    stage = ~0U;
    for (unsigned i = 1; i < n; i++)
        CHECK(smp_wait(i));
    CHECK_EQ(bad, 0);
}

#define FRESH 2048

static u8 fresh[FRESH * 64] ALIGNED(4096);
static volatile u32 turn;

/* Two CPUs come to the same new code at the same time; each function makes a slow access. */
static void run_fresh(void *arg)
{
    u64 late = (u64)arg;

    for (u32 i = 0; i < FRESH; i++) {
        __atomic_fetch_add(&turn, 1, __ATOMIC_SEQ_CST);
        while (turn < 2 * (i + 1))
            pause();
        for (volatile u32 k = 0; k < late * (i % 64) * 50; k++)
            ;
        ((u32(*)(u64))(fresh + i * 64))(0xfee00030);
    }
}

TEST(smc__code_new_to_two_cpus)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    for (u32 i = 0; i < FRESH; i++)
        memcpy(fresh + i * 64, "\x8b\x07\xc3", 3); /* mov (%rdi), %eax; ret */
    turn = 0;
    smp_run(1, run_fresh, (void *)1);
    run_fresh((void *)0);
    CHECK(smp_wait(1));
}

/* Pages of code that nobody has written to since the machine began. */
#define UNTOUCHED 400
extern u8 untouched[];
__asm__(
    ".pushsection .text.untouched, \"ax\"; .balign 4096; untouched: .rept 400; mov $1, %eax; ret; "
    ".skip 4090; .endr; .popsection");

static volatile u32 stale;

/* One CPU makes itself a place to write in the page while the other runs its first code. */
static void write_untouched(void *arg)
{
    bool writer = arg != NULL;

    for (u32 i = 0; i < UNTOUCHED; i++) {
        u8 *p = untouched + i * 4096;

        __atomic_fetch_add(&turn, 1, __ATOMIC_SEQ_CST);
        while (turn < 3 * i + 2)
            pause();
        if (writer) {
            u32 r[4];

            for (volatile u32 k = 0; k < i % 200 * 20; k++)
                ;
            *(volatile u8 *)(p + 0x800) = 1; /* not the code */
            __atomic_fetch_add(&turn, 1, __ATOMIC_SEQ_CST);
            while (turn < 3 * i + 3)
                pause();
            *(volatile u8 *)(p + 1) = 2;
            cpuid(0, 0, r);
            stale += run(p) != 2;
        } else {
            run(p);
            while (turn < 3 * i + 3)
                pause();
        }
    }
}

TEST(smc__first_code_and_first_write_of_a_page)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    if (untouched[1] != 1)
        SKIP("ran before");
    turn = stale = 0;
    smp_run(1, write_untouched, (void *)1);
    write_untouched(NULL);
    CHECK(smp_wait(1));
    CHECK_EQ(stale, 0);
}

static volatile bool stop;
static volatile u64 wrong;

/* Runs the function over and over while another CPU flips its one-byte immediate: either value is
 * right, nothing else is. */
static void cross_runner(void *arg)
{
    while (!stop) {
        u64 v = run(arg);
        if (v != 0x11 && v != 0x22)
            wrong = v | 1ULL << 63;
    }
}

TEST(smc__cross_modifying_an_immediate_in_flight)
{
    unsigned n = smp_start();

    if (n < 2)
        SKIP("one CPU");
    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    code[1] = 0x11;
    stop = false;
    wrong = 0;
    for (unsigned i = 1; i < n; i++)
        smp_run(i, cross_runner, code);
    for (unsigned i = 0; i < 3000; i++) {
        *(volatile u8 *)(code + 1) = i & 1 ? 0x11 : 0x22;
        pause();
    }
    stop = true;
    for (unsigned i = 1; i < n; i++)
        CHECK(smp_wait(i));
    CHECK_EQ(wrong, 0);
}

static volatile u32 sync_hits[MAX_CPUS];
static bool sync_ipi(struct regs *r)
{
    u32 c[4];

    (void)r;
    cpuid(0, 0, c);
    sync_hits[cpu_self()->index]++;
    apic_eoi();
    return true;
}

static volatile u32 seen_value[MAX_CPUS];
static void poke_runner(void *arg)
{
    unsigned me = cpu_self()->index;

    sti();
    while (!stop)
        seen_value[me] = (u32)run(arg);
    cli();
}

/* text_poke's protocol: write, IPI to all, and after the answers everyone runs the new code. */
TEST_QEMU_DEVIATES(smc__cross_modifying_with_ipi_sync,
                   "drops translations before the store lands, so an old one may be made anew")
{
    unsigned n = smp_start();

    if (n < 2)
        SKIP("one CPU");
    apic_enable();
    trap_set_hook(0x50, sync_ipi);
    code = page_alloc();
    emit(code, mov_eax_ret, sizeof(mov_eax_ret));
    stop = false;
    for (unsigned i = 1; i < n; i++) {
        sync_hits[i] = 0;
        smp_run(i, poke_runner, code);
    }
    for (u32 round = 1; round <= 200 / n && round < 1000; round++) {
        *(volatile u32 *)(code + 1) = round;
        apic_ipi(0, 0xc4000 | 0x50); /* all but self */
        for (unsigned i = 1; i < n; i++)
            if (!WAIT_FOR(sync_hits[i] >= round, 10000)) {
                test_failed(__LINE__, "cpu %u did not take IPI %u", i, round);
                round = 1000;
                break;
            }
        for (unsigned i = 1; i < n && round < 1000; i++)
            if (!WAIT_FOR(seen_value[i] == round, 5000)) {
                test_failed(__LINE__, "cpu %u still runs the code of round %u in round %u", i,
                            seen_value[i], round);
                round = 1000;
            }
    }
    stop = true;
    for (unsigned i = 1; i < n; i++)
        CHECK(smp_wait(i));
}
