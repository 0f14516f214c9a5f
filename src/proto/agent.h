/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's agent (src/agent) and the monitor say to each other over the second serial port,
 * when `trivisor run -- command` runs a command in the guest. A reliable line without a kernel's
 * messages on it; after the agent's greeting everything is frames: a type byte, two bytes of length
 * (little-endian), the payload.
 *
 * Output needs no credit: the port holds the guest's transmitter back (chardev.holds). Input does:
 * a guest's kernel drops what it has no room for.
 */
#ifndef TRIVISOR_PROTO_AGENT_H
#define TRIVISOR_PROTO_AGENT_H

/* Files in the guest's initramfs. */
#define AGENT_PROGRAM "/trivisor/init"
#define AGENT_COMMAND "/trivisor/command"   /* argv, each ended by a NUL */
#define AGENT_TERMINAL "/trivisor/terminal" /* TERM; there when the command gets a terminal */
#define AGENT_PORT "/dev/ttyS1"

/* The agent's first bytes; what comes before is not the agent's. */
#define AGENT_GREETING "\001trivisor\002"
#define AGENT_GREETING_LEN 10

#define AGENT_FRAME_MAX 4096
#define AGENT_HEADER_LEN 3

/* From the agent. */
#define AGENT_STDOUT 'o'
#define AGENT_STDERR 'e'
#define AGENT_CREDIT 'c' /* u16: that many bytes of input have been passed on */
#define AGENT_EXIT 'x'   /* u8: the command's exit status, 128+n for a signal */

/* To the agent. */
#define AGENT_INPUT 'i'
#define AGENT_INPUT_END 'z'
#define AGENT_SIZE 'w'   /* u16 columns, u16 rows: the terminal's size */
#define AGENT_BROKEN 'p' /* u8: nobody reads the command's output 1 or 2 any more */

/* Bytes of input that may be under way at first. */
#define AGENT_CREDIT_FIRST 8192

#endif
