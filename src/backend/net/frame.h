/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet frames between a guest that leaves segmentation and checksums to others and a TCP/IP
 * stack that does not (user.h): checking what a hostile guest sent, completing checksums, cutting
 * big TCP segments, and asking the stack for big ones. Pure functions of bytes; all offsets and
 * lengths are checked here and nowhere else.
 */
#ifndef TRIVISOR_BACKEND_NET_FRAME_H
#define TRIVISOR_BACKEND_NET_FRAME_H

#include "base/types.h"

/* virtio 1.2 5.1.6 */
struct net_hdr {
    u8 flags;
    u8 gso_type;
    u16 hdr_len, gso_size;
    u16 csum_start, csum_offset;
    u16 num_buffers;
};
_Static_assert(sizeof(struct net_hdr) == 12, "virtio 1.2 5.1.6");

#define NET_HDR_NEEDS_CSUM 1
#define NET_HDR_DATA_VALID 2
#define NET_GSO_NONE 0
#define NET_GSO_TCPV4 1
#define NET_GSO_TCPV6 4
#define NET_GSO_ECN 0x80 /* may be set besides */

#define ETH_HEADER 14
#define FRAME_MAX (ETH_HEADER + 65535 + 40) /* IPv6 does not count its header */

/* What is where in a frame. */
struct frame {
    u8 ip;       /* 4, 6, or 0: ARP */
    u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP, ...; 0: none (a fragment but the first, ARP) */
    bool fragment;
    u32 len;     /* without padding behind the IP packet */
    u32 l4;      /* where the transport header begins */
    u32 payload; /* where its payload begins; TCP and UDP only */
};

/* Looks at len bytes. false: no frame our stack should see. */
bool frame_parse(const u8 *p, size_t len, struct frame *f);

/* The checksum of f's transport header and payload with its pseudo header, from the header's field
 * being 0 (RFC 1071): what belongs into the field. TCP and UDP only. */
u16 frame_checksum(const u8 *p, const struct frame *f);

/*
 * Makes a frame from the guest one for the stack: checks it, completes its checksum, takes the
 * urgent flag from TCP (a reader's bug in libslirp 4.7 begins there). *f is filled in. false: drop
 * it.
 */
bool frame_from_guest(u8 *p, size_t len, const struct net_hdr *hdr, struct frame *f);

/* The value of a TCP SYN's maximum segment size option, or 0: no SYN, or none in it. */
u16 frame_get_mss(const u8 *p, const struct frame *f);
/* Changes it, and the checksum. There must be one. */
void frame_set_mss(u8 *p, const struct frame *f, u16 mss);

/* One piece of a frame that is cut: a header of its own and payload in place. */
struct frame_piece {
    u8 header[ETH_HEADER + 60 + 60];
    u32 header_len;
    const u8 *payload;
    u32 payload_len;
};
typedef void frame_emit_fn(void *opaque, const struct frame_piece *piece);

/* Cuts a TCP segment into ones of at most mss bytes, complete with checksums. */
void frame_segment(const u8 *p, const struct frame *f, u32 mss, frame_emit_fn *emit, void *opaque);
/* Cuts an IPv4 packet into fragments of at most mtu bytes, IP header included (RFC 791). false: it
 * must not be, or mtu has no room for anything. */
bool frame_fragment(const u8 *p, const struct frame *f, u32 mtu, frame_emit_fn *emit, void *opaque);

/* The header that hands a big TCP segment to a guest which cuts it itself, into mss bytes each;
 * *partial: what belongs into the checksum field then (virtio 1.2 5.1.6.4). */
void frame_gso(const u8 *p, const struct frame *f, u16 mss, struct net_hdr *hdr, u16 *partial);

/* --- what guests said they can take: maximum segment sizes by connection */

/* The sizes every host must take (RFC 9293 3.7.1, RFC 8200 5). */
#define MSS_ALWAYS_V4 536
#define MSS_ALWAYS_V6 1220

#define MSS_TABLE_SIZE 1024
struct mss_table {
    u64 seed;
    struct {
        u32 tag;
        u16 mss;
    } entry[MSS_TABLE_SIZE];
};

/* Notes a SYN of the guest's. */
void mss_note(struct mss_table *t, const u8 *p, const struct frame *f, u16 mss);
/* For a segment to the guest; MSS_ALWAYS when its connection is not known any more. */
u16 mss_look_up(const struct mss_table *t, const u8 *p, const struct frame *f);

#endif
