/* SPDX-License-Identifier: Apache-2.0 */
/* Debug registers: breakpoints on execution, data and I/O (SDM 3B 17.2). */
#include "engine/interp/system_priv.h"

enum { RW_EXEC, RW_WRITE, RW_IO, RW_READWRITE };

static unsigned bp_type(u64 dr7, unsigned i)
{
    return (unsigned)(dr7 >> (16 + 4 * i) & 3);
}

static unsigned bp_len(u64 dr7, unsigned i)
{
    static const u8 len[] = {1, 2, 8, 4};
    return len[dr7 >> (18 + 4 * i) & 3];
}

static bool bp_enabled(u64 dr7, unsigned i)
{
    return (dr7 >> (2 * i) & 3) != 0;
}

/* Notes a hit that traps after the instruction. */
static void hit(struct interp *in, unsigned i)
{
    in->s->dr6 |= BIT64(i);
    in->s->db_pending = 1;
}

/* [at, at + len) meets breakpoint i's naturally aligned range. */
static bool overlaps(const struct x86_vcpu_state *s, unsigned i, u64 at, unsigned len)
{
    u64 n = bp_len(s->dr7, i), first = s->dr[i] & ~(n - 1);
    if (!x86_long_mode(s))
        first = (u32)first;
    return at < first + n && first < at + len;
}

void idebug_data(struct interp *in, u64 lin, unsigned len, bool write)
{
    const struct x86_vcpu_state *s = in->s;
    for (unsigned i = 0; i < 4; i++) {
        unsigned type = bp_type(s->dr7, i);
        bool wanted = type == RW_READWRITE || (type == RW_WRITE && write);
        if (wanted && bp_enabled(s->dr7, i) && overlaps(s, i, lin, len))
            hit(in, i);
    }
}

void idebug_io(struct interp *in, u16 port, unsigned len)
{
    const struct x86_vcpu_state *s = in->s;
    if (!(s->cr4 & CR4_DE)) /* without DE the encoding is undefined */
        return;
    for (unsigned i = 0; i < 4; i++)
        if (bp_type(s->dr7, i) == RW_IO && bp_enabled(s->dr7, i) && overlaps(s, i, port, len))
            hit(in, i);
}

void idebug_fetch(struct interp *in, u64 lin)
{
    struct x86_vcpu_state *s = in->s;
    u64 hits = 0;
    if (s->rflags & RFLAGS_RF)
        return;
    for (unsigned i = 0; i < 4; i++) {
        u64 at = x86_long_mode(s) ? s->dr[i] : (u32)s->dr[i];
        if (bp_type(s->dr7, i) == RW_EXEC && bp_enabled(s->dr7, i) && at == lin)
            hits |= BIT64(i);
    }
    if (!hits)
        return;
    s->dr6 = (s->dr6 & ~MASK64(3, 0)) | hits;
    interp_raise(in, X86_DB);
}
