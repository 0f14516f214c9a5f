/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket's bounds; what is said over it is in docs/control.md. */
#ifndef TRIVISOR_PROTO_CONTROL_H
#define TRIVISOR_PROTO_CONTROL_H

/* Bytes of a request and of a reply, the line feed included. */
#define CONTROL_REQUEST_MAX 4096
#define CONTROL_REPLY_MAX 65536
/* Descriptors with a request; further ones are lost. */
#define CONTROL_FDS_MAX 32

#endif
