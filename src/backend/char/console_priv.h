/* SPDX-License-Identifier: Apache-2.0 */
/* Between console.c (the console) and client.c (one at its other end). */
#ifndef TRIVISOR_BACKEND_CHAR_CONSOLE_PRIV_H
#define TRIVISOR_BACKEND_CHAR_CONSOLE_PRIV_H

#include "backend/char/replay.h"
#include "core/backend.h"
#include "core/clock.h"
#include "core/vm.h"
#include "proto/console.h"

#define CONSOLE_CLIENTS_MAX 8

/* One end of a socket or terminal. Everything with the VM lock held; descriptors are closed on the
 * event loop only. */
struct console_client {
    struct console *console; /* NULL: the slot is free */
    int fd;
    bool framed; /* speaks proto/console.h; otherwise plain bytes */
    bool owner;  /* console_config.terminal_fd, not detached yet */
    bool gone;   /* to be closed */
    bool full;   /* waits for room in the socket */
    u32 events;  /* what the loop watches for */
    u64 pos;     /* next byte of output it gets */
    u64 live;    /* output before this position is replay */
    size_t in_pos, in_len;
    u8 in[CONSOLE_PAYLOAD_MAX];
};

struct console {
    struct chardev c; /* first */
    struct vm *vm;
    struct replay log;
    struct chardev *wired; /* NULL: none */
    const char *serial;    /* what it is connected to */
    char name[72];
    int listen_fd;     /* framed clients, or -1 */
    int raw_listen_fd; /* plain ones, one at a time, or -1 */
    u64 raw_pos;       /* where the next plain client begins */
    int keep_fd;       /* a pty's slave, kept open so that the master never hangs up; or -1 */
    int null_fd;       /* takes the place of standard output and error after a detach, or -1 */
    struct vtimer timer;
    struct host_bh input_bh, reap_bh;
    struct console_client client[CONSOLE_CLIENTS_MAX];
};

/* Puts fd (non-blocking) into a free slot and watches it; it gets the output from pos on. NULL:
 * none is free, or the loop refuses; fd is the caller's then. */
struct console_client *client_add(struct console *h, int fd, bool framed, u64 pos);
/* Sends output until the client has all or its socket is full. */
void client_flush(struct console_client *c);
/* Sends one message, or drops it when the socket is full. */
void client_send(struct console_client *c, u8 type, const void *payload, size_t n);
/* Offers what it has typed to the device. */
void client_deliver(struct console_client *c);
/* Closes it and frees the slot. On the event loop, or when it does not run. */
void client_close(struct console_client *c);

/* The window has another size. */
void console_resized(struct console *h, const struct console_size *size);
/* The terminal's process said that it goes: the machine stays. */
void console_detached(struct console *h);

#endif
