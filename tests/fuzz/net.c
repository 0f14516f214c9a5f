/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a hostile guest, as the helper of a user-mode network handles them: a header of 12
 * bytes and a frame. What is let through must be what it says it is. */
#include <stdlib.h>
#include <string.h>

#include "backend/net/frame.h"

static struct mss_table table;
static u8 whole[FRAME_MAX];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good)
        abort();
}

struct limit {
    const struct frame *f;
    size_t bytes, payload;
};

static void on_piece(void *opaque, const struct frame_piece *p)
{
    struct limit *l = opaque;
    struct frame f;

    check(p->header_len <= sizeof(p->header) && p->header_len + p->payload_len <= sizeof(whole));
    memcpy(whole, p->header, p->header_len);
    memcpy(whole + p->header_len, p->payload, p->payload_len);
    check(p->header_len - ETH_HEADER + p->payload_len <= l->bytes);
    check(frame_parse(whole, p->header_len + p->payload_len, &f) || l->f->ip == 4);
    l->payload += p->payload_len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct net_hdr hdr, gso;
    struct frame f, again;
    struct limit l = {.f = &f};
    u16 mss, partial;
    u8 *p;

    if (size < sizeof(hdr))
        return 0;
    memcpy(&hdr, data, sizeof(hdr));
    size -= sizeof(hdr);
    /* Of just its size, so that reading beyond it is seen. */
    p = malloc(size);
    if (size)
        memcpy(p, data + sizeof(hdr), size);
    if (frame_from_guest(p, size, &hdr, &f)) {
        check(f.len <= size && f.l4 <= f.payload && f.payload <= f.len);
        check(frame_parse(p, f.len, &again) && f.protocol == again.protocol && f.l4 == again.l4 &&
              f.payload == again.payload && f.len == again.len);
        mss = frame_get_mss(p, &f);
        if (mss) {
            mss_note(&table, p, &f, mss);
            frame_set_mss(p, &f, 65461);
            check(frame_get_mss(p, &f) == 65461);
        }
        if (f.protocol == 6 && !f.fragment) {
            check(!(p[f.l4 + 13] & 0x20)); /* urgent */
            check(mss_look_up(&table, p, &f));
            frame_gso(p, &f, 1460, &gso, &partial);
            l.bytes = f.payload - ETH_HEADER + 100;
            frame_segment(p, &f, 100, on_piece, &l);
            check(l.payload == f.len - f.payload);
        }
        l.payload = 0;
        l.bytes = 300;
        if (frame_fragment(p, &f, 300, on_piece, &l))
            check(l.payload == f.len - ETH_HEADER - 20);
    }
    free(p);
    return 0;
}
