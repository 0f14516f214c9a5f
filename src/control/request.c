/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "control/request.h"
#include "proto/control.h"

#define ERROR_SIZE 512

/* The reply as text; frees it. NULL: out of memory, or it is longer than a reply may be. */
static char *finish(json_t *reply, size_t *len)
{
    char *text = reply ? json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL, *line = NULL;

    json_decref(reply);
    *len = text ? strlen(text) : 0;
    if (*len && *len < CONTROL_REPLY_MAX) {
        line = realloc(text, *len + 1);
        if (line) {
            line[(*len)++] = '\n';
            return line;
        }
    }
    free(text);
    return NULL;
}

/* Errors tell names of files, which may be no UTF-8, or were cut within a character: what is not
 * ASCII becomes question marks then. */
static json_t *error_text(const char *text)
{
    json_t *t = json_string(text);
    char copy[ERROR_SIZE];
    size_t n = strnlen(text, sizeof(copy) - 1);

    if (t)
        return t;
    for (size_t i = 0; i < n; i++)
        copy[i] = text[i] < 0 ? '?' : text[i];
    copy[n] = 0;
    return json_string(copy);
}

static char *refuse(json_t *id, const char *text, size_t *len)
{
    json_t *reply = json_object();

    if (id)
        json_object_set(reply, "id", id);
    json_object_set_new(reply, "ok", json_false());
    json_object_set_new(reply, "error", error_text(text));
    return finish(reply, len);
}

char *control_refusal(const char *text, size_t *len)
{
    return refuse(NULL, text, len);
}

/* What every request looks like. NULL, or what is wrong with it; *id and *name are borrowed. */
static const char *check(json_t *request, json_t **id, const char **name)
{
    json_t *command;

    *id = NULL;
    *name = NULL;
    if (!json_is_object(request))
        return "a request is an object: {\"command\": \"status\"}";
    *id = json_object_get(request, "id");
    if (*id && !json_is_string(*id) && !json_is_integer(*id)) {
        *id = NULL;
        return "id is a string or an integer";
    }
    command = json_object_get(request, "command");
    *name = json_string_value(command);
    return *name ? NULL : "command is missing, or no string";
}

static const struct control_member *find_member(const struct control_command *c, const char *name)
{
    for (const struct control_member *m = c->members; m && m->name; m++)
        if (!strcmp(m->name, name))
            return m;
    return NULL;
}

/* The members of a request for c. false: one line in err. */
static bool check_members(const struct control_command *c, const json_t *request, char *err,
                          size_t err_size)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)request, key, value)
    {
        const struct control_member *m = find_member(c, key);

        if (!strcmp(key, "id") || !strcmp(key, "command"))
            continue;
        if (!m) {
            size_t at = (size_t)snprintf(err, err_size, "a request has the keys id and command");

            for (m = c->members; m && m->name && at < err_size; m++)
                at += (size_t)snprintf(err + at, err_size - at, ", %s", m->name);
            if (at < err_size)
                snprintf(err + at, err_size - at, ", no others");
            return false;
        }
        if (m->type == CONTROL_BOOLEAN ? !json_is_boolean(value) : !json_is_string(value)) {
            snprintf(err, err_size, "%s is %s", m->name,
                     m->type == CONTROL_BOOLEAN ? "true or false" : "a string");
            return false;
        }
    }
    return true;
}

static char *carry_out(const struct control_command *c, void *opaque, struct control_call *call,
                       json_t *id, size_t *len)
{
    char *text;

    if (!check_members(c, call->request, call->err, call->err_size))
        return refuse(id, call->err, len);
    call->reply = json_object();
    if (id)
        json_object_set(call->reply, "id", id);
    json_object_set_new(call->reply, "ok", json_true());
    if (c->run(opaque, call)) {
        json_decref(call->reply);
        return refuse(id, call->err, len);
    }
    text = finish(call->reply, len);
    return text ? text : refuse(id, "the reply is too long", len);
}

static char *run(const struct control_command *commands, void *opaque, struct control_call *call,
                 json_t *id, const char *name, size_t *len)
{
    char err[ERROR_SIZE];
    size_t at;

    call->err = err;
    call->err_size = sizeof(err);

    for (const struct control_command *c = commands; c->name; c++)
        if (!strcmp(c->name, name))
            return carry_out(c, opaque, call, id, len);
    at = (size_t)snprintf(err, sizeof(err), "there is no such command; there are");
    for (const struct control_command *c = commands; c->name && at < sizeof(err); c++)
        at += (size_t)snprintf(err + at, sizeof(err) - at, "%s %s", c == commands ? "" : ",",
                               c->name);
    return refuse(id, err, len);
}

/* To send nothing fails just when nothing could be sent any more (Linux, unix_stream_sendmsg). */
bool control_client_gone(const struct control_call *call)
{
    return call->client >= 0 && send(call->client, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
           errno == EPIPE;
}

char *control_answer(const struct control_command *commands, void *opaque, const char *line,
                     size_t n, struct control_fds *fds, int client, size_t *len)
{
    struct control_fds none = {.n = 0};
    json_error_t error;
    json_t *request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error), *id;
    struct control_call call = {.request = request, .fds = fds ? fds : &none, .client = client};
    const char *name, *wrong;
    char *text;

    if (!request)
        return control_refusal("this is not JSON", len);
    wrong = check(request, &id, &name);
    text = wrong ? refuse(id, wrong, len) : run(commands, opaque, &call, id, name, len);
    json_decref(request);
    return text;
}
