/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal as a client of a machine's console (proto/console.h). */
#ifndef TRIVISOR_APP_TERMINAL_H
#define TRIVISOR_APP_TERMINAL_H

#include <sys/types.h>

#include "base/types.h"

struct terminal_config {
    int sock; /* closed on return */
    /* The process of a machine in the foreground: gets the signals that would end us, and ends when
     * the terminal hangs up. 0: the machine is somebody else's, signals end the client only. */
    pid_t machine;
    bool leave;    /* detach as soon as the machine says that it runs */
    bool confined; /* give up all other rights first, for good (core/sandbox.h) */
};

enum terminal_end {
    TERMINAL_ENDED,    /* the machine said that it ends */
    TERMINAL_LOST,     /* the connection broke without a word: the machine was killed, or failed */
    TERMINAL_DETACHED, /* C-a d, or config.leave */
    TERMINAL_HUNG_UP,  /* the terminal is gone */
    TERMINAL_SIGNAL,   /* a signal; only when config.machine is 0 */
    TERMINAL_FAILED,   /* it could not be begun, which was said */
};

struct terminal_result {
    enum terminal_end end;
    int sig;       /* TERMINAL_SIGNAL */
    bool hello;    /* the machine has said hello */
    char name[72]; /* its name; may be empty */
    bool mid_line; /* the terminal's cursor is behind some output */
    u64 lost;      /* bytes of output it dropped because we were too slow */
};

/* Joins standard input and output with the console until one of the ends above. A terminal is in
 * raw mode meanwhile and restored in any case. */
struct terminal_result terminal_attach(const struct terminal_config *cfg);

#endif
