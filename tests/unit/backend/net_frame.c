/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/frame.h"
#include "test.h"

#define V4_L4 34
#define V6_L4 54
#define SYN 0x02
#define ACK 0x10
#define PSH 0x08
#define FIN 0x01
#define URG 0x20

static u8 frame[FRAME_MAX];
static size_t len;

static void put(size_t at, u64 v, unsigned bytes)
{
    while (bytes--)
        frame[at++] = (u8)(v >> (8 * bytes));
}

static u32 get(const u8 *p, unsigned bytes)
{
    u32 v = 0;

    while (bytes--)
        v = v << 8 | *p++;
    return v;
}

/* RFC 1071 in the plainest way. */
static u32 sum(u32 s, const u8 *p, size_t n)
{
    for (size_t i = 0; i < n; i += 2)
        s += (u32)p[i] << 8 | (i + 1 < n ? p[i + 1] : 0);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return s;
}

static u32 l4_sum(const u8 *p, size_t n)
{
    bool v6 = p[14] >> 4 == 6;
    size_t l4 = v6 ? V6_L4 : V4_L4;
    u32 s = (u32)(n - l4) + (v6 ? p[20] : p[23]);

    s = v6 ? sum(s, p + 22, 32) : sum(s, p + 26, 8);
    return sum(s, p + l4, n - l4);
}

static void ip4(u8 protocol, size_t l4_len)
{
    memset(frame, 0, sizeof(frame));
    put(12, 0x0800, 2);
    put(14, 0x45, 1);
    put(16, 20 + l4_len, 2);
    put(22, 64, 1);
    put(23, protocol, 1);
    put(26, 0x0a00020f, 4);
    put(30, 0x0a000202, 4);
    put(24, (u16)~sum(0, frame + 14, 20), 2);
    len = V4_L4 + l4_len;
}

static void ip6(u8 protocol, size_t l4_len)
{
    memset(frame, 0, sizeof(frame));
    put(12, 0x86dd, 2);
    put(14, 0x60, 1);
    put(18, l4_len, 2);
    put(20, protocol, 1);
    put(22, 0xfec0, 2);
    put(37, 15, 1);
    put(38, 0xfec0, 2);
    put(53, 2, 1);
    len = V6_L4 + l4_len;
}

/* A TCP header with options at l4; payload is filled in. The checksum is complete. */
static void tcp(size_t l4, u8 flags, const u8 *options, size_t noptions, size_t payload)
{
    put(l4, 40000, 2);
    put(l4 + 2, 80, 2);
    put(l4 + 4, 0xfffffff0, 4);
    put(l4 + 12, (20 + noptions) / 4 << 4, 1);
    put(l4 + 13, flags, 1);
    if (noptions)
        memcpy(frame + l4 + 20, options, noptions);
    for (size_t i = 0; i < payload; i++)
        frame[l4 + 20 + noptions + i] = (u8)(i * 7 + i / 251);
    put(l4 + 16, 0, 2);
    put(l4 + 16, (u16)~l4_sum(frame, len), 2);
}

static void tcp4(u8 flags, size_t payload)
{
    ip4(IPPROTO_TCP, 20 + payload);
    tcp(V4_L4, flags, NULL, 0, payload);
}

static void tcp6(u8 flags, size_t payload)
{
    ip6(IPPROTO_TCP, 20 + payload);
    tcp(V6_L4, flags, NULL, 0, payload);
}

static void udp4(size_t payload)
{
    ip4(IPPROTO_UDP, 8 + payload);
    put(V4_L4 + 4, 8 + payload, 2);
}

static bool takes(const struct net_hdr *hdr)
{
    static const struct net_hdr none;
    struct frame f;

    return frame_from_guest(frame, len, hdr ? hdr : &none, &f);
}

/* --- */

static void frame__passes_what_is_right(void **state)
{
    struct frame f;

    (void)state;
    tcp4(ACK, 100);
    assert_true(frame_parse(frame, len + 6, &f)); /* padding */
    assert_int_equal(f.ip, 4);
    assert_int_equal(f.protocol, IPPROTO_TCP);
    assert_int_equal(f.len, len);
    assert_int_equal(f.l4, V4_L4);
    assert_int_equal(f.payload, V4_L4 + 20);
    tcp6(ACK, 1);
    assert_true(frame_parse(frame, len, &f));
    assert_int_equal(f.payload, V6_L4 + 20);
    udp4(0);
    assert_true(frame_parse(frame, len, &f));
    memset(frame, 0, sizeof(frame));
    put(12, 0x0806, 2);
    assert_true(frame_parse(frame, 60, &f));
    assert_int_equal(f.ip, 0);
    assert_false(frame_parse(frame, 41, &f));
}

static void frame__refuses_lengths_that_lie(void **state)
{
    (void)state;
    tcp4(ACK, 100);
    len--;
    assert_false(takes(NULL));
    tcp4(ACK, 100);
    put(16, 19, 2);
    assert_false(takes(NULL));
    tcp4(ACK, 100);
    put(V4_L4 + 12, 0x40, 1); /* a header of 16 bytes */
    assert_false(takes(NULL));
    tcp4(ACK, 8);
    put(V4_L4 + 12, 0xf0, 1); /* one of 60: more than there is */
    assert_false(takes(NULL));
    ip4(IPPROTO_TCP, 19);
    assert_false(takes(NULL));
    udp4(10);
    put(V4_L4 + 4, 19, 2);
    assert_false(takes(NULL));
    udp4(10);
    put(V4_L4 + 4, 7, 2);
    assert_false(takes(NULL));
    tcp6(ACK, 10);
    put(18, 31, 2);
    assert_false(takes(NULL));
    for (len = 0; len < V4_L4 + 20; len++) {
        size_t n = len;

        tcp4(ACK, 0);
        len = n;
        assert_false(takes(NULL));
    }
}

static void frame__refuses_what_the_stack_need_not_see(void **state)
{
    (void)state;
    tcp4(ACK, 100);
    put(14, 0x46, 1); /* options */
    assert_false(takes(NULL));
    tcp4(ACK, 100);
    put(14, 0x65, 1); /* version 6 by IPv4's type */
    assert_false(takes(NULL));
    tcp4(ACK, 100);
    put(12, 0x88f8, 2); /* NC-SI */
    assert_false(takes(NULL));
    tcp4(ACK, 100);
    put(20, 0x2000, 2); /* a fragment of TCP */
    assert_false(takes(NULL));
    ip4(IPPROTO_IGMP, 8);
    assert_false(takes(NULL));
    ip6(0, 40); /* hop-by-hop options */
    assert_false(takes(NULL));
    ip4(IPPROTO_ICMPV6, 40);
    assert_false(takes(NULL));
}

static void frame__lets_fragments_of_datagrams_pass(void **state)
{
    struct frame f;

    (void)state;
    udp4(100);
    put(V4_L4 + 4, 3000, 2);
    put(20, 0x2000, 2);
    assert_true(frame_parse(frame, len, &f));
    assert_true(f.fragment);
    put(20, 14, 2);
    assert_true(frame_parse(frame, len, &f));
    assert_int_equal(f.protocol, 0);
}

static void frame__completes_checksums(void **state)
{
    struct net_hdr h = {.flags = NET_HDR_NEEDS_CSUM, .csum_start = V4_L4, .csum_offset = 16};

    (void)state;
    for (size_t n = 0; n < 70; n++) {
        tcp4(ACK, n);
        put(V4_L4 + 16, 0x1234, 2); /* whatever the guest left there */
        h.csum_start = V4_L4;
        assert_true(takes(&h));
        assert_int_equal(l4_sum(frame, len), 0xffff);
        tcp6(ACK, n);
        put(V6_L4 + 16, 0xffff, 2);
        h.csum_start = V6_L4;
        assert_true(takes(&h));
        assert_int_equal(l4_sum(frame, len), 0xffff);
    }
}

static void frame__never_sends_a_udp_checksum_of_zero(void **state)
{
    struct net_hdr h = {.flags = NET_HDR_NEEDS_CSUM, .csum_start = V4_L4, .csum_offset = 6};

    (void)state;
    /* Ports and payload that add up to 0xffff without the checksum. */
    udp4(2);
    put(V4_L4 + 8, (u16)~l4_sum(frame, len), 2);
    assert_true(takes(&h));
    assert_int_equal(get(frame + V4_L4 + 6, 2), 0xffff);
}

static void frame__refuses_checksums_elsewhere(void **state)
{
    struct net_hdr h = {.flags = NET_HDR_NEEDS_CSUM, .csum_start = V4_L4, .csum_offset = 16};

    (void)state;
    tcp4(ACK, 100);
    h.csum_start = 0;
    assert_false(takes(&h));
    h.csum_start = V4_L4;
    h.csum_offset = 6;
    assert_false(takes(&h));
    h.csum_start = 0xffff;
    assert_false(takes(&h));
    ip4(IPPROTO_ICMP, 8);
    h.csum_start = V4_L4;
    h.csum_offset = 2;
    assert_false(takes(&h));
}

static void frame__refuses_segmentation_of_other_things(void **state)
{
    struct net_hdr h = {.gso_type = NET_GSO_TCPV4, .gso_size = 1460};

    (void)state;
    udp4(100);
    assert_false(takes(&h));
    tcp6(ACK, 100);
    assert_false(takes(&h));
    tcp4(ACK, 100);
    assert_true(takes(&h));
    h.gso_type |= NET_GSO_ECN;
    assert_true(takes(&h));
    h.gso_size = 0;
    assert_false(takes(&h));
    h.gso_size = 1460;
    h.gso_type = 3;
    assert_false(takes(&h));
}

static void frame__takes_urgent_data_for_plain(void **state)
{
    (void)state;
    tcp4(ACK | URG, 100);
    put(V4_L4 + 18, 50, 2);
    put(V4_L4 + 16, 0, 2);
    put(V4_L4 + 16, (u16)~l4_sum(frame, len), 2);
    assert_true(takes(NULL));
    assert_int_equal(frame[V4_L4 + 13], ACK);
    assert_int_equal(get(frame + V4_L4 + 18, 2), 0);
    assert_int_equal(l4_sum(frame, len), 0xffff);
}

static void mss__is_found_and_changed(void **state)
{
    /* At even and odd places. */
    static const u8 even[] = {2, 4, 0x05, 0xb4, 1, 3, 3, 7};
    static const u8 odd[] = {1, 2, 4, 0x05, 0xb4, 1, 1, 0};
    struct frame f;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        ip4(IPPROTO_TCP, 28);
        tcp(V4_L4, SYN, i ? odd : even, 8, 0);
        assert_true(frame_parse(frame, len, &f));
        assert_int_equal(frame_get_mss(frame, &f), 1460);
        frame_set_mss(frame, &f, 65461);
        assert_int_equal(frame_get_mss(frame, &f), 65461);
        assert_int_equal(l4_sum(frame, len), 0xffff);
    }
}

/* The last bytes of a frame that ends there: nothing behind it is touched. */
static void mss__is_changed_at_the_very_end(void **state)
{
    static const u8 options[] = {2, 4, 0x05, 0xb4};
    struct frame f;
    u8 *exact;

    (void)state;
    ip4(IPPROTO_TCP, 24);
    tcp(V4_L4, SYN, options, 4, 0);
    exact = malloc(len); /* AddressSanitizer watches its end */
    assert_non_null(exact);
    memcpy(exact, frame, len);
    assert_true(frame_parse(exact, len, &f));
    frame_set_mss(exact, &f, 65461);
    assert_int_equal(frame_get_mss(exact, &f), 65461);
    assert_int_equal(l4_sum(exact, len), 0xffff);
    free(exact);
}

static void mss__is_not_found_in_bad_options(void **state)
{
    static const u8 bad[][4] = {{2, 0, 0, 0},  {2, 1, 5, 0xb4}, {2, 5, 5, 0xb4},
                                {8, 40, 0, 0}, {0, 2, 4, 5},    {1, 1, 1, 2}};
    static const u8 good[] = {2, 4, 0x05, 0xb4};
    struct frame f;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        ip4(IPPROTO_TCP, 24);
        tcp(V4_L4, SYN, bad[i], 4, 0);
        assert_true(frame_parse(frame, len, &f));
        assert_int_equal(frame_get_mss(frame, &f), 0);
    }
    ip4(IPPROTO_TCP, 24);
    tcp(V4_L4, ACK, good, 4, 0);
    assert_true(frame_parse(frame, len, &f));
    assert_int_equal(frame_get_mss(frame, &f), 0); /* no SYN */
}

/* --- cutting */

static u8 joined[FRAME_MAX];
static size_t njoined;
static unsigned npieces;
static u32 next_seq;

static void on_segment(void *opaque, const struct frame_piece *p)
{
    static u8 whole[FRAME_MAX];
    size_t n = p->header_len + p->payload_len;
    size_t l4 = p->header[14] >> 4 == 6 ? V6_L4 : V4_L4;
    const unsigned *mss = opaque;
    struct frame f;

    memcpy(whole, p->header, p->header_len);
    memcpy(whole + p->header_len, p->payload, p->payload_len);
    assert_true(frame_parse(whole, n, &f));
    assert_int_equal(f.len, n);
    assert_true(p->payload_len <= *mss);
    assert_int_equal(l4_sum(whole, n), 0xffff);
    if (l4 == V4_L4) {
        assert_int_equal(sum(0, whole + 14, 20), 0xffff);
        assert_int_equal(get(whole + 18, 2), npieces);
    }
    assert_int_equal(get(whole + l4 + 4, 4), next_seq);
    next_seq += p->payload_len;
    memcpy(joined + njoined, p->payload, p->payload_len);
    njoined += p->payload_len;
    npieces++;
    /* The end is said once, at the end. */
    assert_int_equal(whole[l4 + 13], njoined == 10000 ? ACK | PSH | FIN : ACK);
}

static void segment__is_cut_and_joined(void **state)
{
    static const unsigned sizes[] = {1, 536, 1460, 9999, 10000, 65535};

    (void)state;
    for (unsigned v = 0; v < 2; v++)
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
            unsigned mss = sizes[i];
            struct frame f;

            if (v)
                tcp6(ACK | PSH | FIN, 10000);
            else
                tcp4(ACK | PSH | FIN, 10000);
            assert_true(frame_parse(frame, len, &f));
            njoined = npieces = 0;
            next_seq = 0xfffffff0;
            frame_segment(frame, &f, mss, on_segment, &mss);
            assert_int_equal(npieces, (10000 + mss - 1) / mss);
            assert_int_equal(njoined, 10000);
            assert_memory_equal(joined, frame + f.payload, 10000);
        }
}

static void on_fragment(void *opaque, const struct frame_piece *p)
{
    const u8 *ip = p->header + 14;

    assert_true(p->header_len - 14 + p->payload_len <= *(const unsigned *)opaque);
    assert_int_equal(sum(0, ip, 20), 0xffff);
    assert_int_equal(get(ip + 2, 2), 20 + p->payload_len);
    assert_int_equal((get(ip + 6, 2) & 0x1fff) * 8, njoined);
    assert_int_equal(!!(get(ip + 6, 2) & 0x2000), njoined + p->payload_len < 4008);
    memcpy(joined + njoined, p->payload, p->payload_len);
    njoined += p->payload_len;
    npieces++;
}

static void datagram__is_cut_into_fragments(void **state)
{
    unsigned mtu = 1500;
    struct frame f;

    (void)state;
    udp4(4000);
    assert_true(frame_parse(frame, len, &f));
    njoined = npieces = 0;
    assert_true(frame_fragment(frame, &f, mtu, on_fragment, &mtu));
    assert_int_equal(npieces, 3);
    assert_int_equal(njoined, 4008);
    assert_memory_equal(joined, frame + V4_L4, 4008);
    assert_false(frame_fragment(frame, &f, 27, on_fragment, &mtu));
    tcp6(ACK, 4000);
    assert_true(frame_parse(frame, len, &f));
    assert_false(frame_fragment(frame, &f, 1500, on_fragment, &mtu));
}

static void gso__leaves_the_pseudo_header_to_the_guest(void **state)
{
    struct net_hdr h;
    struct frame f;
    u16 partial;

    (void)state;
    tcp4(ACK, 30000);
    assert_true(frame_parse(frame, len, &f));
    frame_gso(frame, &f, 1460, &h, &partial);
    assert_int_equal(h.flags, NET_HDR_NEEDS_CSUM);
    assert_int_equal(h.gso_type, NET_GSO_TCPV4);
    assert_int_equal(h.gso_size, 1460);
    assert_int_equal(h.hdr_len, V4_L4 + 20);
    assert_int_equal(h.csum_start, V4_L4);
    assert_int_equal(h.csum_offset, 16);
    /* What a driver does: put it there, sum up from csum_start. */
    put(V4_L4 + 16, partial, 2);
    put(V4_L4 + 16, (u16)~sum(0, frame + V4_L4, len - V4_L4), 2);
    assert_int_equal(l4_sum(frame, len), 0xffff);
}

static void mss_table__knows_connections(void **state)
{
    static struct mss_table t = {.seed = 12345};
    struct frame f;

    (void)state;
    tcp4(SYN, 0);
    assert_true(frame_parse(frame, len, &f));
    mss_note(&t, frame, &f, 1400);
    /* The other direction. */
    put(26, 0x0a000202, 4);
    put(30, 0x0a00020f, 4);
    put(V4_L4, 80, 2);
    put(V4_L4 + 2, 40000, 2);
    assert_int_equal(mss_look_up(&t, frame, &f), 1400);
    put(V4_L4, 81, 2);
    assert_int_equal(mss_look_up(&t, frame, &f), MSS_ALWAYS_V4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame__passes_what_is_right),
        cmocka_unit_test(frame__refuses_lengths_that_lie),
        cmocka_unit_test(frame__refuses_what_the_stack_need_not_see),
        cmocka_unit_test(frame__lets_fragments_of_datagrams_pass),
        cmocka_unit_test(frame__completes_checksums),
        cmocka_unit_test(frame__never_sends_a_udp_checksum_of_zero),
        cmocka_unit_test(frame__refuses_checksums_elsewhere),
        cmocka_unit_test(frame__refuses_segmentation_of_other_things),
        cmocka_unit_test(frame__takes_urgent_data_for_plain),
        cmocka_unit_test(mss__is_found_and_changed),
        cmocka_unit_test(mss__is_changed_at_the_very_end),
        cmocka_unit_test(mss__is_not_found_in_bad_options),
        cmocka_unit_test(segment__is_cut_and_joined),
        cmocka_unit_test(datagram__is_cut_into_fragments),
        cmocka_unit_test(gso__leaves_the_pseudo_header_to_the_guest),
        cmocka_unit_test(mss_table__knows_connections),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
