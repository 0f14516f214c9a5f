/* SPDX-License-Identifier: Apache-2.0 */
/* virtqueues of both layouts: data, order, event suppression, and drivers that break the rules. */
#include <stdlib.h>
#include <string.h>

#include "dev/virtio_test.h"

static struct test_device t;
static u64 buf; /* guest memory for buffers: BUF_SIZE bytes */
#define BUF_SIZE 0x10000u

static void start(struct vd_mode mode, u16 size)
{
    td_new(&t);
    vd_start(&t.drv, mode, 0, size);
    buf = vd_alloc(t.b, BUF_SIZE, 4096);
    memset(t.notified, 0, sizeof(t.notified));
}

static bool ready(unsigned q)
{
    bool r;

    vm_lock(&t.b->m->vm);
    r = virtq_ready(&t.d, q);
    vm_unlock(&t.b->m->vm);
    return r;
}

static bool want_notify(unsigned q, bool on)
{
    bool r;

    vm_lock(&t.b->m->vm);
    r = virtq_want_notify(&t.d, q, on);
    vm_unlock(&t.b->m->vm);
    return r;
}

/* The device writes what it reads, plus one, as far as there is room. */
static u32 echo(void)
{
    u8 data[512];
    size_t n = iov_read(t.c.iov, t.c.nout, 0, data, sizeof(data));

    assert_int_equal(n, t.c.out_len);
    for (size_t i = 0; i < n; i++)
        data[i]++;
    return (u32)iov_write(t.c.iov + t.c.nout, t.c.nin, 0, data, n);
}

/* A chain of random shape in the modes' memory, through the device and back. */
static void round_trip(unsigned q, unsigned seed)
{
    struct vd_buf b[12];
    unsigned nout = 1 + seed % 5, nin = seed / 5 % 6;
    u32 out = 0, in = 0, got, at = 0;
    u8 expected;
    int id;

    for (unsigned i = 0; i < nout + nin; i++) {
        b[i] = (struct vd_buf){buf + 64 * i, 1 + (seed * 7 + i * 13) % 40};
        for (u32 k = 0; k < b[i].len; k++)
            *vd_ram(t.b, b[i].addr + k) = i < nout ? (u8)(seed + out + k) : 0xcc;
        *(i < nout ? &out : &in) += b[i].len;
    }
    id = vd_add(&t.drv, q, b, nout, nin);
    assert_true(id >= 0);
    assert_int_equal(vd_used(&t.drv, q, NULL), -1);
    vd_kick(&t.drv, q);
    assert_true(ready(q));
    assert_true(td_pop(&t, q));
    assert_int_equal(t.c.nout, nout);
    assert_int_equal(t.c.nin, nin);
    assert_int_equal(t.c.out_len, out);
    assert_int_equal(t.c.in_len, in);
    assert_int_equal(t.d.inflight, 1);
    td_push(&t, q, echo());
    assert_int_equal(t.d.inflight, 0);
    td_signal(&t, q);
    assert_false(ready(q));
    assert_int_equal(vd_used(&t.drv, q, &got), id);
    assert_int_equal(got, in < out ? in : out);
    for (unsigned i = nout; i < nout + nin; i++)
        for (u32 k = 0; k < b[i].len; k++, at++) {
            expected = at < got ? (u8)(seed + at + 1) : 0xcc;
            assert_int_equal(*vd_ram(t.b, b[i].addr + k), expected);
        }
}

static void ring__carries_chains(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        start(vd_mode(n), 16);
        for (unsigned i = 0; i < 300; i++) {
            vd_want_interrupt(&t.drv, 0, 1);
            round_trip(0, i);
            assert_int_equal(vd_interrupts(&t.drv, 0), 1);
            round_trip(1, i + 1);
        }
        assert_int_equal(vd_config_interrupts(&t.drv), 0);
        td_free(&t);
    }
}

/* Packed rings need not be a power of two. */
static void ring__of_an_odd_size(void **state)
{
    (void)state;
    for (unsigned n = 1; n < VD_MODES; n += 2) {
        start(vd_mode(n), 11);
        for (unsigned i = 0; i < 300; i++) {
            vd_want_interrupt(&t.drv, 0, 1);
            round_trip(0, i);
            assert_int_equal(vd_interrupts(&t.drv, 0), 1);
        }
        td_free(&t);
    }
}

/* A full ring, given back in another order than it was taken in. */
static void ring__out_of_order(void **state)
{
    enum { SIZE = 16 }; /* and one that does not fit any more */

    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct host_iov iov[SIZE + 1][4];
        struct virtq_chain c[SIZE + 1];
        int id[SIZE + 1];

        start(vd_mode(n), SIZE);
        srand(n);
        for (unsigned round = 0; round < 50; round++) {
            unsigned count = 0;
            vm_lock(&t.b->m->vm);
            for (;;) {
                struct vd_buf b[3];
                unsigned pieces = 1 + (unsigned)rand() % 3;
                for (unsigned i = 0; i < pieces; i++)
                    b[i] = (struct vd_buf){buf + 64 * (3 * count + i), 8};
                vm_unlock(&t.b->m->vm);
                id[count] = vd_add(&t.drv, 0, b, 0, pieces);
                vm_lock(&t.b->m->vm);
                if (id[count] < 0)
                    break;
                c[count] = (struct virtq_chain){.iov = iov[count], .cap = 4};
                assert_true(virtq_pop(&t.d, 0, &c[count]));
                count++;
            }
            assert_false(virtq_ready(&t.d, 0));
            for (unsigned left = count; left; left--) {
                unsigned i = (unsigned)rand() % left;
                virtq_push(&t.d, 0, &c[i], (u32)i + 1);
                virtq_signal(&t.d, 0);
                u32 len;
                assert_int_equal(vd_used(&t.drv, 0, &len), id[i]);
                assert_int_equal(len, i + 1);
                c[i] = c[left - 1];
                id[i] = id[left - 1];
                /* A chain's iov belongs to its slot. */
                memcpy(iov[i], iov[left - 1], sizeof(iov[i]));
                c[i].iov = iov[i];
            }
            vm_unlock(&t.b->m->vm);
        }
        td_free(&t);
    }
}

/* Interrupts come exactly when they were asked for, over more than 65536 chains. */
static void ring__interrupts_are_exact(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_mode mode = vd_mode(n);
        unsigned long chains = 0;
        start(mode, 32);
        srand(n);
        while (chains < 70000) {
            unsigned burst = 1 + (unsigned)rand() % 20;
            unsigned after = (unsigned)rand() % (mode.event_idx ? 24 : 2);
            /* Signalled one by one, in groups, or at the end */
            unsigned group = 1 + (unsigned)rand() % 20, seen = 0;

            vd_want_interrupt(&t.drv, 0, after);
            for (unsigned i = 0; i < burst; i++)
                assert_true(vd_add(&t.drv, 0, &(struct vd_buf){buf, 8}, 0, 1) >= 0);
            vm_lock(&t.b->m->vm);
            for (unsigned i = 0; i < burst; i++) {
                bool last;
                assert_true(virtq_pop(&t.d, 0, &t.c));
                virtq_push(&t.d, 0, &t.c, 1);
                last = i + 1 == burst;
                if ((i + 1) % group && !last)
                    continue;
                virtq_signal(&t.d, 0);
                vm_unlock(&t.b->m->vm);
                unsigned got = vd_interrupts(&t.drv, 0);
                vm_lock(&t.b->m->vm);
                if (mode.event_idx) {
                    /* With the group that holds the chain that was asked for, no other. */
                    bool due = after && after > seen && after <= i + 1;
                    assert_int_equal(got, due);
                } else {
                    assert_int_equal(got, after != 0);
                }
                seen = i + 1;
            }
            virtq_signal(&t.d, 0); /* nothing new: nothing */
            vm_unlock(&t.b->m->vm);
            assert_int_equal(vd_interrupts(&t.drv, 0), 0);
            for (unsigned i = 0; i < burst; i++)
                assert_true(vd_used(&t.drv, 0, NULL) >= 0);
            assert_int_equal(vd_used(&t.drv, 0, NULL), -1);
            chains += burst;
        }
        td_free(&t);
    }
}

/* Notifications come when the device waits for them, and not while it said it does not. */
static void ring__notifications_are_exact(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        unsigned long chains = 0;
        start(vd_mode(n), 32);
        srand(n);
        while (chains < 70000) {
            unsigned burst = 1 + (unsigned)rand() % 20, more = (unsigned)rand() % 12;
            bool quiet = rand() % 2;

            /* The queue is empty and the device waits. */
            for (unsigned i = 0; i < burst; i++)
                assert_true(vd_add(&t.drv, 0, &(struct vd_buf){buf, 8}, 0, 1) >= 0);
            t.notified[0] = 0;
            assert_true(vd_kick(&t.drv, 0));
            assert_int_equal(t.notified[0], 1);
            if (quiet)
                assert_false(want_notify(0, false));
            assert_true(td_pop(&t, 0));
            td_push(&t, 0, 1);
            for (unsigned i = 0; i < more; i++)
                assert_true(vd_add(&t.drv, 0, &(struct vd_buf){buf, 8}, 0, 1) >= 0);
            t.notified[0] = 0;
            if (quiet && more) {
                assert_false(vd_kick(&t.drv, 0));
                assert_int_equal(t.notified[0], 0);
            } else {
                vd_kick(&t.drv, 0);
            }
            for (unsigned i = 1; i < burst + more; i++) {
                assert_true(td_pop(&t, 0));
                td_push(&t, 0, 1);
            }
            if (quiet) {
                /* What comes before the device says so is told by the answer... */
                if (rand() % 2) {
                    assert_true(vd_add(&t.drv, 0, &(struct vd_buf){buf, 8}, 0, 1) >= 0);
                    assert_false(vd_kick(&t.drv, 0));
                    assert_true(want_notify(0, true));
                    assert_true(td_pop(&t, 0));
                    td_push(&t, 0, 1);
                    more++;
                }
                assert_false(want_notify(0, true)); /* ...and what comes later by a notification. */
            }
            for (unsigned i = 0; i < burst + more; i++)
                assert_true(vd_used(&t.drv, 0, NULL) >= 0);
            chains += burst + more;
        }
        td_free(&t);
    }
}

static void ring__unpop_and_drop(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vm *vm;

        start(vd_mode(n), 8);
        vm = &t.b->m->vm;
        for (unsigned i = 0; i < 50; i++) {
            struct vd_buf b[3] = {{buf, 1 + i}, {buf + 64, 2}, {buf + 128, 3}};
            struct vd_buf b2 = {buf + 192, 7};
            int id, id2;

            id = vd_add(&t.drv, 0, b, 2, 1);
            id2 = vd_add(&t.drv, 0, &b2, 1, 0);
            vm_lock(vm);
            for (unsigned k = 0; k < 3; k++) {
                assert_true(virtq_pop(&t.d, 0, &t.c));
                assert_int_equal(t.c.out_len, 3 + i);
                virtq_unpop(&t.d, 0, &t.c);
                assert_int_equal(t.d.inflight, 0);
                assert_true(virtq_ready(&t.d, 0));
            }
            assert_true(virtq_pop(&t.d, 0, &t.c));
            virtq_push(&t.d, 0, &t.c, 3);
            assert_true(virtq_pop(&t.d, 0, &t.c));
            assert_int_equal(t.c.out_len, 7);
            virtq_push(&t.d, 0, &t.c, 0);
            vm_unlock(vm);
            assert_int_equal(vd_used(&t.drv, 0, NULL), id);
            assert_int_equal(vd_used(&t.drv, 0, NULL), id2);
        }
        /* A dropped chain is never used, and the device is not kept from resetting. */
        vd_add(&t.drv, 0, &(struct vd_buf){buf, 8}, 1, 0);
        vm_lock(vm);
        assert_true(virtq_pop(&t.d, 0, &t.c));
        virtq_drop(&t.d, 0, &t.c);
        virtq_signal(&t.d, 0);
        vm_unlock(vm);
        assert_int_equal(vd_used(&t.drv, 0, NULL), -1);
        assert_true(vd_reset(&t.drv));
        td_free(&t);
    }
}

/* What was taken is a copy: the driver may write over its descriptors. */
static void ring__descriptors_are_read_once(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_buf b[2] = {{buf, 16}, {buf + 64, 16}};
        u8 *ring;

        start(vd_mode(n), 8);
        b[0].addr = buf;
        b[1].addr = buf + 64;
        memset(vd_ram(t.b, buf), 0x11, 256);
        vd_add(&t.drv, 0, b, 1, 1);
        assert_true(td_pop(&t, 0));
        ring = vd_ram(t.b, t.drv.q[0].desc);
        memset(ring, 0xff, 8 * 16);
        if (t.drv.q[0].tables)
            memset(vd_ram(t.b, t.drv.q[0].tables), 0xff, 1024);
        assert_int_equal(echo(), 16);
        assert_int_equal(*vd_ram(t.b, buf + 64 + 15), 0x12);
        assert_int_equal(*vd_ram(t.b, buf + 64 + 16), 0x11);
        td_push(&t, 0, 16);
        td_free(&t);
    }
}

/* The engine hears of data and used elements alike: they may lie where code was. */
static void ring__tells_the_engine(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_mode mode = vd_mode(n);

        start(mode, 8);
        vd_add(&t.drv, 0, &(struct vd_buf){buf + 0x234, 16}, 0, 1);
        assert_true(td_pop(&t, 0));
        iov_write(t.c.iov, 1, 0, "0123456789", 10);
        t.b->m->written_gpa = 0;
        td_push(&t, 0, 10);
        assert_int_equal(t.b->m->written_gpa, buf + 0x234);
        assert_int_equal(t.b->m->written_len, 10);
        td_signal(&t, 0);
        assert_int_equal(t.b->m->written_gpa, mode.packed ? t.drv.q[0].desc : t.drv.q[0].device);
        assert_int_equal(t.b->m->written_len, mode.packed ? 8 * 16 : 6 + 8 * 8);
        td_free(&t);
    }
}

/* A chain that is given up may have been written to, also when its queue is there no more. */
static void ring__tells_the_engine_of_dropped_chains(void **state)
{
    (void)state;
    for (unsigned reset = 0; reset < 2; reset++) {
        start(vd_mode(0), 8);
        vd_add(&t.drv, 0, &(struct vd_buf){buf + 0x234, 16}, 0, 1);
        assert_true(td_pop(&t, 0));
        iov_write(t.c.iov, 1, 0, "0123456789", 10);
        if (reset)
            assert_false(vd_reset(&t.drv));
        t.b->m->written_gpa = 0;
        vm_lock(&t.b->m->vm);
        virtq_drop(&t.d, 0, &t.c);
        vm_unlock(&t.b->m->vm);
        assert_int_equal(t.b->m->written_gpa, buf + 0x234);
        assert_int_equal(t.b->m->written_len, 16);
        td_free(&t);
    }
}

/* --- drivers that break the rules ----------------------------------------------------------------
 */

/* The device saw it, said so, and stands still; a reset puts it right. */
static void assert_broken(unsigned mode)
{
    struct vd_mode m = vd_mode(mode);

    assert_false(td_pop(&t, 0));
    assert_int_equal(t.d.inflight, 0);
    assert_int_equal(vd_status(&t.drv) & VD_NEEDS_RESET, VD_NEEDS_RESET);
    assert_int_equal(vd_config_interrupts(&t.drv), 1);
    assert_false(td_pop(&t, 0));
    assert_false(ready(0));
    t.notified[0] = 0;
    vd_notify(&t.drv, 0);
    assert_int_equal(t.notified[0], 0);
    assert_int_equal(vd_config_interrupts(&t.drv), 0);
    vd_start(&t.drv, m, 0, 16);
    round_trip(0, 7);
}

static void one_bad(unsigned mode, u64 addr, u32 len, u16 flags)
{
    struct vd_queue *vq;

    start(vd_mode(mode), 16);
    vq = &t.drv.q[0];
    if (t.drv.mode.packed) {
        vd_desc(&t.drv, vq->desc, 0, addr, len, flags | VD_DESC_AVAIL, 0);
    } else {
        vd_desc(&t.drv, vq->desc, 0, addr, len, flags, 0);
        vd_avail(&t.drv, 0, 0);
    }
    assert_broken(mode);
    td_free(&t);
}

static void ring__buffers_outside_ram(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++)
        for (u16 write = 0; write <= VD_DESC_WRITE; write += VD_DESC_WRITE) {
            one_bad(n, FAKE_RAM_SIZE, 1, write);
            one_bad(n, FAKE_RAM_SIZE - 1, 2, write);
            one_bad(n, FAKE_RAM_SIZE - 1, 0xffffffff, write);
            one_bad(n, 0, 0xffffffff, write);
            one_bad(n, UINT64_MAX, 1, write);
            one_bad(n, UINT64_MAX, 2, write);
            one_bad(n, UINT64_MAX - 15, 0x10000, write);
            one_bad(n, 1ull << 63, 16, write);
        }
}

static void ring__indirect_tables(void **state)
{
    u64 table = 0x8000;

    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        if (!vd_mode(n).indirect) {
            one_bad(n, table, 16, VD_DESC_INDIRECT); /* not negotiated */
            continue;
        }
        one_bad(n, table, 0, VD_DESC_INDIRECT);
        one_bad(n, table, 15, VD_DESC_INDIRECT);
        one_bad(n, table, 24, VD_DESC_INDIRECT);
        one_bad(n, FAKE_RAM_SIZE, 16, VD_DESC_INDIRECT);
        one_bad(n, UINT64_MAX - 15, 32, VD_DESC_INDIRECT);
        one_bad(n, t.drv.common, 16, VD_DESC_INDIRECT);

        /* Indirect inside indirect */
        start(vd_mode(n), 16);
        vd_desc(&t.drv, table, 0, table + 256, 16, VD_DESC_INDIRECT, 0);
        vd_desc(&t.drv, table + 256, 0, buf, 16, 0, 0);
        vd_desc(&t.drv, t.drv.q[0].desc, 0, table, 16, VD_DESC_INDIRECT | VD_DESC_AVAIL, 0);
        if (!t.drv.mode.packed) {
            vd_desc(&t.drv, t.drv.q[0].desc, 0, table, 16, VD_DESC_INDIRECT, 0);
            vd_avail(&t.drv, 0, 0);
        }
        assert_broken(n);
        td_free(&t);

        /* More pieces than the device takes; the table itself would be long enough for a ring */
        start(vd_mode(n), 16);
        for (unsigned i = 0; i < 65; i++)
            vd_desc(&t.drv, table, i, buf, 1, t.drv.mode.packed || i == 64 ? 0 : VD_DESC_NEXT,
                    (u16)(i + 1));
        vd_desc(&t.drv, t.drv.q[0].desc, 0, table, 16 * 65,
                VD_DESC_INDIRECT | (t.drv.mode.packed ? VD_DESC_AVAIL : 0), 0);
        if (!t.drv.mode.packed)
            vd_avail(&t.drv, 0, 0);
        assert_broken(n);
        td_free(&t);

        if (vd_mode(n).packed) {
            /* Nothing but zero-length pieces, 2^28 of them: bounded work (I5) */
            start(vd_mode(n), 16);
            vd_desc(&t.drv, t.drv.q[0].desc, 0, table, 0xfffffff0, VD_DESC_INDIRECT | VD_DESC_AVAIL,
                    0);
            assert_broken(n);
            td_free(&t);
            continue;
        }
        /* Loops and indices outside the table */
        for (u16 next = 0; next < 12; next += 4) {
            start(vd_mode(n), 16);
            for (u16 i = 0; i < 8; i++)
                vd_desc(&t.drv, table, i, buf, next == 4 ? 0 : 1, VD_DESC_NEXT,
                        i == 7 ? next : (u16)(i + 1));
            vd_desc(&t.drv, t.drv.q[0].desc, 0, table, 16 * 8, VD_DESC_INDIRECT, 0);
            vd_avail(&t.drv, 0, 0);
            assert_broken(n);
            td_free(&t);
        }
    }
}

static void ring__order_of_buffers(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_queue *vq;
        start(vd_mode(n), 16);
        vq = &t.drv.q[0];
        vd_desc(&t.drv, vq->desc, 1, buf, 8, t.drv.mode.packed ? VD_DESC_AVAIL : 0, 0);
        vd_desc(&t.drv, vq->desc, 0, buf, 8,
                VD_DESC_WRITE | VD_DESC_NEXT | (t.drv.mode.packed ? VD_DESC_AVAIL : 0), 1);
        if (!t.drv.mode.packed)
            vd_avail(&t.drv, 0, 0);
        assert_broken(n);
        td_free(&t);
    }
}

static void ring__split_loops_and_indices(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n += 2) {
        static const u16 last_next[] = {0, 7, 15, 16, 0xffff, 0x4000};
        for (unsigned i = 0; i < ARRAY_SIZE(last_next); i++)
            for (unsigned len = 0; len < 2; len++) { /* empty pieces take no room anywhere */
                start(vd_mode(n), 16);
                for (u16 k = 0; k < 16; k++)
                    vd_desc(&t.drv, t.drv.q[0].desc, k, buf, len, VD_DESC_NEXT,
                            k == 15 ? last_next[i] : (u16)(k + 1));
                vd_avail(&t.drv, 0, 0);
                assert_broken(n);
                td_free(&t);
            }
        /* Heads outside */
        for (unsigned head = 16; head < 0x10000; head = head * 2 + 1) {
            start(vd_mode(n), 16);
            vd_avail(&t.drv, 0, (u16)head);
            assert_broken(n);
            td_free(&t);
        }
        /* An index that jumps, forth and back */
        for (unsigned jump = 17; jump < 0x10000; jump = jump * 2 - 1) {
            start(vd_mode(n), 16);
            round_trip(0, 1);
            vd_config_interrupts(&t.drv);
            vd_interrupts(&t.drv, 0);
            vd_write16(t.b, t.drv.q[0].driver + 2, (u16)(1 + jump));
            assert_broken(n);
            td_free(&t);
        }
    }
}

static void ring__packed_chain_without_end(void **state)
{
    (void)state;
    for (unsigned n = 1; n < VD_MODES; n += 2)
        for (unsigned len = 0; len < 2; len++) {
            start(vd_mode(n), 16);
            for (u16 k = 0; k < 16; k++)
                vd_desc(&t.drv, t.drv.q[0].desc, k, buf, len, VD_DESC_NEXT | VD_DESC_AVAIL, 0);
            assert_broken(n);
            td_free(&t);
        }
}

/* Empty descriptors are odd but not forbidden: they are nothing. */
static void ring__empty_descriptors(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_buf b[4] = {{buf, 0}, {buf, 5}, {buf + 64, 0}, {buf + 64, 6}};
        int id;

        start(vd_mode(n), 16);
        for (unsigned i = 0; i < 4; i++)
            b[i].addr = buf + 64ull * (i / 2);
        id = vd_add(&t.drv, 0, b, 2, 2);
        assert_true(td_pop(&t, 0));
        assert_int_equal(t.c.out_len, 5);
        assert_int_equal(t.c.in_len, 6);
        for (unsigned i = 0; i < t.c.nout + t.c.nin; i++)
            assert_true(t.c.iov[i].len <= 6);
        td_push(&t, 0, 6);
        assert_int_equal(vd_used(&t.drv, 0, NULL), id);
        /* A chain of nothing at all */
        b[0] = (struct vd_buf){buf, 0};
        id = vd_add(&t.drv, 0, b, 1, 0);
        assert_true(td_pop(&t, 0));
        assert_int_equal(t.c.out_len + t.c.in_len, 0);
        td_push(&t, 0, 0);
        assert_int_equal(vd_used(&t.drv, 0, NULL), id);
        td_free(&t);
    }
}

/* Rings are written where they are and nowhere else. */
static void ring__writes_stay_inside(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_queue *vq;
        start(vd_mode(n), 16);
        vq = &t.drv.q[0];
        for (unsigned i = 0; i < 100; i++)
            round_trip(0, i);
        want_notify(0, false);
        want_notify(0, true);
        if (t.drv.mode.packed) {
            for (unsigned i = 0; i < 16; i++)
                assert_int_equal(*vd_ram(t.b, align_up(vq->device + 4, 16) + i), 0);
        } else {
            for (unsigned i = 0; i < 16; i++)
                assert_int_equal(*vd_ram(t.b, align_up(vq->device + 6 + 8 * 16, 16) + i), 0);
        }
        td_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring__carries_chains),
        cmocka_unit_test(ring__of_an_odd_size),
        cmocka_unit_test(ring__out_of_order),
        cmocka_unit_test(ring__interrupts_are_exact),
        cmocka_unit_test(ring__notifications_are_exact),
        cmocka_unit_test(ring__unpop_and_drop),
        cmocka_unit_test(ring__descriptors_are_read_once),
        cmocka_unit_test(ring__tells_the_engine),
        cmocka_unit_test(ring__tells_the_engine_of_dropped_chains),
        cmocka_unit_test(ring__buffers_outside_ram),
        cmocka_unit_test(ring__indirect_tables),
        cmocka_unit_test(ring__order_of_buffers),
        cmocka_unit_test(ring__split_loops_and_indices),
        cmocka_unit_test(ring__packed_chain_without_end),
        cmocka_unit_test(ring__empty_descriptors),
        cmocka_unit_test(ring__writes_stay_inside),
    };
    return cmocka_run_group_tests_name("dev-virtio-ring", tests, NULL, NULL);
}
