/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine's console socket speaks: Unix-domain SOCK_SEQPACKET, a message is one type byte
 * and what belongs to it. Both ends are the same program on the same host.
 */
#ifndef TRIVISOR_PROTO_CONSOLE_H
#define TRIVISOR_PROTO_CONSOLE_H

#include "base/types.h"

/* Longest payload in either direction. */
#define CONSOLE_PAYLOAD_MAX 4096

/* From the client. */
#define CONSOLE_INPUT 'i'  /* typed bytes, as they are */
#define CONSOLE_SIZE 'w'   /* struct console_size: the window has this size now */
#define CONSOLE_QUIT 'q'   /* end the machine */
#define CONSOLE_DETACH 'd' /* the terminal goes, the machine stays */

/* From the machine. */
#define CONSOLE_HELLO 'h'  /* first message: the machine's name, empty when it has none */
#define CONSOLE_REPLAY 'r' /* output from before the client came */
#define CONSOLE_OUTPUT 'o' /* output, as it comes */
#define CONSOLE_LOST 'l'   /* u64: that many bytes of output were dropped here, nobody took them */
#define CONSOLE_END 'e'    /* last message: the machine ends */

struct console_size {
    u16 cols, rows;
};

#endif
