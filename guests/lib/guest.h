/* SPDX-License-Identifier: Apache-2.0 */
/* What every guest uses, in 32-bit and in 64-bit code: the console, the tests and their verdicts.
 *
 * A guest is a list of TEST()s. The start code calls guest_main() (the default one in report.c runs
 * all tests in order); each test ends with one verdict:
 *   pass   no check failed
 *   fail   a CHECK failed: the machine did not do what the manual says
 *   skip   SKIP(): the machine does not offer what the test needs
 *   error  the test itself came to grief (an exception nobody asked for)
 * The last line is "guest: N passed, N failed, N skipped" (errors count as failed), then the guest
 * leaves through isa-debug-exit with 0 when nothing failed.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef uintptr_t uptr;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define NOINLINE __attribute__((noinline))
#define ALIGNED(n) __attribute__((aligned(n)))
#define BARRIER() __asm__ volatile("" ::: "memory")

/* Code and data that ring 3 may use. USER_TEXT functions may call and name nothing outside. */
#define USER_TEXT __attribute__((section(".user.text"), noinline))
#define USER_DATA __attribute__((section(".user.data")))

struct test {
    const char *name;
    void (*fn)(void);
    const char *qemu_deviates; /* why QEMU's TCG is expected to fail it, or NULL */
} ALIGNED(32);                 /* the linker lays them out as an array */

#define TEST_ENTRY(id, why)                                                                        \
    static void id(void);                                                                          \
    static const struct test id##_entry __attribute__((section(".tests"), used)) = {#id, id, why}; \
    static void id(void)

/* Defines a test. */
#define TEST(id) TEST_ENTRY(id, NULL)
/* Defines a test in which QEMU's TCG is known to deviate from the manual. */
#define TEST_QEMU_DEVIATES(id, why) TEST_ENTRY(id, why)

/* Records a failed check unless the condition holds; the test goes on. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            test_failed(__LINE__, "%s", #cond);                                                    \
    } while (0)

/* Records a failed check unless both values are the same number. */
#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        u64 got_ = (u64)(got), want_ = (u64)(want);                                                \
        if (got_ != want_)                                                                         \
            test_failed(__LINE__, "%s: got %llx, want %llx", #got, (unsigned long long)got_,       \
                        (unsigned long long)want_);                                                \
    } while (0)

/* Ends the test with the verdict skip. Only in the test function itself. */
#define SKIP(why)                                                                                  \
    do {                                                                                           \
        test_skipped(why);                                                                         \
        return;                                                                                    \
    } while (0)

/* Like CHECK, and ends the test when the condition does not hold. */
#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            test_failed(__LINE__, "%s", #cond);                                                    \
            return;                                                                                \
        }                                                                                          \
    } while (0)

/* Prints on COM1: %s %c %d %u %x %p and %%, with l, ll, a width and a leading 0. */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, from an argument list. */
void vprint(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

void test_failed(int line, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void test_skipped(const char *why);
void test_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Runs every test, prints the summary and leaves the guest. */
_Noreturn void run_tests(void);
/* Leaves through isa-debug-exit (port 0xf4); 0 means success. */
_Noreturn void guest_exit(u32 value);
/* The guest's main function; report.c has a default one that calls run_tests(). */
void guest_main(void);

/* Runs one test with a landing place for unexpected exceptions; each width of the library has its
 * own. */
void arch_run_test(const struct test *t);

/* True when the machine, or the command line (`tcg`), says that this is QEMU's TCG. */
bool on_qemu_tcg(void);

extern u32 boot_magic, boot_info; /* EAX and EBX as the loader left them */
extern u32 boot_rsdp;             /* from a PVH loader's hvm_start_info, or 0 */

void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
void *memmove(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* Instructions that are the same in both widths. */
static inline void outb(u16 port, u8 v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outw(u16 port, u16 v)
{
    __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v)
{
    __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline u8 inb(u16 port)
{
    u8 v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u16 inw(u16 port)
{
    u16 v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u32 inl(u16 port)
{
    u32 v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "0"(leaf), "2"(sub)
                     : "memory");
}
static inline u64 rdtsc(void)
{
    u32 lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (u64)hi << 32 | lo;
}
static inline u64 rdmsr(u32 msr)
{
    u32 lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
    return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 msr, u64 v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
static inline void pause(void)
{
    __asm__ volatile("pause" ::: "memory");
}
static inline void cli(void)
{
    __asm__ volatile("cli" ::: "memory");
}
static inline void sti(void)
{
    __asm__ volatile("sti; nop" ::: "memory");
}
#define READ_CR(n)                                                                                 \
    ({                                                                                             \
        uptr v_;                                                                                   \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v_)::"memory");                               \
        v_;                                                                                        \
    })
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((uptr)(v)) : "memory")
#define READ_DR(n)                                                                                 \
    ({                                                                                             \
        uptr v_;                                                                                   \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(v_)::"memory");                               \
        v_;                                                                                        \
    })
#define WRITE_DR(n, v) __asm__ volatile("mov %0, %%dr" #n ::"r"((uptr)(v)) : "memory")

/* CPUID feature tests: leaf, register index (0 = EAX), bit. */
static inline bool cpu_has(u32 leaf, u32 sub, unsigned reg, unsigned bit)
{
    u32 r[4];
    cpuid(leaf & 0x80000000U, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, sub, r);
    return r[reg] >> bit & 1;
}
/* True on AuthenticAMD and HygonGenuine, whose SYSCALL and segment rules differ from Intel's. */
static inline bool cpu_is_amd(void)
{
    u32 r[4];
    cpuid(0, 0, r);
    return r[1] == 0x68747541 || r[1] == 0x6f677948;
}

/* Exception vectors, by their mnemonics (SDM 3A table 6-1). */
enum {
    V_DE,
    V_DB,
    V_NMI,
    V_BP,
    V_OF,
    V_BR,
    V_UD,
    V_NM,
    V_DF,
    V_TS = 10,
    V_NP,
    V_SS,
    V_GP,
    V_PF,
    V_MF = 16,
    V_AC,
    V_MC,
    V_XM,
    V_NONE = 0x1000, /* nothing was raised */
};

/* Flags, control-register bits and page-fault error bits. */
#define F_CF 0x1U
#define F_PF 0x4U
#define F_AF 0x10U
#define F_ZF 0x40U
#define F_SF 0x80U
#define F_TF 0x100U
#define F_IF 0x200U
#define F_DF 0x400U
#define F_OF 0x800U
#define F_IOPL 0x3000U
#define F_NT 0x4000U
#define F_RF 0x10000U
#define F_VM 0x20000U
#define F_AC 0x40000U
#define F_VIF 0x80000U
#define F_VIP 0x100000U
#define F_ID 0x200000U

#define CR0_PE 0x1U
#define CR0_MP 0x2U
#define CR0_EM 0x4U
#define CR0_TS 0x8U
#define CR0_NE 0x20U
#define CR0_WP 0x10000U
#define CR0_AM 0x40000U
#define CR0_NW 0x20000000U
#define CR0_CD 0x40000000U
#define CR0_PG 0x80000000U

#define CR4_VME 0x1U
#define CR4_PVI 0x2U
#define CR4_TSD 0x4U
#define CR4_DE 0x8U
#define CR4_PSE 0x10U
#define CR4_PAE 0x20U
#define CR4_MCE 0x40U
#define CR4_PGE 0x80U
#define CR4_PCE 0x100U
#define CR4_OSFXSR 0x200U
#define CR4_OSXMMEXCPT 0x400U
#define CR4_UMIP 0x800U
#define CR4_LA57 0x1000U
#define CR4_FSGSBASE 0x10000U
#define CR4_PCIDE 0x20000U
#define CR4_OSXSAVE 0x40000U
#define CR4_SMEP 0x100000U
#define CR4_SMAP 0x200000U
#define CR4_PKE 0x400000U

#define PF_P 0x1U
#define PF_W 0x2U
#define PF_U 0x4U
#define PF_RSVD 0x8U
#define PF_I 0x10U

#define PTE_P 0x1ULL
#define PTE_W 0x2ULL
#define PTE_U 0x4ULL
#define PTE_PWT 0x8ULL
#define PTE_PCD 0x10ULL
#define PTE_A 0x20ULL
#define PTE_D 0x40ULL
#define PTE_PS 0x80ULL
#define PTE_G 0x100ULL
#define PTE_NX 0x8000000000000000ULL
#define PTE_ADDR 0x000ffffffffff000ULL

#define MSR_APIC_BASE 0x1b
#define MSR_EFER 0xc0000080
#define EFER_SCE 0x1U
#define EFER_LME 0x100U
#define EFER_LMA 0x400U
#define EFER_NXE 0x800U
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102

#endif
