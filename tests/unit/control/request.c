/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/request.h"
#include "proto/control.h"
#include "test.h"

static unsigned runs;

static int good(void *opaque, const struct control_call *call)
{
    assert_ptr_equal(opaque, &runs);
    runs++;
    json_object_set_new(call->reply, "answer", json_integer(42));
    return 0;
}

static int bad(void *opaque, const struct control_call *call)
{
    (void)opaque;
    json_object_set_new(call->reply, "answer", json_integer(42));
    snprintf(call->err, call->err_size, "it did not work");
    return -EIO;
}

/* The name of a file, cut within a character. */
static int cut(void *opaque, const struct control_call *call)
{
    (void)opaque;
    snprintf(call->err, call->err_size, "disk /a\xc3\xa9\xc3");
    return -EIO;
}

static int endless(void *opaque, const struct control_call *call)
{
    char *text = calloc(1, CONTROL_REPLY_MAX + 1);

    (void)opaque;
    memset(text, 'x', CONTROL_REPLY_MAX);
    json_object_set_new(call->reply, "text", json_string(text));
    free(text);
    return 0;
}

static const struct control_command commands[] = {{"good", good, NULL},
                                                  {"bad", bad, NULL},
                                                  {"cut", cut, NULL},
                                                  {"endless", endless, NULL},
                                                  {NULL, NULL, NULL}};

static void expect(const char *request, size_t n, const char *reply)
{
    size_t len;
    char *text = control_answer(commands, &runs, request, n, NULL, -1, &len);

    assert_non_null(text);
    assert_int_equal(len, strlen(reply) + 1);
    assert_memory_equal(text, reply, len - 1);
    assert_int_equal(text[len - 1], '\n');
    free(text);
}

#define EXPECT(request, reply) expect(request, sizeof(request) - 1, reply)
#define REFUSED(text) "{\"ok\":false,\"error\":\"" text "\"}"

static void carried_out(void **state)
{
    (void)state;
    runs = 0;
    EXPECT("{\"command\":\"good\"}", "{\"ok\":true,\"answer\":42}");
    EXPECT(" { \"id\" : 7, \"command\" : \"good\" } \r", "{\"id\":7,\"ok\":true,\"answer\":42}");
    EXPECT("{\"command\":\"good\",\"id\":\"a\\u00e9\\n\"}",
           "{\"id\":\"a\\u00E9\\n\",\"ok\":true,\"answer\":42}");
    assert_int_equal(runs, 3);
}

static void failed(void **state)
{
    (void)state;
    EXPECT("{\"id\":-1,\"command\":\"bad\"}",
           "{\"id\":-1,\"ok\":false,\"error\":\"it did not work\"}");
    EXPECT("{\"command\":\"cut\"}", REFUSED("disk /a???"));
    EXPECT("{\"id\":1,\"command\":\"endless\"}",
           "{\"id\":1,\"ok\":false,\"error\":\"the reply is too long\"}");
}

static void not_requests(void **state)
{
    static const char *const no_json[] = {"",
                                          "x",
                                          "{",
                                          "{\"command\":\"good\"} x",
                                          "\xff\xfe",
                                          "{'a':1}",
                                          "{\"command\":\"good\",\"command\":\"good\"}",
                                          "nul",
                                          "{\"a\":1,}",
                                          "{\"command\":\"g\\u0000ood\"}",
                                          "\"good\"x"};

    (void)state;
    runs = 0;
    for (size_t i = 0; i < ARRAY_SIZE(no_json); i++)
        expect(no_json[i], strlen(no_json[i]), REFUSED("this is not JSON"));
    EXPECT("{\"command\":\"good\"}\0", REFUSED("this is not JSON"));
    EXPECT("[]", REFUSED("a request is an object: {\\\"command\\\": \\\"status\\\"}"));
    EXPECT("{}", REFUSED("command is missing, or no string"));
    EXPECT("{\"command\":1}", REFUSED("command is missing, or no string"));
    EXPECT("{\"command\":\"good\",\"x\":1}",
           REFUSED("a request has the keys id and command, no others"));
    EXPECT("{\"command\":\"good\",\"id\":[]}", REFUSED("id is a string or an integer"));
    EXPECT("{\"command\":\"good\",\"id\":1.5}", REFUSED("id is a string or an integer"));
    EXPECT("{\"id\":3,\"command\":\"GOOD\"}",
           "{\"id\":3,\"ok\":false,\"error\":\"there is no such command; there are good, bad, cut, "
           "endless\"}");
    assert_int_equal(runs, 0);
}

static void deep(void **state)
{
    char line[CONTROL_REQUEST_MAX];

    (void)state;
    memset(line, '[', sizeof(line));
    expect(line, sizeof(line), REFUSED("this is not JSON"));
    memset(line + sizeof(line) / 2, ']', sizeof(line) / 2);
    expect(line, sizeof(line),
           REFUSED("a request is an object: {\\\"command\\\": \\\"status\\\"}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carried_out),
        cmocka_unit_test(failed),
        cmocka_unit_test(not_requests),
        cmocka_unit_test(deep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
