/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the control socket (docs/control.md): from a line of text to the line that answers
 * it. No I/O here.
 */
#ifndef TRIVISOR_CONTROL_REQUEST_H
#define TRIVISOR_CONTROL_REQUEST_H

#include <jansson.h>

#include "base/types.h"
#include "proto/control.h"

/* Descriptors that came with a request, in their order. A command that keeps one puts -1 in its
 * place; the others are closed afterwards. */
struct control_fds {
    int fd[CONTROL_FDS_MAX];
    unsigned n;
};

struct control_call {
    const json_t *request; /* an object; its members are the command's, of their types */
    struct control_fds *fds;
    int client;    /* the connection it came by, or -1; not to be read or written */
    json_t *reply; /* an object: results are added */
    char *err;
    size_t err_size;
};

/* Carries a command out. 0, or -errno with one line in err. */
typedef int control_fn(void *opaque, const struct control_call *call);

/* What a request may have besides command and id. */
struct control_member {
    const char *name; /* NULL ends a list */
    enum { CONTROL_BOOLEAN, CONTROL_STRING } type;
};

struct control_command {
    const char *name; /* NULL ends a table */
    control_fn *run;
    const struct control_member *members; /* NULL: none */
};

/*
 * Answers a request of n bytes (at most CONTROL_REQUEST_MAX, without its line feed; anything may be
 * in them). fds: what came with it, the caller's; NULL: nothing. client: see struct control_call.
 * The reply with its line feed, to be freed, its length in *len; NULL: out of memory.
 */
char *control_answer(const struct control_command *commands, void *opaque, const char *line,
                     size_t n, struct control_fds *fds, int client, size_t *len);

/* Whether the other end of the connection a call came by was closed: nobody will see the reply. One
 * that only says nothing more (SHUT_WR) is there. */
bool control_client_gone(const struct control_call *call);

/* A reply to what is no request: {"ok": false, "error": text}. Likewise. */
char *control_refusal(const char *text, size_t *len);

#endif
