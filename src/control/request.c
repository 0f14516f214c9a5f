/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static char *refuse(json_t *id, const char *text, size_t *len)
{
    json_t *reply = json_object();

    if (id)
        json_object_set(reply, "id", id);
    json_object_set_new(reply, "ok", json_false());
    json_object_set_new(reply, "error", json_string(text));
    return finish(reply, len);
}

char *control_refusal(const char *text, size_t *len)
{
    return refuse(NULL, text, len);
}

/* What a request looks like. NULL, or what is wrong with it; *id and *name are borrowed. */
static const char *check(json_t *request, json_t **id, const char **name)
{
    const char *key;
    json_t *value;

    *id = NULL;
    *name = NULL;
    if (!json_is_object(request))
        return "a request is an object: {\"command\": \"status\"}";
    json_object_foreach(request, key, value)
    {
        if (!strcmp(key, "id") && (json_is_string(value) || json_is_integer(value)))
            *id = value;
        else if (!strcmp(key, "id"))
            return "id is a string or an integer";
        else if (!strcmp(key, "command") && json_is_string(value))
            *name = json_string_value(value);
        else if (strcmp(key, "command") != 0)
            return "a request has the keys id and command, no others";
    }
    return *name ? NULL : "command is missing, or no string";
}

static char *run(const struct control_command *commands, void *opaque, json_t *id, const char *name,
                 size_t *len)
{
    char err[ERROR_SIZE], *text;
    json_t *reply;
    size_t at;

    for (const struct control_command *c = commands; c->name; c++) {
        if (strcmp(c->name, name) != 0)
            continue;
        reply = json_object();
        if (id)
            json_object_set(reply, "id", id);
        json_object_set_new(reply, "ok", json_true());
        if (c->run(opaque, reply, err, sizeof(err))) {
            json_decref(reply);
            return refuse(id, err, len);
        }
        text = finish(reply, len);
        return text ? text : refuse(id, "the reply is too long", len);
    }
    at = (size_t)snprintf(err, sizeof(err), "there is no such command; there are");
    for (const struct control_command *c = commands; c->name && at < sizeof(err); c++)
        at += (size_t)snprintf(err + at, sizeof(err) - at, "%s %s", c == commands ? "" : ",",
                               c->name);
    return refuse(id, err, len);
}

char *control_answer(const struct control_command *commands, void *opaque, const char *line,
                     size_t n, size_t *len)
{
    json_error_t error;
    json_t *request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error), *id;
    const char *name, *wrong;
    char *text;

    if (!request)
        return control_refusal("this is not JSON", len);
    wrong = check(request, &id, &name);
    text = wrong ? refuse(id, wrong, len) : run(commands, opaque, id, name, len);
    json_decref(request);
    return text;
}
