/* SPDX-License-Identifier: Apache-2.0 */
/* Memory as instructions see it: segmentation, alignment checks, paging, MMIO. */
#include <string.h>

#include "engine/interp/interp_priv.h"

unsigned im_access(const struct interp *in)
{
    const struct x86_vcpu_state *s = in->s;
    if (s->cpl == 3)
        return X86_ACC_USER;
    return (s->cr4 & CR4_SMAP) && !(s->rflags & RFLAGS_AC) ? X86_ACC_SMAP : 0;
}

unsigned im_system_access(const struct interp *in)
{
    return in->s->cr4 & CR4_SMAP ? X86_ACC_SMAP : 0;
}

/* --- addresses */

u64 im_ea(const struct interp *in, const struct x86_insn *insn)
{
    const struct x86_vcpu_state *s = in->s;
    u64 ea = (u64)insn->mem.disp;
    if (insn->mem.base < 16)
        ea += s->gpr[insn->mem.base];
    else if (insn->mem.base == X86_REG_RIP)
        ea += s->rip + insn->length;
    if (insn->mem.index < 16 && !insn->mem.vsib)
        ea += s->gpr[insn->mem.index] * insn->mem.scale;
    if (insn->addrsize == 8)
        return ea;
    return insn->addrsize == 4 ? (u32)ea : (u16)ea;
}

/* Type and limit of a data access through a segment register outside 64-bit mode (SDM 3A 5.3,
 * 5.5). Real and virtual-8086 mode have no types. */
static bool segment_ok(const struct x86_vcpu_state *s, const struct x86_seg *seg, u64 off, u64 size,
                       bool write)
{
    bool down = false;
    if (x86_protected(s)) {
        if (!(seg->attr & X86_SEG_P))
            return false;
        if (seg->attr & X86_SEG_CODE) {
            if (write || !(seg->attr & X86_SEG_RW))
                return false;
        } else {
            if (write && !(seg->attr & X86_SEG_RW))
                return false;
            down = (seg->attr & X86_SEG_DC) != 0;
        }
    }
    u64 last = off + size - 1;
    if (likely(!down))
        return last <= seg->limit;
    return off > seg->limit && last <= (seg->attr & X86_SEG_DB ? 0xffffffffu : 0xffffu);
}

bool im_linear_ok(const struct interp *in, unsigned seg, u64 off, u64 size, bool write, u64 *lin)
{
    const struct x86_vcpu_state *s = in->s;
    const struct x86_seg *r = &s->seg[seg];
    if (likely(x86_64bit(s))) {
        u64 a = seg >= X86_FS ? r->base + off : off;
        *lin = a;
        /* AMD's CPUs want the offset canonical too, not only its sum with the base. */
        if (unlikely(seg >= X86_FS && in->model && in->model->amd && !im_canonical(in, off)))
            return false;
        return im_canonical(in, a) && im_canonical(in, a + size - 1);
    }
    *lin = (u32)(r->base + off);
    return segment_ok(s, r, off, size, write);
}

u64 im_linear(struct interp *in, unsigned seg, u64 off, unsigned size, bool write)
{
    u64 lin;
    if (unlikely(!im_linear_ok(in, seg, off, size, write, &lin)))
        interp_raise_err(in, seg == X86_SS ? X86_SS_FAULT : X86_GP, 0);
    return lin;
}

void im_align(struct interp *in, u64 lin, unsigned size)
{
    const struct x86_vcpu_state *s = in->s;
    if (unlikely(s->rflags & RFLAGS_AC) && s->cpl == 3 && (s->cr0 & CR0_AM) && (lin & (size - 1)))
        interp_raise_err(in, X86_AC_FAULT, 0);
}

/* --- pieces: never crossing a page */

/* Guest addresses are aligned as the guest likes. One host access each: what is atomic on the host
 * is atomic for the guest. */
typedef u16 __attribute__((aligned(1))) any16;
typedef u32 __attribute__((aligned(1))) any32;
typedef u64 __attribute__((aligned(1))) any64;

static u64 load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile u8 *)p;
    case 2:
        return *(const volatile any16 *)p;
    case 4:
        return *(const volatile any32 *)p;
    default:
        return *(const volatile any64 *)p;
    }
}

static void store(void *p, unsigned size, u64 val)
{
    switch (size) {
    case 1:
        *(volatile u8 *)p = (u8)val;
        break;
    case 2:
        *(volatile any16 *)p = (u16)val;
        break;
    case 4:
        *(volatile any32 *)p = (u32)val;
        break;
    default:
        *(volatile any64 *)p = val;
        break;
    }
}

static void translate(struct interp *in, u64 lin, unsigned n, unsigned access,
                      struct interp_ref *ref)
{
    if (unlikely(in->ops->translate(in->opaque, lin, n, access, ref, &in->fault) != 0))
        interp_raise_fault(in);
}

/* The largest MMIO access that fits at gpa. */
static unsigned mmio_chunk(u64 gpa, unsigned n)
{
    unsigned c = 8;
    while (c > n || (gpa & (c - 1)))
        c /= 2;
    return c;
}

static void piece_get(struct interp *in, const struct interp_ref *ref, void *buf, unsigned n)
{
    u8 *b = buf;
    if (ref->host) {
        memcpy(b, ref->host, n);
        return;
    }
    for (unsigned i = 0, c; i < n; i += c) {
        c = mmio_chunk(ref->gpa + i, n - i);
        u64 v = in->ops->mmio_read(in->opaque, ref->gpa + i, c);
        memcpy(b + i, &v, c);
    }
}

static void piece_put(struct interp *in, const struct interp_ref *ref, const void *buf, unsigned n)
{
    const u8 *b = buf;
    if (ref->host) {
        memcpy(ref->host, b, n);
        return;
    }
    for (unsigned i = 0, c; i < n; i += c) {
        u64 v = 0;
        c = mmio_chunk(ref->gpa + i, n - i);
        memcpy(&v, b + i, c);
        in->ops->mmio_write(in->opaque, ref->gpa + i, c, v);
    }
}

/* The address n bytes on; outside 64-bit mode linear addresses wrap at 4 GiB. */
static u64 lin_next(const struct interp *in, u64 lin, unsigned n)
{
    return x86_64bit(in->s) ? lin + n : (u32)(lin + n);
}

static inline unsigned page_room(u64 lin)
{
    return (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
}

static inline void watch(struct interp *in, u64 lin, unsigned n, bool write)
{
    if (unlikely(in->s->dr7 & DR7_ENABLED))
        idebug_data(in, lin, n, write);
}

/* --- linear accesses */

void im_lin_read_buf(struct interp *in, u64 lin, void *buf, unsigned n, unsigned access)
{
    struct interp_ref ref[2];
    unsigned first = page_room(lin);
    if (first > n)
        first = n;
    translate(in, lin, first, X86_ACC_READ | access, &ref[0]);
    if (first < n)
        translate(in, lin_next(in, lin, first), n - first, X86_ACC_READ | access, &ref[1]);
    piece_get(in, &ref[0], buf, first);
    if (first < n)
        piece_get(in, &ref[1], (u8 *)buf + first, n - first);
    watch(in, lin, n, false);
}

void im_lin_write_buf(struct interp *in, u64 lin, const void *buf, unsigned n, unsigned access)
{
    struct interp_ref ref[2];
    unsigned first = page_room(lin);
    if (first > n)
        first = n;
    translate(in, lin, first, X86_ACC_WRITE | access, &ref[0]);
    if (first < n)
        translate(in, lin_next(in, lin, first), n - first, X86_ACC_WRITE | access, &ref[1]);
    piece_put(in, &ref[0], buf, first);
    if (first < n)
        piece_put(in, &ref[1], (const u8 *)buf + first, n - first);
    watch(in, lin, n, true);
}

void im_lin_probe_write(struct interp *in, u64 lin, unsigned n, unsigned access)
{
    struct interp_ref ref;
    unsigned first = page_room(lin);
    if (first > n)
        first = n;
    translate(in, lin, first, X86_ACC_WRITE | access, &ref);
    if (first < n)
        translate(in, lin_next(in, lin, first), n - first, X86_ACC_WRITE | access, &ref);
}

u64 im_lin_read(struct interp *in, u64 lin, unsigned size, unsigned access)
{
    struct interp_ref ref;
    u64 val = 0;
    if (unlikely(page_room(lin) < size)) {
        im_lin_read_buf(in, lin, &val, size, access);
        return val;
    }
    translate(in, lin, size, X86_ACC_READ | access, &ref);
    if (likely(ref.host != NULL))
        val = load(ref.host, size);
    else
        val = in->ops->mmio_read(in->opaque, ref.gpa, size) & size_mask(size);
    watch(in, lin, size, false);
    return val;
}

void im_lin_write(struct interp *in, u64 lin, unsigned size, u64 val, unsigned access)
{
    struct interp_ref ref;
    if (unlikely(page_room(lin) < size)) {
        im_lin_write_buf(in, lin, &val, size, access);
        return;
    }
    translate(in, lin, size, X86_ACC_WRITE | access, &ref);
    if (likely(ref.host != NULL))
        store(ref.host, size, val);
    else
        in->ops->mmio_write(in->opaque, ref.gpa, size, val & size_mask(size));
    watch(in, lin, size, true);
}

/* --- through a segment */

u64 im_read(struct interp *in, unsigned seg, u64 off, unsigned size)
{
    u64 lin = im_linear(in, seg, off, size, false);
    im_align(in, lin, size);
    return im_lin_read(in, lin, size, im_access(in));
}

void im_write(struct interp *in, unsigned seg, u64 off, unsigned size, u64 val)
{
    u64 lin = im_linear(in, seg, off, size, true);
    im_align(in, lin, size);
    im_lin_write(in, lin, size, val, im_access(in));
}

/* --- read-modify-write */

void im_rmw(struct interp *in, u64 lin, unsigned size, unsigned access, struct im_rmw *m)
{
    unsigned room = page_room(lin);
    m->size = size;
    m->first = room < size ? room : size;
    access |= X86_ACC_WRITE | X86_ACC_ALSO_READ;
    translate(in, lin, m->first, access, &m->part[0]);
    if (m->first < size)
        translate(in, lin_next(in, lin, m->first), size - m->first, access, &m->part[1]);
    m->single = m->first == size && m->part[0].host;
    watch(in, lin, size, true);
}

void im_rmw_get(struct interp *in, const struct im_rmw *m, void *buf)
{
    piece_get(in, &m->part[0], buf, m->first);
    if (m->first < m->size)
        piece_get(in, &m->part[1], (u8 *)buf + m->first, m->size - m->first);
}

void im_rmw_put(struct interp *in, const struct im_rmw *m, const void *buf)
{
    piece_put(in, &m->part[0], buf, m->first);
    if (m->first < m->size)
        piece_put(in, &m->part[1], (const u8 *)buf + m->first, m->size - m->first);
}
