/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "board/dump.h"
#include "x86/insn.h"
#include "x86/paging.h"

static void *walk_ptr(void *opaque, u64 at)
{
    return guest_mem_ptr(opaque, gpa(at), 8);
}

/* Copies up to n bytes of code at rip, page by page; how many could be read. */
static unsigned read_code(const struct x86_vcpu_state *s, const struct guest_mem *m, u8 *buf,
                          unsigned n)
{
    /* The walker wants a non-const opaque; it only reads (X86_ACC_NO_SET_AD). */
    struct x86_walk_mem wm = {.ptr = walk_ptr, .opaque = (void *)(uintptr_t)m};
    u64 lin = x86_64bit(s) ? s->rip : (u32)(s->seg[X86_CS].base + s->rip);
    unsigned done = 0;

    while (done < n) {
        struct x86_walk w;

        if (!x86_walk(s, &wm, lin + done, X86_ACC_READ | X86_ACC_NO_SET_AD, &w) ||
            guest_mem_read(m, gpa(w.gpa), buf + done, 1))
            break;
        done++;
    }
    return done;
}

static void dump_seg(FILE *out, const char *name, const struct x86_seg *g)
{
    fprintf(out, "  %-4s %04x base %016llx limit %08x attr %04x\n", name, g->sel,
            (unsigned long long)g->base, g->limit, g->attr);
}

void dump_state(FILE *out, unsigned n, const struct x86_vcpu_state *s, const struct guest_mem *m)
{
    static const char *const gpr[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const seg[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    static const char *const activity[] = {"running", "halted", "waiting for SIPI", "shut down"};
    unsigned mode = x86_64bit(s) ? 64 : s->seg[X86_CS].attr & X86_SEG_DB ? 32 : 16;
    struct x86_insn insn;
    u8 code[X86_INSN_MAX];
    char text[128];
    unsigned len;

    fprintf(out, "vcpu %u: %s, cpl %u, %u-bit code%s\n", n,
            s->activity < ARRAY_SIZE(activity) ? activity[s->activity] : "?", s->cpl, mode,
            x86_protected(s) ? "" : " (real or virtual-8086 mode)");
    for (unsigned i = 0; i < 16; i++)
        fprintf(out, "  %-3s %016llx%s", gpr[i], (unsigned long long)s->gpr[i],
                i % 4 == 3 ? "\n" : "");
    fprintf(out, "  rip %016llx rflags %08llx\n", (unsigned long long)s->rip,
            (unsigned long long)s->rflags);
    for (unsigned i = 0; i < X86_NSEG; i++)
        dump_seg(out, seg[i], &s->seg[i]);
    dump_seg(out, "ldtr", &s->ldtr);
    dump_seg(out, "tr", &s->tr);
    fprintf(out, "  gdtr base %016llx limit %04x  idtr base %016llx limit %04x\n",
            (unsigned long long)s->gdtr.base, s->gdtr.limit, (unsigned long long)s->idtr.base,
            s->idtr.limit);
    fprintf(out, "  cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %04llx xcr0 %llx\n",
            (unsigned long long)s->cr0, (unsigned long long)s->cr2, (unsigned long long)s->cr3,
            (unsigned long long)s->cr4, (unsigned long long)s->efer, (unsigned long long)s->xcr0);
    len = read_code(s, m, code, sizeof(code));
    if (!len) {
        fprintf(out, "  no code can be read at rip\n");
        return;
    }
    fprintf(out, "  code");
    for (unsigned i = 0; i < len; i++)
        fprintf(out, " %02x", code[i]);
    if (x86_decode(&insn, code, len, mode, !x86_protected(s)) == X86_DECODE_OK) {
        x86_format(&insn, s->rip, text, sizeof(text));
        fprintf(out, "  (%s)", text);
    }
    fputc('\n', out);
}
