/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of gdb's Remote Serial Protocol (GDB manual, appendix E): $data#checksum, acknowledged by
 * + or - until both sides agree not to. No I/O here.
 */
#ifndef TRIVISOR_DEBUG_GDB_PACKET_H
#define TRIVISOR_DEBUG_GDB_PACKET_H

#include "base/types.h"

/* Bytes of data in a packet, either way; told to gdb as PacketSize. */
#define GDB_PACKET_MAX 16384u

enum gdb_event {
    GDB_NOTHING,
    GDB_PACKET,    /* a whole packet with a good checksum is in data */
    GDB_BAD,       /* a packet with a bad checksum, or too long, was dropped */
    GDB_INTERRUPT, /* 03 outside a packet */
    GDB_ACK,
    GDB_NAK,
};

struct gdb_parser {
    enum { GDB_IDLE, GDB_DATA, GDB_ESCAPE, GDB_SUM1, GDB_SUM2 } state;
    u8 sum, told;
    bool too_long;
    size_t len;
    char data[GDB_PACKET_MAX + 1]; /* escapes resolved; a 0 follows the last byte */
};

/* Takes one byte; what it completes. All zeroes is a parser's first state. */
enum gdb_event gdb_parse(struct gdb_parser *p, u8 byte);

/* A packet being written. What does not fit is left out and sets full. */
struct gdb_out {
    size_t len; /* of the data */
    bool full;
    char frame[1 + GDB_PACKET_MAX + 3]; /* $ data #xx */
};

void gdb_out_begin(struct gdb_out *o);
void gdb_out_char(struct gdb_out *o, char c);
void gdb_out_text(struct gdb_out *o, const char *s);
/* Two hex digits a byte. */
void gdb_out_hex(struct gdb_out *o, const void *buf, size_t n);
/* A number in hex, without leading zeroes. */
void gdb_out_number(struct gdb_out *o, u64 v);
/* Bytes as they are, escaped where the framing needs it. */
void gdb_out_binary(struct gdb_out *o, const void *buf, size_t n);
/* Data bytes there is room for. */
size_t gdb_out_room(const struct gdb_out *o);
/* Adds the checksum; the length of the frame. */
size_t gdb_out_end(struct gdb_out *o);

/* --- reading text: *at moves on over what was read --- */

/* A hex number of at most 64 bits. false: there is none, or it is longer. */
bool gdb_number(const char **at, u64 *v);
/* Exactly 2n hex digits into n bytes. false: fewer. */
bool gdb_bytes(const char **at, void *buf, size_t n);
/* Reads over a literal text. false: something else is there. */
bool gdb_literal(const char **at, const char *text);

#endif
