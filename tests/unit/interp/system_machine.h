/* SPDX-License-Identifier: Apache-2.0 */
/* A little machine for tests of the interpreter's system half: RAM, descriptor tables, no devices.
 */
#ifndef TESTS_UNIT_INTERP_SYSTEM_MACHINE_H
#define TESTS_UNIT_INTERP_SYSTEM_MACHINE_H

#include "engine/interp/interp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define RAM_SIZE (4u << 20)

/* Where things lie. */
enum {
    IVT = 0,
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    TSS_B = 0x3800,
    LDT = 0x4000,
    TABLES = 0x10000, /* page tables */
    CODE = 0x20000,
    HANDLER = 0x30000, /* handler of vector v at HANDLER + 16 * v */
    STACK0 = 0x41000,  /* tops of stacks by ring */
    STACK3 = 0x44000,
    IST1 = 0x46000,
    DATA = 0x50000,
};

/* Selectors of the flat GDT every protected machine gets; user ones carry RPL 3. */
enum {
    SEL_CODE0 = 0x08,
    SEL_DATA0 = 0x10,
    SEL_CODE3 = 0x1b,
    SEL_DATA3 = 0x23,
    SEL_TSS = 0x28, /* 16 bytes in long mode */
    SEL_CODE16 = 0x38,
    SEL_DATA16_3 = 0x43,
    SEL_TSS_B = 0x48,
    SEL_GATE = 0x50, /* free for tests, 16 bytes */
    SEL_CODE32_3 = 0x63,
    SEL_FREE = 0x68,
};

struct machine {
    struct x86_vcpu_state s;
    struct x86_cpu_model model;
    struct interp in;
    u8 *ram;
    void *cache;
    unsigned flushes, cr3_writes, invlpgs;
    u16 flush_pcid;
    enum interp_flush flush_kind;
    bool noflush;
    u64 cr8;
    u32 pio_val;
    u16 pio_port;
    unsigned pio_count, pio_size;
    u64 bad_page; /* reads and writes of this page fault; 0: none */
    struct x86_walk_mem walk;
};

struct machine *machine_real(void);
struct machine *machine_prot32(void); /* ring 0, paging off */
struct machine *machine_long(void);   /* ring 0, 64-bit, first 4 MiB identity mapped, user */
void machine_free(struct machine *m);

/* Puts the vCPU at ring 3 with flat segments (64-bit or 32-bit as the machine is). */
void machine_ring3(struct machine *m);

void put(struct machine *m, u32 at, const void *p, size_t n);
void put16(struct machine *m, u32 at, u16 v);
void put32(struct machine *m, u32 at, u32 v);
void put64(struct machine *m, u32 at, u64 v);
u16 get16(struct machine *m, u64 at);
u32 get32(struct machine *m, u64 at);
u64 get64(struct machine *m, u64 at);

/* attr as in struct x86_seg; limit in units of the G bit. */
u64 desc(u32 base, u32 limit, unsigned attr);
u64 gate(u16 sel, u32 off, unsigned type, unsigned dpl);
/* Present interrupt gate for vector v, to the machine's ring 0 code at HANDLER + 16 * v. */
void set_idt(struct machine *m, unsigned v, unsigned type, unsigned dpl, unsigned ist);

/* Puts code at CODE and steps once. */
enum interp_result run1(struct machine *m, const void *code, size_t n);
#define RUN(m, ...) run1(m, (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

/* The vCPU stands at the handler of vector v. */
#define assert_vector(m, v) assert_int_equal((m)->s.rip, HANDLER + 16 * (v))

#endif
