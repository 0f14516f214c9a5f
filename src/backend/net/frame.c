/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/net/frame.h"

#include <netinet/in.h>
#include <string.h>

#define ETHERTYPE_IP 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd

#define ARP_SIZE 28
#define IPV4_HEADER 20u
#define IPV6_HEADER 40u
#define TCP_HEADER 20u
#define UDP_HEADER 8u
#define ICMP_HEADER 8u

/* IPv4: flags and fragment offset */
#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* TCP header */
#define TCP_SEQ 4
#define TCP_DATA_OFFSET 12
#define TCP_FLAGS 13
#define TCP_SUM 16
#define TCP_URGENT 18
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_PSH 0x08
#define TCP_URG 0x20
#define TCP_CWR 0x80
#define TCP_OPT_END 0
#define TCP_OPT_NOP 1
#define TCP_OPT_MSS 2
#define UDP_SUM 6

static u16 get16(const u8 *p)
{
    return (u16)(p[0] << 8 | p[1]);
}

static void put16(u8 *p, u32 v)
{
    p[0] = (u8)(v >> 8);
    p[1] = (u8)v;
}

static u32 get32(const u8 *p)
{
    return (u32)get16(p) << 16 | get16(p + 2);
}

static void put32(u8 *p, u32 v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

/* --- checksums (RFC 1071) ------------------------------------------------------------------------
 */

static u32 fold(u64 sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u32)sum;
}

/* The one's complement sum does not care in which byte order or width it is taken: 32-bit words as
 * they lie in memory, swapped once at the end (section 2 B). */
static u32 sum_bytes(const u8 *p, size_t n)
{
    u64 sum = 0;
    u32 w;

    for (; n >= 4; p += 4, n -= 4) {
        memcpy(&w, p, 4);
        sum += w;
    }
    if (n) {
        w = 0;
        memcpy(&w, p, n);
        sum += w;
    }
    return __builtin_bswap16((u16)fold(sum));
}

/* Sum of the pseudo header for `length` bytes of transport header and payload. */
static u32 pseudo(const u8 *p, const struct frame *f, u32 length)
{
    const u8 *ip = p + ETH_HEADER;
    u32 sum = f->ip == 4 ? sum_bytes(ip + 12, 8) : sum_bytes(ip + 8, 32);

    return fold((u64)sum + f->protocol + length);
}

static u16 sum_field(const struct frame *f)
{
    return f->protocol == IPPROTO_TCP ? TCP_SUM : UDP_SUM;
}

/* UDP knows 0 as "no checksum" and sends its other form (RFC 768). */
static u16 finish(const struct frame *f, u64 sum)
{
    u16 v = (u16)~fold(sum);

    return v || f->protocol != IPPROTO_UDP ? v : 0xffff;
}

u16 frame_checksum(const u8 *p, const struct frame *f)
{
    u32 length = f->len - f->l4;
    u32 there = get16(p + f->l4 + sum_field(f));

    /* Taking the field's own value out again is adding its complement. */
    return finish(f, (u64)pseudo(p, f, length) + sum_bytes(p + f->l4, length) + (u16)~there);
}

/* The field at *sum after a 16-bit word of what it covers changed (RFC 1624). */
static void adjust(u8 *sum, u16 was, u16 is)
{
    put16(sum, (u16)~fold((u64)(u16)~get16(sum) + (u16)~was + is));
}

/* --- parsing -------------------------------------------------------------------------------------
 */

static bool parse_l4(const u8 *p, struct frame *f)
{
    u32 n = f->len - f->l4;
    const u8 *h = p + f->l4;

    f->payload = f->l4;
    switch (f->protocol) {
    case IPPROTO_TCP:
        if (n < TCP_HEADER)
            return false;
        f->payload += (u32)(h[TCP_DATA_OFFSET] >> 4) * 4;
        return f->payload >= f->l4 + TCP_HEADER && f->payload <= f->len;
    case IPPROTO_UDP:
        f->payload += UDP_HEADER;
        /* Of a fragmented datagram this is only the beginning. */
        return n >= UDP_HEADER && get16(h + 4) >= UDP_HEADER && (f->fragment || get16(h + 4) <= n);
    case IPPROTO_ICMP:
        return f->ip == 4 && n >= ICMP_HEADER;
    case IPPROTO_ICMPV6:
        return f->ip == 6 && n >= ICMP_HEADER;
    default:
        return false;
    }
}

static bool parse_ipv4(const u8 *p, size_t len, struct frame *f)
{
    const u8 *ip = p + ETH_HEADER;
    u32 total, fragment;

    /* Options have no use here, and stacks have had trouble with them. */
    if (len < ETH_HEADER + IPV4_HEADER || ip[0] != 0x45)
        return false;
    total = get16(ip + 2);
    if (total < IPV4_HEADER || total > len - ETH_HEADER)
        return false;
    f->len = ETH_HEADER + total;
    f->l4 = ETH_HEADER + IPV4_HEADER;
    f->protocol = ip[9];
    fragment = get16(ip + 6) & (IP_MF | IP_OFFSET);
    f->fragment = fragment != 0;
    /* TCP is never cut by who sends it. */
    if (fragment && f->protocol != IPPROTO_UDP && f->protocol != IPPROTO_ICMP)
        return false;
    if (fragment & IP_OFFSET) {
        f->payload = f->l4;
        f->protocol = 0;
        return true;
    }
    return parse_l4(p, f);
}

static bool parse_ipv6(const u8 *p, size_t len, struct frame *f)
{
    const u8 *ip = p + ETH_HEADER;
    u32 payload;

    if (len < ETH_HEADER + IPV6_HEADER || ip[0] >> 4 != 6)
        return false;
    payload = get16(ip + 4);
    if (payload > len - ETH_HEADER - IPV6_HEADER)
        return false;
    f->l4 = ETH_HEADER + IPV6_HEADER;
    f->len = f->l4 + payload;
    f->protocol = ip[6];
    return parse_l4(p, f);
}

bool frame_parse(const u8 *p, size_t len, struct frame *f)
{
    *f = (struct frame){0};
    if (len < ETH_HEADER || len > FRAME_MAX)
        return false;
    switch (get16(p + 12)) {
    case ETHERTYPE_ARP:
        f->len = ETH_HEADER + ARP_SIZE;
        f->l4 = f->payload = f->len;
        return len >= f->len;
    case ETHERTYPE_IP:
        f->ip = 4;
        return parse_ipv4(p, len, f);
    case ETHERTYPE_IPV6:
        f->ip = 6;
        return parse_ipv6(p, len, f);
    default:
        return false;
    }
}

/* --- from the guest ------------------------------------------------------------------------------
 */

static bool gso_type_fits(const struct net_hdr *hdr, const struct frame *f)
{
    switch (hdr->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_NONE:
        return true;
    case NET_GSO_TCPV4:
        return f->ip == 4 && f->protocol == IPPROTO_TCP && hdr->gso_size;
    case NET_GSO_TCPV6:
        return f->ip == 6 && f->protocol == IPPROTO_TCP && hdr->gso_size;
    default:
        return false;
    }
}

static void drop_urgent(u8 *p, const struct frame *f)
{
    u8 *h = p + f->l4;
    u16 was = get16(h + TCP_DATA_OFFSET);

    if (h[TCP_FLAGS] & TCP_URG) {
        h[TCP_FLAGS] &= (u8)~TCP_URG;
        adjust(h + TCP_SUM, was, get16(h + TCP_DATA_OFFSET));
    }
    was = get16(h + TCP_URGENT);
    if (was) {
        put16(h + TCP_URGENT, 0);
        adjust(h + TCP_SUM, was, 0);
    }
}

bool frame_from_guest(u8 *p, size_t len, const struct net_hdr *hdr, struct frame *f)
{
    if (!frame_parse(p, len, f) || !gso_type_fits(hdr, f))
        return false;
    if (f->protocol == IPPROTO_TCP)
        drop_urgent(p, f);
    if (!(hdr->flags & NET_HDR_NEEDS_CSUM))
        return true;
    /* Only these two come so. */
    if ((f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP) || f->fragment ||
        hdr->csum_start != f->l4 || hdr->csum_offset != sum_field(f))
        return false;
    put16(p + f->l4 + sum_field(f), frame_checksum(p, f));
    return true;
}

/* --- the maximum segment size option (RFC 9293 3.7.1) --------------------------------------------
 */

/* Where the option's value is, or 0. */
static u32 find_mss(const u8 *p, const struct frame *f)
{
    u32 at = f->l4 + TCP_HEADER;

    if (f->protocol != IPPROTO_TCP || f->fragment || !(p[f->l4 + TCP_FLAGS] & TCP_SYN))
        return 0;
    while (at < f->payload && p[at] != TCP_OPT_END) {
        if (p[at] == TCP_OPT_NOP) {
            at++;
            continue;
        }
        if (at + 2 > f->payload || p[at + 1] < 2 || at + p[at + 1] > f->payload)
            return 0;
        if (p[at] == TCP_OPT_MSS && p[at + 1] == 4)
            return at + 2;
        at += p[at + 1];
    }
    return 0;
}

u16 frame_get_mss(const u8 *p, const struct frame *f)
{
    u32 at = find_mss(p, f);

    return at ? get16(p + at) : 0;
}

void frame_set_mss(u8 *p, const struct frame *f, u16 mss)
{
    u32 at = find_mss(p, f), odd = (at - f->l4) & 1;
    u8 *sum = p + f->l4 + TCP_SUM;
    u8 old[4], new[4];

    if (!at)
        return;
    /* The value is one of the words the checksum sees, or straddles two, which the header has then:
     * its length is even. */
    memcpy(old, p + at - odd, 2 + 2 * odd);
    memcpy(new, old, 2 + 2 * odd);
    put16(new + odd, mss);
    memcpy(p + at - odd, new, 2 + 2 * odd);
    adjust(sum, get16(old), get16(new));
    if (odd)
        adjust(sum, get16(old + 2), get16(new + 2));
}

/* --- cutting -------------------------------------------------------------------------------------
 */

static void ipv4_finish(u8 *ip, u32 total)
{
    put16(ip + 2, total);
    put16(ip + 10, 0);
    put16(ip + 10, (u16)~fold(sum_bytes(ip, IPV4_HEADER)));
}

void frame_segment(const u8 *p, const struct frame *f, u32 mss, frame_emit_fn *emit, void *opaque)
{
    u32 total = f->len - f->payload, off = 0;
    u16 id = get16(p + ETH_HEADER + 4);
    u32 seq = get32(p + f->l4 + TCP_SEQ);
    struct frame_piece piece = {.header_len = f->payload};
    struct frame part = *f;

    do {
        u32 n = total - off < mss ? total - off : mss;
        u8 *ip = piece.header + ETH_HEADER, *tcp = piece.header + f->l4;

        memcpy(piece.header, p, f->payload);
        piece.payload = p + f->payload + off;
        piece.payload_len = n;
        if (f->ip == 4) {
            put16(ip + 4, id++);
            ipv4_finish(ip, f->payload - ETH_HEADER + n);
        } else {
            put16(ip + 4, f->payload - f->l4 + n);
        }
        put32(tcp + TCP_SEQ, seq + off);
        if (off)
            tcp[TCP_FLAGS] &= (u8)~TCP_CWR; /* said once (RFC 3168 6.1.2) */
        if (off + n < total)
            tcp[TCP_FLAGS] &= (u8) ~(TCP_FIN | TCP_PSH);
        put16(tcp + TCP_SUM, 0);
        part.len = f->payload + n;
        put16(tcp + TCP_SUM,
              finish(f, (u64)pseudo(piece.header, &part, part.len - part.l4) +
                            sum_bytes(tcp, f->payload - f->l4) + sum_bytes(piece.payload, n)));
        emit(opaque, &piece);
        off += n;
    } while (off < total);
}

bool frame_fragment(const u8 *p, const struct frame *f, u32 mtu, frame_emit_fn *emit, void *opaque)
{
    u32 begin = ETH_HEADER + IPV4_HEADER, total = f->len - begin, off = 0;
    u32 step = mtu < IPV4_HEADER + 8 ? 0 : (mtu - IPV4_HEADER) & ~7u;
    u16 flags = get16(p + ETH_HEADER + 6);
    struct frame_piece piece = {.header_len = begin};

    if (f->ip != 4 || f->fragment || !step)
        return false;
    do {
        u32 n = total - off < step ? total - off : step;
        u8 *ip = piece.header + ETH_HEADER;

        memcpy(piece.header, p, begin);
        put16(ip + 6,
              (flags & ~(IP_DF | IP_MF | IP_OFFSET)) | off / 8 | (off + n < total ? IP_MF : 0));
        ipv4_finish(ip, IPV4_HEADER + n);
        piece.payload = p + begin + off;
        piece.payload_len = n;
        emit(opaque, &piece);
        off += n;
    } while (off < total);
    return true;
}

void frame_gso(const u8 *p, const struct frame *f, u16 mss, struct net_hdr *hdr, u16 *partial)
{
    *hdr = (struct net_hdr){.flags = NET_HDR_NEEDS_CSUM,
                            .gso_type = f->ip == 4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6,
                            .hdr_len = (u16)f->payload,
                            .gso_size = mss,
                            .csum_start = (u16)f->l4,
                            .csum_offset = TCP_SUM};
    *partial = (u16)pseudo(p, f, f->len - f->l4);
}

/* --- segment sizes by connection -----------------------------------------------------------------
 */

static u64 mix(u64 h, u32 v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

/* Of the connection; the guest's side is the source, or the destination. */
static u64 connection(const struct mss_table *t, const u8 *p, const struct frame *f, bool from)
{
    u32 n = f->ip == 4 ? 4 : 16, at = ETH_HEADER + (f->ip == 4 ? 12 : 8);
    const u8 *src = p + at, *dst = p + at + n, *port = p + f->l4;
    const u8 *guest = from ? src : dst, *other = from ? dst : src;
    u64 h = t->seed;

    for (u32 i = 0; i < n; i += 4) {
        h = mix(h, get32(guest + i));
        h = mix(h, get32(other + i));
    }
    return mix(h, from ? get32(port) : (u32)get16(port + 2) << 16 | get16(port));
}

void mss_note(struct mss_table *t, const u8 *p, const struct frame *f, u16 mss)
{
    u64 h = connection(t, p, f, true);

    t->entry[h % MSS_TABLE_SIZE].tag = (u32)(h >> 32);
    t->entry[h % MSS_TABLE_SIZE].mss = mss;
}

u16 mss_look_up(const struct mss_table *t, const u8 *p, const struct frame *f)
{
    u64 h = connection(t, p, f, false);
    u16 mss = t->entry[h % MSS_TABLE_SIZE].mss;

    if (mss && t->entry[h % MSS_TABLE_SIZE].tag == (u32)(h >> 32))
        return mss;
    return f->ip == 4 ? MSS_ALWAYS_V4 : MSS_ALWAYS_V6;
}
