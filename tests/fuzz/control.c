/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the control socket: whatever a client says, it gets one bounded line of JSON that
 * says whether something was done, and nothing is done that was not asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/request.h"
#include "proto/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned done;

static int good(void *opaque, const struct control_call *call)
{
    (void)opaque;
    done++;
    json_object_set_new(call->reply, "state", json_string("running"));
    return 0;
}

static int bad(void *opaque, const struct control_call *call)
{
    (void)opaque;
    (void)call;
    snprintf(call->err, call->err_size, "no");
    return -1;
}

static const struct control_command commands[] = {
    {"pause", good, NULL}, {"stop", bad, NULL}, {NULL, NULL, NULL}};

static void check(bool is_so)
{
    if (!is_so)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_error_t error;
    json_t *reply, *request;
    const char *name;
    size_t len;
    char *text;
    bool ok;

    if (size > CONTROL_REQUEST_MAX)
        return 0;
    done = 0;
    text = control_answer(commands, NULL, (const char *)data, size, NULL, -1, &len);
    check(text && len && len <= CONTROL_REPLY_MAX);
    check(memchr(text, '\n', len) == text + len - 1);
    for (size_t i = 0; i + 1 < len; i++)
        check(text[i] >= ' ' && text[i] <= 0x7f);
    reply = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    check(reply && json_is_boolean(json_object_get(reply, "ok")));
    ok = json_is_true(json_object_get(reply, "ok"));
    check(ok == (done == 1) && done <= 1);
    check(ok != json_is_string(json_object_get(reply, "error")));
    request = json_loadb((const char *)data, size, 0, &error);
    name = json_string_value(json_object_get(request, "command"));
    if (ok)
        check(name && !strcmp(name, "pause") &&
              json_equal(json_object_get(request, "id"), json_object_get(reply, "id")) ==
                  (json_object_get(request, "id") != NULL));
    json_decref(request);
    json_decref(reply);
    free(text);
    return 0;
}
