/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the debugger sees it: through the page tables of the selected vCPU without regard
 * to access rights and without touching accessed and dirty bits, or guest-physical. RAM and ROM
 * only: device registers are not read behind the guest's back.
 */
#include <errno.h>

#include "debug/gdb/session_priv.h"
#include "x86/paging.h"

static void *walk_ptr(void *opaque, u64 at)
{
    /* The walker wants a non-const opaque; it only reads (X86_ACC_NO_SET_AD). */
    const struct vm *vm = opaque;

    return guest_mem_ptr(&vm->mem, gpa(at), 8);
}

bool gdb_translate(const struct vm *vm, const struct x86_vcpu_state *s, u64 lin, u64 *phys)
{
    struct x86_walk_mem wm = {
        .ptr = walk_ptr, .opaque = (void *)(uintptr_t)vm, .phys_bits = vm->cpu_model.phys_bits};
    struct x86_walk w;

    if (!x86_long_mode(s))
        lin = (u32)lin;
    else if (sign_extend(lin, s->cr4 & CR4_LA57 ? 57 : 48) != lin)
        return false;
    if (!x86_walk(s, &wm, lin, X86_ACC_READ | X86_ACC_NO_SET_AD, &w))
        return false;
    *phys = w.gpa;
    return true;
}

/* The piece of [addr, addr+len) in one page: its guest-physical address. 0: not there. */
static size_t piece(struct gdb_session *g, const struct x86_vcpu_state *s, u64 addr, size_t len,
                    u64 *phys)
{
    u64 room = PAGE_SIZE - (addr & ~PAGE_MASK);

    if (room < len)
        len = room;
    if (g->physical)
        *phys = addr;
    else if (!gdb_translate(g->c.vm, s, addr, phys))
        return 0;
    return len;
}

size_t gdb_read_memory(struct gdb_session *g, u64 addr, void *buf, size_t len)
{
    struct x86_vcpu_state s;
    size_t done = 0, n;
    u64 phys;

    if (g->c.vm->engine->get_state(g->c.vm->vcpu[g->cpu], &s))
        return 0;
    while (done < len) {
        n = piece(g, &s, addr + done, len - done, &phys);
        if (!n || guest_mem_read(&g->c.vm->mem, gpa(phys), (u8 *)buf + done, n))
            break;
        done += n;
    }
    return done;
}

int gdb_write_memory(struct gdb_session *g, u64 addr, const void *buf, size_t len)
{
    struct vm *vm = g->c.vm;
    struct x86_vcpu_state s;
    size_t done = 0, n;
    u64 phys;
    int err = 0;

    if (vm->engine->get_state(vm->vcpu[g->cpu], &s))
        return -EFAULT;
    vm_lock(vm);
    while (done < len && !err) {
        n = piece(g, &s, addr + done, len - done, &phys);
        if (!n)
            err = -EFAULT;
        else
            err = vm_dma_write(vm, gpa(phys), (const u8 *)buf + done, n);
        done += n;
    }
    vm_unlock(vm);
    return err;
}
