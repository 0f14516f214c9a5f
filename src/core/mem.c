/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "core/mem.h"

int guest_mem_add(struct guest_mem *m, gpa_t base, u64 size, void *host, bool readonly)
{
    u64 end;

    if (!size || ((base.v | size) & ~PAGE_MASK) || !add_ok(base.v, size, &end) || !host)
        return -EINVAL;
    for (unsigned i = 0; i < m->n; i++) {
        const struct mem_slot *s = &m->slot[i];
        if (base.v < s->gpa + s->size && s->gpa < end)
            return -EINVAL;
    }
    if (m->n == MEM_SLOTS_MAX)
        return -ENOSPC;
    m->slot[m->n++] =
        (struct mem_slot){.gpa = base.v, .size = size, .host = host, .readonly = readonly};
    return 0;
}

const struct mem_slot *guest_mem_slot(const struct guest_mem *m, gpa_t a)
{
    for (unsigned i = 0; i < m->n; i++)
        if (a.v - m->slot[i].gpa < m->slot[i].size)
            return &m->slot[i];
    return NULL;
}

void *guest_mem_ptr(const struct guest_mem *m, gpa_t a, u64 len)
{
    const struct mem_slot *s = guest_mem_slot(m, a);
    if (!s || len > s->size - (a.v - s->gpa))
        return NULL;
    return s->host + (a.v - s->gpa);
}

bool guest_mem_gpa(const struct guest_mem *m, const void *host, gpa_t *a)
{
    for (unsigned i = 0; i < m->n; i++) {
        u64 off = (u64)((const u8 *)host - m->slot[i].host);
        if (off < m->slot[i].size) {
            *a = gpa(m->slot[i].gpa + off);
            return true;
        }
    }
    return false;
}

/* True when [a, a+len) is covered by slots, writable ones if asked. */
static bool covered(const struct guest_mem *m, gpa_t a, u64 len, bool write)
{
    u64 end;

    if (!add_ok(a.v, len, &end))
        return false;
    while (a.v < end) {
        const struct mem_slot *s = guest_mem_slot(m, a);
        if (!s || (write && s->readonly))
            return false;
        a.v = s->gpa + s->size;
    }
    return true;
}

/* Bytes of [a, a+len) that lie in the slot of a, which exists. */
static u64 piece(const struct mem_slot *s, gpa_t a, u64 len)
{
    u64 room = s->size - (a.v - s->gpa);
    return len < room ? len : room;
}

int guest_mem_read(const struct guest_mem *m, gpa_t a, void *buf, u64 len)
{
    u8 *p = buf;

    if (!covered(m, a, len, false))
        return -EFAULT;
    while (len) {
        const struct mem_slot *s = guest_mem_slot(m, a);
        u64 n = piece(s, a, len);
        memcpy(p, s->host + (a.v - s->gpa), n);
        a.v += n;
        p += n;
        len -= n;
    }
    return 0;
}

int guest_mem_write(const struct guest_mem *m, gpa_t a, const void *buf, u64 len)
{
    const u8 *p = buf;

    if (!covered(m, a, len, true))
        return -EFAULT;
    while (len) {
        const struct mem_slot *s = guest_mem_slot(m, a);
        u64 n = piece(s, a, len);
        memcpy(s->host + (a.v - s->gpa), p, n);
        a.v += n;
        p += n;
        len -= n;
    }
    return 0;
}
